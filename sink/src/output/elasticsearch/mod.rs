//! Output `elasticsearch`: bulk requests over plain HTTP to Elasticsearch 7 and 8, OpenSearch, and
//! elkfk's own store.
//!
//! Differs from Logstash: documents are created under an id of their own, so that a repeat is
//! harmless; 400 and 404 go to the dead-letter topic; offsets follow the acknowledgements. Not here
//! yet: TLS, data streams, scripts, sniffing. See docs/sink-delivery.md.

pub mod client;
pub mod documents;
pub mod options;
pub mod template;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hyper::Method;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::client::{HttpClient, Reply};
use self::options::Elasticsearch;
use super::dead_letter::{DeadLetters, Letter};
use crate::delivery::bulk::{Bulk, BulkOptions, Input, Notice, Output, Request, RequestId};
use crate::delivery::chunk::Chunk;
use crate::metrics::Meters;

/// Chunks on their way to the task; what they hold is counted by the budget.
pub const CHUNKS_WAITING_MAX: usize = 256;

/// The task that owns the bulk core of one output.
pub struct Writer {
    pub output: Arc<Elasticsearch>,
    pub chunks: mpsc::Receiver<Vec<Arc<Chunk>>>,
    pub dead_letters: Arc<[DeadLetters]>,
    pub meters: Arc<Meters>,
    /// Cancelled when nothing more needs to be sent: requests under way are given up.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("output", &self.output).finish_non_exhaustive()
    }
}

impl Writer {
    pub async fn run(mut self) {
        let client = HttpClient::new(&self.output);
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        let mut bulk = Bulk::new(BulkOptions {
            nodes: self.output.nodes.len(),
            retry: self.output.retry,
            lane_patience: self.output.lane_patience,
            seed,
            ..BulkOptions::default()
        });
        let mut requests = Requests::default();
        let mut blocked_before = 0;
        let mut outputs = Vec::new();
        let mut installed = self.output.template.is_none();
        let mut next_install = Instant::now();
        let mut received = Vec::new();
        loop {
            if !installed && Instant::now() >= next_install {
                installed = self.install_template(&client).await;
                next_install = Instant::now() + Duration::from_secs(1);
            }
            // Without its template the first index would be mapped wrongly for good, so documents
            // wait for it as they would for the cluster itself.
            let wake = match installed {
                true => bulk.next_wake(),
                false => Some(next_install),
            };
            let wake = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some((request, reply)) = requests.next() => {
                    self.meters.on_answered(reply.took);
                    let reply = reply.reply;
                    bulk.step(Instant::now(), Input::Answered { request, reply }, &mut outputs);
                }
                count = self.chunks.recv_many(&mut received, 32), if installed => {
                    if count == 0 { break }
                    for chunk in received.drain(..).flatten() {
                        bulk.step(Instant::now(), Input::Documents(chunk), &mut outputs);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    bulk.step(Instant::now(), Input::Tick, &mut outputs);
                }
            }
            for output in outputs.drain(..) {
                self.perform(output, &client, &mut requests);
            }
            // Until the template is settled nothing is sent, so only that attempt knows.
            if installed {
                let (is_away, is_unauthorised) = (bulk.is_away(), bulk.is_unauthorised());
                self.meters.set_bulk(is_away, is_unauthorised, bulk.requests_in_flight());
            }
            let blocked = bulk.blocked_lanes().count();
            if blocked != blocked_before {
                // Other outputs count theirs in the same place.
                self.meters.blocked_indices.fetch_add(blocked, Relaxed);
                self.meters.blocked_indices.fetch_sub(blocked_before, Relaxed);
                blocked_before = blocked;
            }
        }
    }

    fn perform(&self, output: Output, client: &HttpClient, requests: &mut Requests) {
        match output {
            Output::Send(request) => {
                let (client, output) = (client.clone(), self.output.clone());
                let id = request.id;
                requests.spawn(id, async move { send(&client, &output, request).await });
            }
            Output::Acknowledge { slice, already_there } => {
                slice.acknowledge();
                self.meters.on_delivered(slice.len(), already_there);
            }
            Output::DeadLetter { slice, reason, field } => {
                let letter = Letter {
                    batch: slice.batch().clone(),
                    record: slice.records().next().expect("a slice is never empty"),
                    reason,
                    index: Some(slice.index().to_string()),
                    field,
                };
                self.dead_letters[letter.batch.input].send(letter);
            }
            Output::Notice(notice) => self.tell(notice),
        }
    }

    fn tell(&self, notice: Notice) {
        let name = |node: usize| self.output.nodes[node].authority();
        match notice {
            Notice::NodeAway { node, reason } => {
                let node = name(node);
                warn!(%node, reason, "elasticsearch is away; reading stops when memory is full, nothing is lost");
                self.meters.set_error(format!("{node}: {reason}"));
            }
            Notice::Unauthorised { node, reason } => {
                let node = name(node);
                error!(%node, reason, "elasticsearch refuses our credentials; nothing is read until user, password or api_key is right");
                self.meters.set_error(format!("{node}: {reason}"));
            }
            Notice::NodeBack { node } => info!(node = %name(node), "elasticsearch is back"),
            Notice::LaneBlocked { index, reason } => {
                warn!(%index, reason, "index refuses writes; its events wait, others go on");
                self.meters.set_error(format!("{index}: {reason}"));
            }
            Notice::LaneOpen { index } => info!(%index, "index takes writes again"),
            Notice::Throttled => self.meters.on_throttled(),
            Notice::Salvaged { index, field, reason } => {
                self.meters.on_salvaged(&index, &field, &reason);
            }
        }
    }

    /// Returns whether that is settled.
    async fn install_template(&self, client: &HttpClient) -> bool {
        let Some(template) = &self.output.template else { return true };
        let mut reason = String::new();
        for node in 0..self.output.nodes.len() {
            let install = template::install(client, &self.output, template, node);
            let result = tokio::select! {
                result = install => result,
                () = self.stop.cancelled() => return true,
            };
            match result {
                Ok(()) => {
                    if self.meters.set_away(false) {
                        info!(node = %self.output.nodes[node].authority(), "elasticsearch is back");
                    }
                    return true;
                }
                Err(error) => reason = error,
            }
        }
        if !self.meters.set_away(true) {
            let node = self.output.nodes[0].authority();
            warn!(%node, reason, "elasticsearch is away; reading stops when memory is full, nothing is lost");
            self.meters.set_error(format!("{node}: {reason}"));
        }
        false
    }
}

/// Requests under way. Each is answered once, that of a task that panicked too: the core waits for
/// every one of them.
#[derive(Default)]
struct Requests {
    tasks: JoinSet<Result<Reply, String>>,
    started: HashMap<tokio::task::Id, (RequestId, Instant)>,
}

struct Answer {
    reply: Result<Reply, String>,
    took: Duration,
}

impl Requests {
    fn spawn(
        &mut self,
        request: RequestId,
        work: impl Future<Output = Result<Reply, String>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(work).id();
        self.started.insert(task, (request, Instant::now()));
    }

    /// The next answer; `None` while nothing is under way. May be dropped before it is ready.
    async fn next(&mut self) -> Option<(RequestId, Answer)> {
        let (task, reply) = match self.tasks.join_next_with_id().await? {
            Ok((task, reply)) => (task, reply),
            Err(error) => {
                error!(%error, "a bulk request ended without an answer; it is sent again");
                (error.id(), Err(format!("the request's task ended: {error}")))
            }
        };
        let (request, sent) = self.started.remove(&task)?;
        Some((request, Answer { reply, took: sent.elapsed() }))
    }
}

async fn send(
    client: &HttpClient,
    output: &Elasticsearch,
    request: Request,
) -> Result<Reply, String> {
    let node = &output.nodes[request.node];
    let body = request.slices.iter().map(|slice| slice.body()).collect();
    let compression = output.compression_for(node);
    client
        .call(node, Method::POST, &output.bulk_path, "application/x-ndjson", body, compression)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn request_whose_task_panics_is_answered_all_the_same() {
        let mut requests = Requests::default();
        assert!(requests.next().await.is_none());
        requests.spawn(7, async { panic!("asked to panic") });
        let (request, answer) = requests.next().await.unwrap();
        assert_eq!(request, 7);
        assert!(answer.reply.unwrap_err().contains("ended"));
        assert!(requests.started.is_empty());
    }
}
