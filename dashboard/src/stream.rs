//! Server-sent events: one text stream per open page.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{self, HeaderValue};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::Shared;
use crate::http::Body;

/// Events on their way to one page. A page that reads slowly holds back its own producer, no one else's.
pub(crate) const EVENTS_WAITING_MAX: usize = 4;

/// One event; line ends in `data`, which JSON text never holds, become spaces. The browser sends the newest
/// `id` back when it connects again.
pub(crate) fn event(name: &str, id: Option<&str>, data: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("event: {name}\n{id}data: {}\n\n", data.replace(['\r', '\n'], " ")))
}

pub(crate) fn response(events: mpsc::Receiver<Bytes>) -> Response<Body> {
    let frames = ReceiverStream::new(events).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames).boxed());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Each new snapshot of the lag; a slow page skips those it could not take in time.
pub(crate) fn snapshots(shared: Arc<Shared>) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let tasks = shared.tasks.clone();
    tasks.spawn("stream lag", async move {
        let mut latest = shared.latest.subscribe();
        latest.mark_changed();
        loop {
            tokio::select! {
                () = shared.tasks.stopping() => return,
                () = sender.closed() => return,
                changed = latest.changed() => if changed.is_err() { return },
            }
            let brief = latest.borrow_and_update().as_ref().map(|latest| latest.brief.clone());
            let Some(brief) = brief else { continue };
            if sender.send(event("snapshot", None, &brief)).await.is_err() {
                return;
            }
        }
    });
    receiver
}
