//! Shell: connections, routes, and what keeps a page on loopback from being used by other pages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use elkfk_base::foreign::{self, Asked};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
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

use crate::elastic::ElasticError;
use crate::search::Ask;
use crate::{Shared, assets, now_ms, search, stream, tail};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Open connections; each costs two buffers of some 16 KiB. More wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

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
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
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
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), open.shutdown()).await;
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
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        text(StatusCode::METHOD_NOT_ALLOWED, "this page is only read")
    } else {
        route(shared, &request).await
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
    let params = params(request.uri().query().unwrap_or(""));
    match request.uri().path() {
        "/api/v1/search" => search(&shared, &params).await,
        "/api/v1/tail" => match Ask::from_params(&params, now_ms()) {
            Ok(ask) => {
                // After a lost connection the browser says how far it got.
                let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
                let known = params.iter().find(|(name, _)| name == "known");
                let known = known.and_then(|(_, known)| known.parse().ok());
                let place = seen
                    .and_then(tail::Place::from_id)
                    .unwrap_or_else(|| tail::Place::new(ask.from_ms, known));
                stream::response(tail::follow(shared, ask, place))
            }
            Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        "/api/v1/stream" => stream::response(stream::snapshots(shared)),
        "/api/v1/lag" => json_text(shared.snapshot.borrow().to_string()),
        "/api/v1/lag/history" => {
            let param =
                |name| params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
            let points = shared.histories().points(param("group"), param("topic"));
            json_text(json!({ "points": points }).to_string())
        }
        "/metrics" => {
            let mut response = text(StatusCode::OK, &elkfk_base::telemetry::metrics_text());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        path => match assets::get(path) {
            Some(asset) => asset_response(asset, request),
            None => text(StatusCode::NOT_FOUND, "no such page"),
        },
    }
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

/// `a=1&b=%20x` as pairs; `+` is a space, as forms write it.
fn params(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(*other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_never_fail() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            params("q=a%20b+c&&x=%zz%4&y"),
            [pair("q", "a b c"), pair("x", "%zz%4"), pair("y", "")]
        );
        assert_eq!(params("q=%ff%C3%A9"), [pair("q", "\u{fffd}é")]);
    }
}
