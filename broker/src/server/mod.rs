//! The shell around everything: accept, frame, dispatch, answer, close.
//!
//! A connection has two halves. The reader cuts frames and starts each request; the writer sends the
//! answers in the order of the requests, as every client relies on. Produce requests are appended by
//! the reader, so that many can wait for one fdatasync; any other runs in the writer, and nothing
//! more is read until it is answered, as in Kafka.

mod connection;
mod frame;
mod greeting;
mod listen;
mod memory;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use elkfk_base::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

pub(crate) use frame::Frame;
pub(crate) use listen::{ListenError, bind};
pub(crate) use memory::{Memory, Share};

use crate::broker::Broker;
use crate::metrics;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) broker: Arc<Broker>,
    tasks: Tasks,
    /// Frames being read or answered.
    memory: Memory,
    /// What frames become when they are decoded: as much again.
    decoded: Memory,
    /// Requests being begun: `queued.max.requests`.
    queue: Arc<Semaphore>,
    /// Open connections by address.
    open: Mutex<HashMap<IpAddr, usize>>,
    /// When the last complaint about a peer was logged: a scanner must not fill the log.
    complained: Mutex<Option<Instant>>,
}

/// A connection that counts against its address for as long as this lives, a panic included.
struct Entered<'s> {
    server: &'s Server,
    ip: IpAddr,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.server.leave(self.ip);
        metrics::CONNECTIONS_FINISHED.inc();
    }
}

/// Complaints about peers are logged this often at most; all are counted.
const COMPLAINT_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

impl Server {
    pub(crate) fn new(broker: Arc<Broker>, tasks: Tasks) -> Self {
        let bytes = broker.config.request_memory_bytes;
        let queued = broker.config.queued_requests_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            broker,
            tasks,
            memory: Memory::new(bytes),
            decoded: Memory::new(bytes),
            queue: Arc::new(Semaphore::new(queued)),
            open: Mutex::default(),
            complained: Mutex::default(),
        }
    }

    /// Accepts until the tasks are stopped.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener, listener_name: String) {
        loop {
            let accepted = tokio::select! {
                () = self.tasks.stopping() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.clone().welcome(stream, &listener_name),
                Err(error) => {
                    // Out of file descriptors, mostly: those that are open may end meanwhile.
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn welcome(self: Arc<Self>, stream: TcpStream, listener_name: &str) {
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
        let ip = peer.ip().to_canonical();
        if let Err(limit) = self.enter(ip) {
            metrics::CONNECTIONS_REFUSED.inc();
            self.complain(&format!("connection from {peer} refused: {limit}"));
            return;
        }
        metrics::CONNECTIONS_STARTED.inc();
        let name = listener_name.to_owned();
        let this = self.clone();
        self.tasks.spawn("connection", async move {
            let _entered = Entered { server: &this, ip };
            if let Err(reason) = connection::serve(&this, stream, peer, local, name).await {
                debug!(%peer, reason, "connection closed");
            }
        });
    }

    fn enter(&self, ip: IpAddr) -> Result<(), String> {
        let config = &self.broker.config;
        let limit = config.connections_per_ip_overrides.get(&ip.to_string());
        let limit = limit.copied().unwrap_or(config.connections_per_ip_max);
        let mut open = self.open.lock().expect("no panic while held");
        if open.values().sum::<usize>() >= config.connections_max {
            return Err(format!("max.connections={} are open", config.connections_max));
        }
        let count = open.entry(ip).or_default();
        if *count >= limit {
            return Err(format!("max.connections.per.ip={limit} are open from there"));
        }
        *count += 1;
        Ok(())
    }

    fn leave(&self, ip: IpAddr) {
        let mut open = self.open.lock().expect("no panic while held");
        if let Some(count) = open.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&ip);
            }
        }
    }

    /// Logs one line about a peer, unless one was logged just now.
    fn complain(&self, text: &str) {
        let mut last = self.complained.lock().expect("no panic while held");
        if last.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
            *last = Some(Instant::now());
            warn!("{text}");
        }
    }
}
