//! Logstash's HTTP API: what the sink does, and the change of its numbers of workers and consumers.
//!
//! Covers `/`, `/_node`, `/_node/pipelines`, `/_node/os`, `/_node/stats` and their parts with the
//! field names of Logstash 8, and `/metrics` for Prometheus. Differs: `PUT /_node/pipelines/main`
//! changes the pipeline's threads, there is no JVM to tell of, and no TLS and no password: on an
//! address other than loopback whoever reaches the port may change them. See docs/sink.md.

mod answers;
mod flow;
mod machine;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use elkfk_base::Tasks;
use elkfk_base::foreign::{self, Asked};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::answers::{Facts, Node, Problem};
use self::flow::{Flow, Sample};
use crate::crew::ScaleError;
use crate::runtime::Control;
use crate::scaling::Wish;

/// Open connections; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Also how long a connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// A body is two numbers.
const BODY_BYTES_MAX: usize = 16 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request in hand may go on when the sink is asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "listen on {addr}: {cause}; stop the program that holds it, or give another with api.http.host and api.http.port"
    )]
    Refused { addr: SocketAddr, cause: io::Error },
    #[error(
        "listen on {first}-{last}: every one of these ports is taken; stop a program that holds one, or give others with api.http.port"
    )]
    Taken { first: SocketAddr, last: u16 },
}

/// Takes the first free port from that of `first` to `last`.
pub(crate) async fn listen(
    first: SocketAddr,
    last: Option<u16>,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let last = last.unwrap_or(first.port()).max(first.port());
    for port in first.port()..=last {
        let addr = SocketAddr::new(first.ip(), port);
        let bound = TcpListener::bind(addr).await.and_then(|listener| {
            let at = listener.local_addr()?;
            Ok((listener, at))
        });
        match bound {
            Ok(bound) => return Ok(bound),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && first.port() < last => {}
            Err(cause) => return Err(ListenError::Refused { addr, cause }),
        }
    }
    Err(ListenError::Taken { first, last })
}

struct Api {
    listen: SocketAddr,
    control: Control,
    node: Node,
    flow: Mutex<Flow>,
}

impl Api {
    /// Of this moment. Reads `/proc`, so not for a thread of the runtime.
    fn facts(&self) -> Facts {
        let (status, process) = (self.control.status(), machine::process());
        let sample = Sample::of(Instant::now(), &status, process.cpu);
        let flow = self.flow.lock().expect("no holder of this lock panics");
        let (rates, cpu) = (flow.rates(&sample, status.workers), flow.cpu(&sample));
        drop(flow);
        Facts { status, process, rates, cpu }
    }

    fn sample(&self) {
        let sample = Sample::of(Instant::now(), &self.control.status(), machine::process().cpu);
        self.flow.lock().expect("no holder of this lock panics").push(sample);
    }
}

/// Serves until `stop`, then lets requests in hand finish, shortly.
pub(crate) async fn serve(
    listener: TcpListener,
    listen: SocketAddr,
    control: Control,
    tasks: Tasks,
    stop: CancellationToken,
) {
    let begun = Sample::of(Instant::now(), &control.status(), machine::process().cpu);
    let node = Node::new(machine::host_name(), listen);
    let api = Arc::new(Api { listen, control, node, flow: Mutex::new(Flow::new(begun)) });
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut sampling = tokio::time::interval(flow::SAMPLE_EVERY);
    sampling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // A place first: who holds none is not accepted.
        let accept = async {
            let place = connections.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = sampling.tick() => {
                let api = api.clone();
                let _ = tokio::task::spawn_blocking(move || api.sample()).await;
                continue;
            }
            accepted = accept => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                warn!(%error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (api, stop) = (api.clone(), stop.clone());
        tasks.spawn("api connection", async move {
            let service = service_fn(|request| answer(api.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(64 << 10)
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
                debug!(%error, "connection");
            }
            drop(place);
        });
    }
}

async fn answer(
    api: Arc<Api>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let is_pretty = answers::is_pretty(request.uri().query().unwrap_or_default());
    let answered = match is_foreign(&request, &api) {
        true => Err(Problem::new(
            403,
            "request of another site's page, or under a name that is not this machine's (see api.http.host)",
        )),
        false => route(api, request).await,
    };
    let mut response = match answered {
        Ok(Page::Json(value)) => json(StatusCode::OK, &value, is_pretty),
        Ok(Page::Metrics(text)) => {
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into())
        }
        Err(problem) => {
            let status =
                StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = json(status, &problem.body(&path), is_pretty);
            if let Some(allow) = problem.allow {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            }
            if status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

enum Page {
    Json(Value),
    Metrics(String),
}

async fn route(api: Arc<Api>, request: Request<Incoming>) -> Result<Page, Problem> {
    let path = request.uri().path().to_owned();
    let is_change = *request.method() == Method::PUT && path == answers::CHANGED;
    if !is_read(request.method()) && !is_change {
        return Err(Problem::method(&path));
    }
    let body = match is_change {
        true => read_body(request).await?,
        false => Bytes::new(),
    };
    // Looking at a process and starting consumers both block.
    let done = tokio::task::spawn_blocking(move || match &*path {
        "/metrics" => Ok(Page::Metrics(elkfk_base::telemetry::metrics_text())),
        _ if is_change => change(&api, &body).map(Page::Json),
        path => answers::get(path, &api.node, &api.facts()).map(Page::Json),
    });
    done.await.unwrap_or_else(|error| Err(Problem::new(500, &format!("answer: {error}"))))
}

fn change(api: &Api, body: &[u8]) -> Result<Value, Problem> {
    let wish = Wish::from_json(body).map_err(ScaleError::from);
    match wish.and_then(|wish| api.control.scale(wish)) {
        Ok(scaled) => Ok(serde_json::json!(scaled)),
        Err(error) => Err(answers::not_scaled(&error, &api.control.status())),
    }
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::new(413, &format!("body exceeds {BODY_BYTES_MAX} bytes")))
        }
        Ok(Err(error)) => Err(Problem::new(400, &format!("read the body: {error}"))),
        Err(_) => Err(Problem::new(408, &format!("no whole body within {BODY_TIMEOUT:?}"))),
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a page of another site asks.
fn is_foreign(request: &Request<Incoming>, api: &Api) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    foreign::is_foreign(api.listen.ip(), &Asked::of(is_read(request.method()), header))
}

fn json(status: StatusCode, value: &Value, is_pretty: bool) -> Response<Full<Bytes>> {
    let text = match is_pretty {
        true => format!("{value:#}\n"),
        false => value.to_string(),
    };
    respond(status, "application/json", text.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_free_port_of_a_range_is_taken_and_a_taken_range_is_named() {
        let (_held, at) = listen(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.unwrap();
        let alone = listen(at, None).await.unwrap_err().to_string();
        assert!(alone.starts_with(&format!("listen on {at}: ")), "{alone}");
        assert!(alone.contains("api.http.port"), "{alone}");
        match listen(at, Some(at.port().saturating_add(50))).await {
            Ok((_, next)) => assert!((at.port() + 1..=at.port() + 50).contains(&next.port())),
            // Its ports may all be others'.
            Err(error) => assert!(matches!(error, ListenError::Taken { .. }), "{error}"),
        }
        let taken = ListenError::Taken { first: at, last: at.port() }.to_string();
        assert!(taken.starts_with(&format!("listen on {at}-{}: every one", at.port())), "{taken}");
    }
}
