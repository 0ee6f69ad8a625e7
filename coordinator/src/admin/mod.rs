//! ZooKeeper's AdminServer: what the four-letter words tell, as JSON over HTTP; and `/metrics` for
//! Prometheus.
//!
//! Differs: it listens on loopback unless `admin.serverAddress` says otherwise, and refuses pages of
//! other sites, for some of its commands change something.

mod answers;
mod config;
mod metrics;
mod text;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elkfk_base::Tasks;
use elkfk_base::foreign::{self, Asked as Page};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

pub(crate) use answers::{Command, answer};
pub use config::AdminConfig;

use crate::server::{Asked, Shared, next_connection};

/// Open connections of one port; more wait to be accepted. Each holds 64 KiB at most.
const CONNECTIONS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// How long a request in hand may go on when the server is asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(1);
const METRICS_PATH: &str = "/metrics";

/// Why a port for HTTP is not served.
#[derive(Debug, thiserror::Error)]
#[error("listen on {addr} for {what}: {source}; stop the program that holds the port, {remedy}")]
pub struct AdminError {
    addr: SocketAddr,
    what: &'static str,
    remedy: &'static str,
    source: io::Error,
}

/// What a port serves.
#[derive(Debug, Clone)]
enum Serves {
    /// Commands below this path.
    Commands(String),
    Metrics,
}

/// A port that is bound and not served yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
    serves: Serves,
    idle: Duration,
}

/// Takes the ports that `config` asks for.
///
/// # Errors
/// Where one is taken that zoo.cfg asks for. The default port of the AdminServer may be taken by
/// another program: that is told, and all else goes on.
pub(crate) async fn bind(config: &AdminConfig) -> Result<Vec<Bound>, AdminError> {
    let mut bound = Vec::new();
    if config.is_enabled {
        let refused = |source| AdminError {
            addr: config.listen,
            what: "the AdminServer",
            remedy: "give another with admin.serverPort=…, or set admin.enableServer=false",
            source,
        };
        match listen(config.listen).await {
            Ok((listener, addr)) => {
                let serves = Serves::Commands(config.url.clone());
                bound.push(Bound { listener, addr, serves, idle: config.idle });
            }
            Err(source) if config.is_asked_for => return Err(refused(source)),
            Err(source) => {
                let why = refused(source);
                warn!("{why}; going on without it");
            }
        }
    }
    if let Some(addr) = config.metrics {
        let (listener, addr) = listen(addr).await.map_err(|source| AdminError {
            addr,
            what: "metrics",
            remedy: "or give another with metricsProvider.httpPort=…",
            source,
        })?;
        bound.push(Bound { listener, addr, serves: Serves::Metrics, idle: config.idle });
    }
    Ok(bound)
}

async fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Serves until `tasks` are stopped.
pub(crate) async fn serve(bound: Bound, shared: Arc<Shared>, tasks: Tasks) {
    let Bound { listener, addr, serves, idle } = bound;
    match &serves {
        Serves::Commands(url) => info!(%addr, url, "AdminServer ready"),
        Serves::Metrics => info!(%addr, "metrics ready"),
    }
    let server = Arc::new(Server { listen: addr, serves, shared });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // A place first: who holds none is not accepted.
        let place = tokio::select! {
            biased;
            () = tasks.stopping() => return,
            place = places.clone().acquire_owned() => place,
        };
        let Some((socket, peer)) = next_connection(&listener, &tasks).await else { return };
        let (server, stop) = (server.clone(), tasks.token());
        tasks.spawn("admin connection", async move {
            serve_connection(server, socket, peer, idle, stop).await;
            drop(place);
        });
    }
}

async fn serve_connection(
    server: Arc<Server>,
    socket: TcpStream,
    peer: SocketAddr,
    idle: Duration,
    stop: tokio_util::sync::CancellationToken,
) {
    let service = service_fn(|request| server.clone().respond(request, peer));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // A client that sends or reads nothing is not waited for.
            tokio::time::timeout(STOP_WAIT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "admin connection");
    }
}

#[derive(Debug)]
struct Server {
    listen: SocketAddr,
    serves: Serves,
    shared: Arc<Shared>,
}

impl Server {
    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut response = if foreign::is_foreign(self.listen.ip(), &Page::of(is_read, header)) {
            plain(
                StatusCode::FORBIDDEN,
                "request of another site's page, or under a name that is not this machine's (see admin.serverAddress)\n",
            )
        } else if !is_read {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        } else {
            self.get(request.uri().path(), request.uri().query(), peer).await
        };
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    async fn get(
        &self,
        path: &str,
        query: Option<&str>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let command = match &self.serves {
            Serves::Metrics if path == METRICS_PATH => {
                Command { name: String::new(), trace_mask: None, is_scrape: true }
            }
            Serves::Metrics => return plain(StatusCode::NOT_FOUND, "only /metrics is here\n"),
            Serves::Commands(url) => match path.strip_prefix(url.as_str()) {
                Some("" | "/") => return html(links(url)),
                Some(name) if name.starts_with('/') => Command {
                    name: name[1..].to_owned(),
                    trace_mask: argument(query.unwrap_or_default(), "traceMask"),
                    is_scrape: false,
                },
                _ => {
                    let text = format!("nothing is here; the commands are below {url}\n");
                    return plain(StatusCode::NOT_FOUND, text);
                }
            },
        };
        let is_scrape = command.is_scrape;
        let Some(text) = self.shared.ask(Asked::Command(command), peer).await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "this server is stopping\n");
        };
        match is_scrape {
            true => {
                respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into())
            }
            false => respond(StatusCode::OK, "application/json", text.into()),
        }
    }
}

/// A page of all commands, as ZooKeeper writes it.
fn links(url: &str) -> String {
    answers::COMMANDS
        .iter()
        .map(|(name, _)| format!("<a href=\"{url}/{name}\">{name}</a>\n<br/>\n"))
        .collect()
}

/// The first value of a query's argument. Those that are taken are numbers, so nothing is unescaped.
fn argument(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.into())
}

fn html(text: String) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "text/html; charset=utf-8", text.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
