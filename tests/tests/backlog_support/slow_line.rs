//! A line that can be made narrow: every client reaches the broker through it, and those of one name get
//! so many bytes a second on each connection, as over a network that is full.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Small enough that a narrow line drips instead of coming in gushes.
const PIECE_BYTES: usize = 2048;

/// A line that was idle for longer does not carry more afterwards.
const LATE_MAX: Duration = Duration::from_millis(300);

/// What one name's connections may carry from the broker, in bytes a second each; 0 is no limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Width(Arc<AtomicU64>);

impl Width {
    pub(crate) fn narrow_to(&self, bytes_per_s: u64) {
        self.0.store(bytes_per_s, Relaxed);
    }

    pub(crate) fn widen(&self) {
        self.0.store(0, Relaxed);
    }
}

pub(crate) struct SlowLine {
    shared: Arc<Shared>,
    pub(crate) addr: SocketAddr,
}

#[derive(Default)]
struct Shared {
    broker: OnceLock<SocketAddr>,
    widths: Mutex<HashMap<String, Width>>,
    is_stopped: AtomicBool,
}

impl SlowLine {
    /// Listens; what it leads to is told later, for a broker wants to know where it can be reached.
    pub(crate) fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.is_stopped.load(Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, accepting.clone()) else { continue };
                // What a client or the broker breaks off is broken off for the other too.
                thread::spawn(move || drop(carry(client, &shared)));
            }
        });
        Self { shared, addr }
    }

    pub(crate) fn lead_to(&self, broker: SocketAddr) {
        self.shared.broker.set(broker).unwrap();
    }

    /// The width for the client called `name` and those called `name-…`, to be asked for before they come.
    pub(crate) fn width_of(&self, name: &str) -> Width {
        self.shared.widths.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

fn carry(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let broker = shared.broker.get().ok_or(io::ErrorKind::NotConnected)?;
    let mut broker = TcpStream::connect(broker)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    // Every version of a request's header: length, key, version, correlation id, then the client's name.
    let mut head = [0; 14];
    client.read_exact(&mut head)?;
    let length = i16::from_be_bytes([head[12], head[13]]).max(0) as usize;
    let mut name = vec![0; length];
    client.read_exact(&mut name)?;
    broker.write_all(&[&head[..], &name].concat())?;
    let width = shared.width_of_client(&String::from_utf8_lossy(&name));

    let (mut from, mut to) = (client.try_clone()?, broker.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut piece = [0; PIECE_BYTES];
    let mut free_at = Instant::now();
    loop {
        let read = broker.read(&mut piece).unwrap_or(0);
        if read == 0 || client.write_all(&piece[..read]).is_err() {
            return client.shutdown(Shutdown::Both);
        }
        let bytes_per_s = width.as_ref().map_or(0, |width| width.0.load(Relaxed));
        if bytes_per_s > 0 {
            let takes = Duration::from_secs_f64(read as f64 / bytes_per_s as f64);
            // What a busy machine was late by is made up for, so that the width is the width.
            let now = Instant::now();
            free_at = free_at.max(now.checked_sub(LATE_MAX).unwrap_or(now)) + takes;
            thread::sleep(free_at.saturating_duration_since(Instant::now()));
        }
    }
}

impl Shared {
    fn width_of_client(&self, client: &str) -> Option<Width> {
        let widths = self.widths.lock().unwrap();
        let of = |name: &&String| {
            client
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let name = widths.keys().find(of)?;
        widths.get(name).cloned()
    }
}
