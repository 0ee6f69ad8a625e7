//! A TCP proxy whose connections can be cut and refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) struct Proxy {
    addr: String,
    switch: Arc<Switch>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Switch {
    is_cut: AtomicBool,
    cut: Notify,
}

impl Proxy {
    pub(crate) async fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let (switch, target) = (Arc::new(Switch::default()), target.to_owned());
        let shared = switch.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (switch, target) = (shared.clone(), target.clone());
                if switch.is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                tokio::spawn(async move {
                    let cut = switch.cut.notified();
                    let Ok(mut far) = TcpStream::connect(&target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = cut => {}
                    }
                });
            }
        });
        Ok(Self { addr, switch, task })
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        self.switch.is_cut.store(true, Ordering::SeqCst);
        self.switch.cut.notify_waiters();
    }

    pub(crate) fn mend(&self) {
        self.switch.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
