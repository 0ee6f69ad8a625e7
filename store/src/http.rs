//! HTTP/1.1: accepts, reads bodies within bounds, hands requests to `api`, frames the answers.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elkfk_base::Tasks;
use elkfk_base::foreign::{self, Asked};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::api::{self, Call};
use crate::engine::{Engine, Reservation};
use crate::error::EsError;
use crate::metrics;

/// Connections at a time; each costs some 20 KiB while idle.
const CONNECTIONS_MAX: usize = 1024;
/// A packed body may unpack to this many times its size; logs pack 10 to 30 times.
const RATIO_MAX: usize = 200;
/// Also how long a connection may idle between requests; clients with pools reuse them for minutes.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);

/// How long requests in hand may go on when the store is asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// Bytes of a body that is no bulk request's.
const OTHER_BODY_BYTES_MAX: usize = 10 << 20;
/// A body up to here is read without reserving memory; many more could not be connected at a time.
const FREE_BODY_BYTES: usize = 64 << 10;
/// Steps in which a body is unpacked and its memory is reserved.
const UNPACK_STEP: usize = 1 << 20;

/// An answer before it is framed.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub is_text: bool,
    pub allow: Option<String>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into_bytes(), ..Self::default() }
    }

    pub(crate) fn text(body: String) -> Self {
        Self { status: 200, body: body.into_bytes(), is_text: true, allow: None }
    }
}

impl From<EsError> for Answer {
    fn from(error: EsError) -> Self {
        Self { allow: error.allow.clone(), ..Self::json(error.status, &error.body()) }
    }
}

/// Accepts until asked to stop, then lets requests in hand finish.
pub(crate) async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    tasks: Tasks,
    failed: watch::Sender<Option<String>>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let searches = Arc::new(Semaphore::new(engine.config.search_slots));
    let stop = tasks.token();
    loop {
        let permit = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            permit = connections.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(error) => {
                failed.send_replace(Some(format!("accept connections: {error}")));
                break;
            }
        };
        let _ = stream.set_nodelay(true);
        let (engine, searches, stop) = (engine.clone(), searches.clone(), stop.clone());
        tasks.spawn("store connection", async move {
            let service = hyper::service::service_fn(|request| {
                answer(engine.clone(), searches.clone(), request)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(256 << 10)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    // A client that sends or reads nothing is not waited for.
                    match tokio::time::timeout(STOP_WAIT, connection).await {
                        Ok(ended) => ended,
                        Err(_) => {
                            tracing::info!("connection cut, its request did not end");
                            Ok(())
                        }
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
}

/// Errors of one connection or of a moment, after which accepting goes on.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
        || matches!(
            rustix::io::Errno::from_io_error(error),
            Some(
                rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::NOMEM
                    | rustix::io::Errno::NOBUFS
            )
        )
}

async fn answer(
    engine: Arc<Engine>,
    searches: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let media = media_type(request.headers());
    let is_head = request.method() == hyper::Method::HEAD;
    let (answer, api, pretty) = match &media {
        _ if is_foreign(&request, &engine) => (refuse_foreign(), "bad", false),
        Err(error) => (Answer::from(error.clone()), "bad", false),
        Ok(_) => handle(engine, searches, request).await,
    };
    metrics::REQUESTS.with_label_values(&[api, status_class(answer.status)]).inc();
    Ok(frame(answer, media_name(&media), is_head, pretty))
}

/// Whether a page of another site asks.
fn is_foreign(request: &Request<Incoming>, engine: &Engine) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let asked = Asked::of(matches!(*request.method(), Method::GET | Method::HEAD), header);
    foreign::is_foreign(engine.config.listen.ip(), &asked)
}

fn refuse_foreign() -> Answer {
    metrics::REJECTED.with_label_values(&["foreign"]).inc();
    let text =
        "request of another site's page, or under a name that is not this machine's (see listen)";
    EsError::text(403, text, true).into()
}

fn status_class(status: u16) -> &'static str {
    match status {
        200..300 => "2xx",
        429 => "429",
        400..500 => "4xx",
        _ => "5xx",
    }
}

fn media_name(media: &Result<Option<String>, EsError>) -> Option<&str> {
    media.as_ref().ok().and_then(Option::as_deref)
}

fn frame(
    answer: Answer,
    media: Option<&str>,
    is_head: bool,
    pretty: bool,
) -> Response<Full<Bytes>> {
    let mut body = answer.body;
    if pretty
        && !answer.is_text
        && let Ok(value) = serde_json::from_slice::<Value>(&body)
        && let Ok(text) = serde_json::to_vec_pretty(&value)
    {
        body = text;
        body.push(b'\n');
    }
    let length = body.len();
    let mut response =
        Response::new(Full::new(if is_head { Bytes::new() } else { Bytes::from(body) }));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if answer.status == 413 {
        return response;
    }
    headers.insert("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    let kind = match media {
        _ if answer.is_text => HeaderValue::from_static("text/plain; charset=UTF-8"),
        Some(media) => {
            HeaderValue::from_str(media).unwrap_or(HeaderValue::from_static("application/json"))
        }
        None => HeaderValue::from_static("application/json"),
    };
    headers.insert(CONTENT_TYPE, kind);
    if is_head {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(allow) = answer.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    response
}

/// The content type of the answer: the vendor's where the client asked for it.
///
/// # Errors
/// A vendor type of another version than 7 or 8.
fn media_type(headers: &HeaderMap) -> Result<Option<String>, EsError> {
    let header = |name| {
        headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default()
    };
    let (accept, content) = (header(ACCEPT), header(CONTENT_TYPE));
    for (name, value) in [("Accept", accept), ("Content-Type", content)] {
        if let Some(version) = vendor_version(value)
            && version != "8"
            && version != "7"
        {
            let reason = format!(
                "{name} version must be either version 8 or 7, but found {version}. {name}={value}"
            );
            return Err(EsError::new(
                400,
                "media_type_header_exception",
                "Invalid media-type value on headers [Accept, Content-Type]",
            )
            .caused_by(EsError::new(400, "status_exception", reason)));
        }
    }
    Ok(vendor_version(accept)
        .map(|version| format!("application/vnd.elasticsearch+json;compatible-with={version}")))
}

fn vendor_version(media: &str) -> Option<&str> {
    media.strip_prefix("application/vnd.elasticsearch+")?;
    let (_, version) = media.split_once("compatible-with=")?;
    Some(version.split([';', ',', ' ']).next().unwrap_or(version))
}

async fn handle(
    engine: Arc<Engine>,
    searches: Arc<Semaphore>,
    request: Request<Incoming>,
) -> (Answer, &'static str, bool) {
    let (parts, body) = request.into_parts();
    let mut call = match Call::new(&parts.method, &parts.uri) {
        Ok(call) => call,
        Err(error) => return (error.into(), "bad", false),
    };
    let header =
        |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    call.wants_text = header(ACCEPT).starts_with("text/plain");
    call.wants_json = header(ACCEPT).contains("json");
    let is_pretty = call.is_pretty();
    let api = call.api();
    let content_type = header(CONTENT_TYPE).to_ascii_lowercase();
    let (bytes, reservation) =
        match read_body(&engine, body, header(CONTENT_ENCODING), api == "bulk").await {
            Ok(read) => read,
            Err(error) => return (error, api, is_pretty),
        };
    if !bytes.is_empty() && !is_supported(&content_type) {
        let text = if content_type.is_empty() {
            "Content-Type header is missing".to_owned()
        } else {
            format!("Content-Type header [{}] is not supported", header(CONTENT_TYPE))
        };
        return (EsError::text(406, text, true).into(), api, is_pretty);
    }
    call.body = bytes;
    let permit = if api == "search" { searches.acquire_owned().await.ok() } else { None };
    let answered = tokio::task::spawn_blocking(move || {
        let answer = api::answer(&engine, call);
        drop((reservation, permit));
        answer
    });
    let answer = answered.await.unwrap_or_else(|error| {
        tracing::error!(%error, api, "request panicked");
        EsError::internal("internal error, see the store's log").into()
    });
    (answer, api, is_pretty)
}

fn is_supported(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    matches!(
        media,
        "application/json"
            | "application/x-ndjson"
            | "application/vnd.elasticsearch+json"
            | "application/vnd.elasticsearch+x-ndjson"
    )
}

fn too_large() -> Answer {
    metrics::REJECTED.with_label_values(&["body"]).inc();
    Answer { status: 413, ..Answer::default() }
}

/// Memory of a body, reserved before it is filled.
struct BodyMemory {
    /// `None` while the body is too small to count.
    reserved: Option<Reservation>,
}

impl BodyMemory {
    /// Reserves until `bytes` are held.
    fn hold(&mut self, engine: &Arc<Engine>, bytes: usize) -> Result<(), Answer> {
        match &mut self.reserved {
            _ if bytes <= FREE_BODY_BYTES => {}
            Some(reserved) => reserved.grow_to(bytes as u64)?,
            None => self.reserved = Some(engine.reserve(bytes as u64)?),
        }
        Ok(())
    }
}

/// Reads and unpacks a body. Its memory is reserved before it is filled.
async fn read_body(
    engine: &Arc<Engine>,
    mut body: Incoming,
    encoding: &str,
    is_bulk: bool,
) -> Result<(Bytes, Option<Reservation>), Answer> {
    let limit = match is_bulk {
        true => engine.config.body_bytes_max,
        false => engine.config.body_bytes_max.min(OTHER_BODY_BYTES_MAX),
    };
    let wait = engine.config.body_timeout;
    let announced = body.size_hint().exact().unwrap_or(0);
    if announced > limit as u64 {
        drain(body, limit, wait).await;
        return Err(too_large());
    }
    let mut memory = BodyMemory { reserved: None };
    // At once where it is known, so that what cannot be held is not begun.
    let reserved = match is_bulk {
        true => engine
            .reserve(announced.max(1))
            .map(|reserved| memory.reserved = Some(reserved))
            .map_err(Answer::from),
        false => memory.hold(engine, announced as usize),
    };
    if let Err(refusal) = reserved {
        drain(body, limit, wait).await;
        return Err(refusal);
    }
    let mut read = BytesMut::with_capacity(announced as usize);
    loop {
        // Whoever holds memory and sends nothing would keep others out.
        let part = match tokio::time::timeout(wait, body.frame()).await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(_) => {
                let reason = format!("nothing of the body came for {} s", wait.as_secs_f32());
                return Err(EsError::new(408, "timeout_exception", reason).into());
            }
        };
        let part = part.map_err(|error| {
            Answer::from(EsError::new(400, "parse_exception", format!("read body: {error}")))
        })?;
        if let Ok(data) = part.into_data() {
            if read.len() + data.len() > limit {
                drop(read);
                drain(body, limit, wait).await;
                return Err(too_large());
            }
            if read.capacity() < read.len() + data.len() {
                // It was not announced how much comes, so room is made in doubling steps.
                let room = (read.len() * 2).max(read.len() + data.len());
                if let Err(refusal) = memory.hold(engine, room) {
                    drop((read, memory));
                    drain(body, limit, wait).await;
                    return Err(refusal);
                }
                read.reserve(room - read.len());
            }
            read.extend_from_slice(&data);
        }
    }
    match encoding {
        "" | "identity" => Ok((read.freeze(), memory.reserved)),
        "gzip" => {
            let (packed, engine) = (read.freeze(), engine.clone());
            tokio::task::spawn_blocking(move || unpack(&engine, &packed, limit, memory))
                .await
                .map_err(|error| Answer::from(EsError::internal(error.to_string())))?
        }
        other => Err(EsError::text(
            415,
            format!("Content-Encoding [{other}] is not supported, send gzip or none"),
            true,
        )
        .into()),
    }
}

/// Reads and forgets what a client still sends, up to a bound: one that is cut off while it sends
/// sees a broken connection and not the answer.
async fn drain(mut body: Incoming, limit: usize, wait: Duration) {
    let mut read = 0;
    while let Ok(Some(Ok(part))) = tokio::time::timeout(wait, body.frame()).await {
        read += part.data_ref().map_or(0, Bytes::len);
        if read > limit.saturating_mul(10) {
            break;
        }
    }
}

/// Unpacks a body step by step, each reserved before it is taken.
fn unpack(
    engine: &Arc<Engine>,
    packed: &[u8],
    limit: usize,
    mut memory: BodyMemory,
) -> Result<(Bytes, Option<Reservation>), Answer> {
    let limit = limit.min(packed.len().saturating_mul(RATIO_MAX).max(1 << 20));
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(packed);
    loop {
        let step = UNPACK_STEP.min((packed.len() * 8).max(4096)).min(limit + 1 - unpacked.len());
        memory.hold(engine, packed.len() + unpacked.len() + step)?;
        // Exactly: doubling would take what was not reserved.
        unpacked.reserve_exact(step);
        let read =
            reader.by_ref().take(step as u64).read_to_end(&mut unpacked).map_err(|error| {
                Answer::from(EsError::new(
                    400,
                    "parse_exception",
                    format!("unpack gzip body: {error}"),
                ))
            })?;
        if unpacked.len() > limit {
            return Err(too_large());
        }
        if read < step {
            break;
        }
    }
    if let Some(reserved) = &mut memory.reserved {
        reserved.shrink_to(unpacked.len() as u64);
    }
    Ok((unpacked.into(), memory.reserved))
}
