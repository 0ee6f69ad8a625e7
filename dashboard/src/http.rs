//! Shell: connections, routes, and what keeps a page on loopback from being used by other pages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use elkfk_base::foreign::{self, Asked};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::api::Answer;
use crate::ask::Params;
use crate::elastic::ElasticError;
use crate::search::Ask;
use crate::{Shared, alerts, api, assets, exporter, hold, now_ms, search, stream, tail};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Open connections; each costs two buffers of some 16 KiB. More wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// No question is longer.
const BODY_BYTES_MAX: usize = 256 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = GracefulShutdown::new();
    let stopping = shared.tasks.token();
    loop {
        let place = tokio::select! {
            () = stopping.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                warn!(%error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = shared.clone();
        let service = service_fn(move |request| answer(shared.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(socket), service);
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection");
            }
            drop(place);
        });
    }
    // Streams end with the stop token, so this is short; a client that reads nothing is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(2), open.shutdown()).await;
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut response = if is_foreign(&request, &shared) {
        text(
            StatusCode::FORBIDDEN,
            "this page answers only to its own address (see --dashboard-listen)",
        )
    } else if matches!(*request.method(), Method::GET | Method::HEAD) {
        route(shared, &request).await
    } else {
        change(&shared, request).await
    };
    let headers = response.headers_mut();
    let policy = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// Whether a page of another site asks.
fn is_foreign(request: &Request<Incoming>, shared: &Shared) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let asked = Asked::of(matches!(*request.method(), Method::GET | Method::HEAD), header);
    foreign::is_foreign(shared.config.listen.ip(), &asked)
}

async fn route(shared: Arc<Shared>, request: &Request<Incoming>) -> Response<Body> {
    let params = Params::of(request.uri().query().unwrap_or(""));
    let path = request.uri().path();
    match path {
        "/api/v1/search" => search(&shared, &params.0).await,
        "/api/v1/tail" => {
            let known = match params.number("known", 0..=u64::MAX) {
                Ok(known) => known,
                Err(trouble) => return problem(trouble.status, &trouble.text),
            };
            let ask = match Ask::from_params(&params.0, now_ms()) {
                Ok(ask) => ask,
                Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
            };
            // After a lost connection the browser says how far it got.
            let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
            let place = seen
                .and_then(tail::Place::from_id)
                .unwrap_or_else(|| tail::Place::new(ask.from_ms, known));
            stream::response(tail::follow(shared, ask, place))
        }
        "/api/v1/stream" => stream::response(stream::snapshots(shared)),
        "/metrics" => metrics(shared).await,
        path => match api::get(&shared, path, &params).await {
            Some(answer) => told(answer),
            None if path.starts_with("/api/") => {
                problem(StatusCode::NOT_FOUND, &format!("there is no {path}"))
            }
            None => match assets::get(path) {
                Some(asset) => asset_response(asset, request),
                None => text(StatusCode::NOT_FOUND, "no such page"),
            },
        },
    }
}

/// A request that may change something. Browsers send JSON to another site only after they asked it,
/// which nobody here allows: a form on another page cannot get this far.
async fn change(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let params = Params::of(request.uri().query().unwrap_or(""));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let text = "what changes something must be sent as application/json";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    if path.starts_with("/api/v1/alerts/") {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        alerts::seen_at(shared, header("host"), header("origin"));
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let body: Value = match serde_json::from_slice(&body) {
        Ok(body) => body,
        Err(_) if body.is_empty() => Value::Null,
        Err(error) => {
            return problem(StatusCode::BAD_REQUEST, &format!("this is no JSON: {error}"));
        }
    };
    match api::change(shared, &method, &path, &params, body).await {
        Some(answer) => told(answer),
        None => problem(StatusCode::METHOD_NOT_ALLOWED, "this is only read"),
    }
}

fn told(answer: Answer) -> Response<Body> {
    match answer {
        Ok(json) => json_text(json.to_string()),
        Err(trouble) => problem(trouble.status, &trouble.text),
    }
}

/// What this process counts itself, and the cluster under the names that existing dashboards use; apart
/// from the runtime, for the second is some megabytes of a large cluster.
async fn metrics(shared: Arc<Shared>) -> Response<Body> {
    let written = tokio::task::spawn_blocking(move || {
        let own = elkfk_base::telemetry::metrics_text();
        let latest = shared.latest();
        let facts = hold(&shared.cluster).clone();
        own + &exporter::text(latest.as_ref().map(|latest| &*latest.snapshot), &facts)
    });
    let body = written.await.unwrap_or_default();
    bytes_response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body.into())
}

async fn search(shared: &Shared, params: &[(String, String)]) -> Response<Body> {
    let ask = match Ask::from_params(params, now_ms()) {
        Ok(ask) => ask,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match find(shared, &ask).await {
        Ok(page) => json_text(page.to_string()),
        Err(ElasticError::Refused { status: 400, reason }) => {
            problem(StatusCode::BAD_REQUEST, &reason)
        }
        Err(error) => problem(StatusCode::BAD_GATEWAY, &format!("search: {error}")),
    }
}

async fn find(shared: &Shared, ask: &Ask) -> Result<Value, ElasticError> {
    let start = Instant::now();
    let path = shared.search_path();
    let took = |start: Instant| u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if ask.after.is_some() {
        let answer = shared.elastic.post(&path, &ask.newest()).await?;
        return Ok(search::page(ask, &answer, (0, ""), took(start)));
    }
    let span = shared.elastic.post(&path, &ask.span()).await?;
    let interval = search::interval(search::read_span(&span));
    let answer = shared.elastic.post(&path, &ask.lines(interval.0)).await?;
    Ok(search::page(ask, &answer, interval, took(start)))
}

fn asset_response(asset: assets::Asset, request: &Request<Incoming>) -> Response<Body> {
    let is_same = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == asset.etag.as_bytes());
    let mut response = if is_same {
        bytes_response(StatusCode::NOT_MODIFIED, asset.content_type, Bytes::new())
    } else {
        bytes_response(StatusCode::OK, asset.content_type, Bytes::from(asset.bytes.into_owned()))
    };
    if let Ok(tag) = HeaderValue::from_str(&asset.etag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn bytes_response(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    bytes_response(status, "text/plain; charset=utf-8", Bytes::from(text.to_owned()))
}

fn json_text(text: String) -> Response<Body> {
    bytes_response(StatusCode::OK, "application/json", text.into())
}

fn problem(status: StatusCode, error: &str) -> Response<Body> {
    bytes_response(status, "application/json", json!({"error": error}).to_string().into())
}
