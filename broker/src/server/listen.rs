//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::config::{Config, Listener};

/// Why the broker does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "listen on {address}: address in use; stop the program that holds it or give another with listeners=…"
    )]
    InUse { address: String },
    #[error("listen on {address}: {source}; give an address of this machine with listeners=…")]
    Other { address: String, source: io::Error },
}

/// Listens where `listener` says; an empty host is every interface.
pub(crate) async fn bind(config: &Config, listener: &Listener) -> Result<TcpListener, ListenError> {
    let host = match listener.host.as_str() {
        "" => "[::]".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let address = format!("{host}:{}", listener.port);
    let explain = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address: address.clone() },
        _ => ListenError::Other { address: address.clone(), source },
    };
    let resolved: Vec<SocketAddr> =
        tokio::net::lookup_host(&address).await.map_err(explain)?.collect();
    // IPv4 first: `localhost` is both, and clients mostly try that.
    let first = resolved.iter().find(|address| address.is_ipv4()).or(resolved.first()).copied();
    let Some(first) = first else {
        return Err(explain(io::Error::new(io::ErrorKind::NotFound, "no such host")));
    };
    match listen(config, first) {
        // A machine without IPv6.
        Err(error) if listener.host.is_empty() && error.kind() != io::ErrorKind::AddrInUse => {
            listen(config, SocketAddr::from(([0, 0, 0, 0], listener.port))).map_err(explain)
        }
        result => result.map_err(explain),
    }
}

fn listen(config: &Config, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Sizes are inherited by accepted sockets. Not given, Linux tunes them itself, better than
    // Kafka's 100 KiB.
    let size = |key| config.given(key).and_then(|value| value.parse::<u32>().ok());
    if let Some(bytes) = size("socket.receive.buffer.bytes") {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = size("socket.send.buffer.bytes") {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    socket.listen(config.listen_backlog)
}
