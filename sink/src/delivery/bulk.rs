//! Which documents to send when, and what becomes of them.
//!
//! Each index has a lane of its own: what one index refuses or delays never holds up the others.
//! Requests of a lane may overlap, since order within a partition does not matter for documents
//! that are only ever created. Everything taken in comes out once as [`Output::Acknowledge`] or
//! [`Output::DeadLetter`], unless the process ends first.
//!
//! How much is held here is bounded by who feeds it: see [`super::budget`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::{Backoff, Chance};
use super::breaker::Breaker;
use super::chunk::{Chunk, Placed, Slice};
use super::concurrency::Concurrency;
use super::salvage::salvage;
use super::verdict::{RequestVerdict, Verdict, judge};

mod lane;

#[derive(Debug, Clone)]
pub struct BulkOptions {
    /// A request is sent once it has this size.
    pub target_bytes: usize,
    /// A document beyond this becomes a dead letter; no request is larger.
    pub bytes_max: usize,
    /// Waiting documents are sent at this age even if others are under way.
    pub linger: Duration,
    /// Requests under way to one node, and for one lane.
    pub concurrency_max: usize,
    /// Waits after overload and unreachable nodes.
    pub retry: Backoff,
    /// Waits of a lane whose index refuses writes.
    pub blocked: Backoff,
    /// What waits for an index that has refused writes for this long becomes dead letters, so that
    /// the others get on. `None`: it waits for ever.
    pub lane_patience: Option<Duration>,
    /// How many nodes there are to choose from.
    pub nodes: usize,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for BulkOptions {
    fn default() -> Self {
        Self {
            target_bytes: 5 << 20,
            bytes_max: 15 << 20,
            linger: Duration::from_millis(200),
            concurrency_max: 16,
            retry: Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(30) },
            blocked: Backoff { first: Duration::from_secs(30), longest: Duration::from_secs(300) },
            lane_patience: None,
            nodes: 1,
            seed: 0,
        }
    }
}

/// Names one request until it is answered.
pub type RequestId = u64;

#[derive(Debug)]
pub enum Input {
    /// Documents that a worker finished.
    Documents(Arc<Chunk>),
    /// What became of a request: status and body, or why there was no answer.
    Answered { request: RequestId, reply: Result<(u16, bytes::Bytes), String> },
    /// Time has passed: see [`Bulk::next_wake`].
    Tick,
}

#[derive(Debug)]
pub enum Output {
    Send(Request),
    /// Done; `already_there` of the documents had been delivered before.
    Acknowledge {
        slice: Slice,
        already_there: usize,
    },
    /// This one document can never be delivered.
    DeadLetter {
        slice: Slice,
        reason: String,
        field: Option<String>,
    },
    Notice(Notice),
}

/// A bulk request: the bodies of the slices one after the other, to the node of that number.
#[derive(Debug)]
pub struct Request {
    pub id: RequestId,
    pub node: usize,
    pub slices: Vec<Slice>,
    pub body_bytes: usize,
}

/// What an operator should know, told once per change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    NodeAway {
        node: usize,
        reason: String,
    },
    /// 401 or 403: nothing is read until this is repaired.
    Unauthorised {
        node: usize,
        reason: String,
    },
    NodeBack {
        node: usize,
    },
    LaneBlocked {
        index: Arc<str>,
        reason: String,
    },
    LaneOpen {
        index: Arc<str>,
    },
    Throttled,
    Salvaged {
        index: Arc<str>,
        field: String,
        reason: String,
    },
}

/// The whole state of one elasticsearch output.
#[derive(Debug)]
pub struct Bulk {
    options: BulkOptions,
    lanes: HashMap<Arc<str>, Lane>,
    nodes: Vec<Node>,
    sent: HashMap<RequestId, Sent>,
    last_request: RequestId,
    /// Falls when a request was too large for the other side; see 413.
    target_bytes: usize,
    chance: Chance,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Slice>,
    waiting_bytes: usize,
    /// When the oldest of `waiting` came. Meaningless while that is empty.
    oldest: Instant,
    /// Halves of refused requests, each to be sent as it is: joined they would be refused again.
    apart: VecDeque<Vec<Slice>>,
    /// Put off until their time; keys are unique by their second part.
    put_off: BTreeMap<(Instant, u64), Slice>,
    last_put_off: u64,
    concurrency: Concurrency,
    /// Open while the cluster refused everything for overload.
    overload: Breaker,
    /// Open while the index refuses writes.
    blocked: Breaker,
    blocked_since: Option<Instant>,
}

#[derive(Debug)]
struct Node {
    concurrency: Concurrency,
    breaker: Breaker,
    is_unauthorised: bool,
}

#[derive(Debug)]
struct Sent {
    index: Arc<str>,
    node: usize,
    at: Instant,
    slices: Vec<Slice>,
    documents: usize,
    body_bytes: usize,
    /// A half of a refused request: not to be joined with others.
    is_apart: bool,
}

/// The documents of one request, as a lane hands them out.
struct Taken {
    slices: Vec<Slice>,
    is_apart: bool,
}

/// Below this a 413 no longer lowers the size of later requests.
const TARGET_BYTES_MIN: usize = 16 << 10;
/// Lanes without work are kept for the sake of what they learnt, up to this many.
const IDLE_LANES_MAX: usize = 64;

impl Bulk {
    pub fn new(options: BulkOptions) -> Self {
        let node = || Node {
            concurrency: Concurrency::new(options.concurrency_max),
            breaker: Breaker::new(options.retry),
            is_unauthorised: false,
        };
        Self {
            lanes: HashMap::new(),
            nodes: (0..options.nodes.max(1)).map(|_| node()).collect(),
            sent: HashMap::new(),
            last_request: 0,
            target_bytes: options.target_bytes,
            chance: Chance(options.seed),
            options,
        }
    }

    /// Advances by one input. Outputs are to be performed in order.
    pub fn step(&mut self, now: Instant, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Documents(chunk) => self.on_documents(now, chunk, outputs),
            Input::Answered { request, reply } => self.on_answered(now, request, reply, outputs),
            Input::Tick => {}
        }
        self.send_what_is_due(now, outputs);
        if self.lanes.len() > IDLE_LANES_MAX {
            self.lanes.retain(|_, lane| !lane.is_idle());
        }
    }

    /// When to step with [`Input::Tick`] if nothing else comes before.
    pub fn next_wake(&self) -> Option<Instant> {
        let lane = self.lanes.values().filter_map(|lane| lane.next_wake(&self.options)).min()?;
        let takes_more = |node: &Node| node.breaker.is_closed() && node.concurrency.has_room();
        if self.nodes.iter().any(takes_more) {
            return Some(lane);
        }
        // Where all are full, away or being probed, a lane that is due cannot be served: to wake for
        // it would be to wake for nothing, again and again. An answer wakes, or the next probe's time.
        let probe = self.nodes.iter().filter_map(|node| node.breaker.due()).min()?;
        Some(lane.max(probe))
    }

    /// Nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.lanes.values().all(Lane::is_idle)
    }

    /// No node takes anything.
    pub fn is_away(&self) -> bool {
        self.nodes.iter().all(|node| !node.breaker.is_closed())
    }

    /// Some node refused our credentials and none accepted them.
    pub fn is_unauthorised(&self) -> bool {
        self.is_away() && self.nodes.iter().any(|node| node.is_unauthorised)
    }

    pub fn requests_in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Lanes that wait because their index refuses writes.
    pub fn blocked_lanes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.lanes.iter().filter(|(_, lane)| !lane.blocked.is_closed()).map(|(index, _)| index)
    }

    fn lane(&mut self, index: &Arc<str>, now: Instant) -> &mut Lane {
        // `entry` would copy the name for each chunk.
        if !self.lanes.contains_key(index) {
            self.lanes.insert(index.clone(), Lane::new(&self.options, now));
        }
        self.lanes.get_mut(index).expect("the lane was made if it was missing")
    }

    fn on_documents(&mut self, now: Instant, chunk: Arc<Chunk>, outputs: &mut Vec<Output>) {
        let limit = self.options.bytes_max;
        let Some(slice) = Slice::all(chunk) else { return };
        let index = slice.index().clone();
        // Only a chunk that is too large as a whole can hold a document that is.
        if slice.body_bytes() <= limit {
            return self.lane(&index, now).wait(now, slice);
        }
        for at in 0..slice.len() {
            let document = slice.part(at..at + 1);
            if document.body_bytes() > limit {
                outputs.push(too_large(document, limit));
            } else {
                self.lane(&index, now).wait(now, document);
            }
        }
    }

    fn on_answered(
        &mut self,
        now: Instant,
        request: RequestId,
        reply: Result<(u16, bytes::Bytes), String>,
        outputs: &mut Vec<Output>,
    ) {
        let Some(sent) = self.sent.remove(&request) else { return };
        let verdict = match reply {
            Ok((status, body)) => judge(status, &body, sent.documents),
            Err(reason) => RequestVerdict::Unavailable { reason },
        };
        match verdict {
            RequestVerdict::AllIndexed => {
                self.on_node_answered(now, &sent, false, outputs);
                self.on_lane_answered(now, &sent, LaneAnswer::Good, outputs);
                outputs.extend(
                    sent.slices
                        .into_iter()
                        .map(|slice| Output::Acknowledge { slice, already_there: 0 }),
                );
            }
            RequestVerdict::Items(verdicts) => self.on_items(now, sent, verdicts, outputs),
            RequestVerdict::Throttled { .. } => {
                outputs.push(Output::Notice(Notice::Throttled));
                self.on_node_answered(now, &sent, true, outputs);
                self.on_lane_answered(now, &sent, LaneAnswer::Overloaded, outputs);
                self.send_again(now, sent);
            }
            RequestVerdict::TooLarge => {
                self.on_node_answered(now, &sent, false, outputs);
                self.on_lane_answered(now, &sent, LaneAnswer::Good, outputs);
                let half = (sent.body_bytes / 2).max(TARGET_BYTES_MIN);
                self.target_bytes = self.target_bytes.min(half);
                self.halve(
                    now,
                    sent,
                    "413 the request with this document alone is too large",
                    outputs,
                );
            }
            RequestVerdict::Malformed { reason } => {
                self.on_node_answered(now, &sent, false, outputs);
                self.on_lane_answered(now, &sent, LaneAnswer::Good, outputs);
                self.halve(now, sent, &reason, outputs);
            }
            RequestVerdict::Unauthorised { reason } => {
                self.on_node_lost(now, &sent, reason, true, outputs);
                self.send_again(now, sent);
            }
            RequestVerdict::Unavailable { reason } => {
                self.on_node_lost(now, &sent, reason, false, outputs);
                self.send_again(now, sent);
            }
        }
    }

    fn on_items(
        &mut self,
        now: Instant,
        sent: Sent,
        verdicts: Vec<Verdict>,
        outputs: &mut Vec<Output>,
    ) {
        let retried = verdicts.iter().filter(|v| matches!(v, Verdict::Retry { .. })).count();
        let blocked = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Blocked { reason } => Some(reason.clone()),
            _ => None,
        });
        if retried > 0 {
            outputs.push(Output::Notice(Notice::Throttled));
        }
        self.on_node_answered(now, &sent, retried > 0, outputs);
        let answer = match blocked {
            Some(reason) => LaneAnswer::Blocked(reason),
            None if retried == verdicts.len() => LaneAnswer::Overloaded,
            None if retried > 0 => LaneAnswer::PartlyOverloaded,
            None => LaneAnswer::Good,
        };
        let blocked = match &answer {
            LaneAnswer::Blocked(reason) => Some(reason.clone()),
            _ => None,
        };
        self.on_lane_answered(now, &sent, answer, outputs);

        let mut verdicts = verdicts.into_iter();
        for slice in &sent.slices {
            let verdicts: Vec<Verdict> = verdicts.by_ref().take(slice.len()).collect();
            let mut start = 0;
            for run in verdicts.chunk_by(|a, b| fate(a) == fate(b)) {
                let part = slice.part(start..start + run.len());
                start += run.len();
                match fate(&run[0]) {
                    Fate::Done => {
                        let already_there =
                            run.iter().filter(|v| **v == Verdict::AlreadyThere).count();
                        outputs.push(Output::Acknowledge { slice: part, already_there });
                    }
                    Fate::Later => self.put_off(now, part),
                    Fate::Waits => {
                        self.lane(&sent.index, now).wait_in_front(now, part);
                    }
                    Fate::Judged => {
                        for (at, verdict) in run.iter().enumerate() {
                            self.on_refused(now, part.part(at..at + 1), verdict.clone(), outputs);
                        }
                    }
                }
            }
        }
        if let Some(reason) = blocked {
            self.give_up_on_blocked(now, &sent.index, &reason, outputs);
        }
    }

    /// Judged with each refusal, so at the lane's own waits.
    fn give_up_on_blocked(
        &mut self,
        now: Instant,
        index: &Arc<str>,
        reason: &str,
        outputs: &mut Vec<Output>,
    ) {
        let Some(patience) = self.options.lane_patience else { return };
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let is_over = |since| now.saturating_duration_since(since) >= patience;
        if !lane.blocked_since.is_some_and(is_over) {
            return;
        }
        for slice in lane.take_all() {
            for at in 0..slice.len() {
                let (slice, reason) = (slice.part(at..at + 1), reason.to_owned());
                outputs.push(Output::DeadLetter { slice, reason, field: None });
            }
        }
    }

    /// One document that was refused for what it holds.
    fn on_refused(
        &mut self,
        now: Instant,
        slice: Slice,
        verdict: Verdict,
        outputs: &mut Vec<Output>,
    ) {
        let (reason, field) = match verdict {
            Verdict::Conflict { reason, field } => (reason, field),
            Verdict::Dead { reason } => (reason, None),
            _ => return,
        };
        if let Some(name) = field.as_deref().filter(|_| !slice.is_salvaged)
            && let Some(lines) = salvage(&slice.body(), name)
        {
            let index = slice.index().clone();
            outputs.push(Output::Notice(Notice::Salvaged {
                index: index.clone(),
                field: name.into(),
                reason,
            }));
            let record = slice.records().next().expect("a slice is never empty");
            let chunk = Chunk {
                index: index.clone(),
                documents: vec![Placed { end: lines.len() as u32, record }],
                body: lines.into(),
                batch: slice.batch().clone(),
                credit: None,
            };
            if let Some(mut salvaged) = Slice::all(Arc::new(chunk)) {
                salvaged.is_salvaged = true;
                self.lane(&index, now).wait(now, salvaged);
            }
            return;
        }
        outputs.push(Output::DeadLetter { slice, reason, field });
    }

    fn put_off(&mut self, now: Instant, mut slice: Slice) {
        slice.attempts += 1;
        let due = now + self.options.retry.after(slice.attempts, self.chance.draw());
        let lane = self.lane(&slice.index().clone(), now);
        lane.last_put_off += 1;
        lane.put_off.insert((due, lane.last_put_off), slice);
    }

    fn send_again(&mut self, now: Instant, sent: Sent) {
        let lane = self.lane(&sent.index, now);
        if sent.is_apart {
            return lane.apart.push_front(sent.slices);
        }
        for slice in sent.slices.into_iter().rev() {
            lane.wait_in_front(now, slice);
        }
    }

    /// The documents of a refused request in two requests, which wait for their turn as others do;
    /// what was refused alone is dead.
    fn halve(&mut self, now: Instant, sent: Sent, reason: &str, outputs: &mut Vec<Output>) {
        if sent.documents == 1 {
            let slice = sent.slices.into_iter().next().expect("a request is never empty");
            outputs.push(Output::DeadLetter { slice, reason: reason.into(), field: None });
            return;
        }
        let mut left = sent.documents / 2;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for slice in sent.slices {
            let len = slice.len();
            match left {
                0 => second.push(slice),
                _ if len <= left => {
                    left -= len;
                    first.push(slice);
                }
                _ => {
                    first.push(slice.part(0..left));
                    second.push(slice.part(left..len));
                    left = 0;
                }
            }
        }
        let lane = self.lane(&sent.index, now);
        for half in [second, first] {
            lane.apart.push_front(half);
        }
    }

    fn on_node_answered(
        &mut self,
        now: Instant,
        sent: &Sent,
        is_throttled: bool,
        outputs: &mut Vec<Output>,
    ) {
        let node = &mut self.nodes[sent.node];
        let took = now.saturating_duration_since(sent.at);
        if is_throttled {
            node.concurrency.on_throttled(now, took);
        } else {
            node.concurrency.on_answered(now, took, sent.body_bytes);
        }
        node.is_unauthorised = false;
        if node.breaker.on_success() {
            outputs.push(Output::Notice(Notice::NodeBack { node: sent.node }));
        }
    }

    fn on_node_lost(
        &mut self,
        now: Instant,
        sent: &Sent,
        reason: String,
        is_unauthorised: bool,
        outputs: &mut Vec<Output>,
    ) {
        let chance = self.chance.draw();
        let node = &mut self.nodes[sent.node];
        node.concurrency.on_lost();
        let is_news = is_unauthorised && !node.is_unauthorised;
        node.is_unauthorised = is_unauthorised;
        if node.breaker.on_failure(now, chance) || is_news {
            outputs.push(Output::Notice(match is_unauthorised {
                true => Notice::Unauthorised { node: sent.node, reason },
                false => Notice::NodeAway { node: sent.node, reason },
            }));
        }
        if let Some(lane) = self.lanes.get_mut(&sent.index) {
            lane.concurrency.on_lost();
            lane.overload.on_unanswered();
            lane.blocked.on_unanswered();
        }
    }

    fn on_lane_answered(
        &mut self,
        now: Instant,
        sent: &Sent,
        answer: LaneAnswer,
        outputs: &mut Vec<Output>,
    ) {
        let chance = self.chance.draw();
        let lane = self.lane(&sent.index, now);
        let took = now.saturating_duration_since(sent.at);
        match answer {
            LaneAnswer::Overloaded | LaneAnswer::PartlyOverloaded => {
                lane.concurrency.on_throttled(now, took);
            }
            _ => lane.concurrency.on_answered(now, took, sent.body_bytes),
        }
        match answer {
            LaneAnswer::Overloaded => {
                lane.overload.on_failure(now, chance);
            }
            _ => {
                lane.overload.on_success();
            }
        }
        match answer {
            LaneAnswer::Blocked(reason) => {
                lane.blocked_since.get_or_insert(now);
                if lane.blocked.on_failure(now, chance) {
                    let index = sent.index.clone();
                    outputs.push(Output::Notice(Notice::LaneBlocked { index, reason }));
                }
            }
            LaneAnswer::Good => {
                lane.blocked_since = None;
                if lane.blocked.on_success() {
                    let index = sent.index.clone();
                    outputs.push(Output::Notice(Notice::LaneOpen { index }));
                }
            }
            // The cluster was too busy to say anything about the index.
            LaneAnswer::Overloaded | LaneAnswer::PartlyOverloaded => lane.blocked.on_unanswered(),
        }
    }

    fn send_what_is_due(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        // Every lane in turn, one request each, so that a busy one does not take all of a node.
        loop {
            let mut sent_any = false;
            let due: Vec<Arc<str>> = self
                .lanes
                .iter()
                .filter(|(_, lane)| lane.is_due(now, self.target_bytes, &self.options))
                .map(|(index, _)| index.clone())
                .collect();
            for index in due {
                let Some(node) = self.free_node(now) else { return };
                let target = self.target_bytes;
                let Some(taken) = self.lanes.get_mut(&index).map(|lane| lane.take(now, target))
                else {
                    continue;
                };
                self.send(now, node, index, taken, outputs);
                sent_any = true;
            }
            if !sent_any {
                return;
            }
        }
    }

    fn send(
        &mut self,
        now: Instant,
        node: usize,
        index: Arc<str>,
        Taken { slices, is_apart }: Taken,
        outputs: &mut Vec<Output>,
    ) {
        if slices.is_empty() {
            return;
        }
        let lane = self.lane(&index, now);
        lane.concurrency.on_sent();
        lane.overload.on_sent();
        lane.blocked.on_sent();
        self.nodes[node].concurrency.on_sent();
        self.nodes[node].breaker.on_sent();
        self.last_request += 1;
        let id = self.last_request;
        let body_bytes = slices.iter().map(Slice::body_bytes).sum();
        let documents = slices.iter().map(Slice::len).sum();
        let slices_sent = slices.clone();
        let sent =
            Sent { index, node, at: now, slices: slices_sent, documents, body_bytes, is_apart };
        self.sent.insert(id, sent);
        outputs.push(Output::Send(Request { id, node, slices, body_bytes }));
    }

    /// The least busy node that may be asked now; one in doubt only where there is no other.
    fn free_node(&self, now: Instant) -> Option<usize> {
        let free = |(_, node): &(usize, &Node)| {
            node.breaker.allows(now) && (node.concurrency.has_room() || !node.breaker.is_closed())
        };
        self.nodes
            .iter()
            .enumerate()
            .filter(free)
            .min_by_key(|(_, node)| (!node.breaker.is_closed(), node.concurrency.in_flight()))
            .map(|(number, _)| number)
    }
}

enum LaneAnswer {
    Good,
    /// Some documents were put off.
    PartlyOverloaded,
    /// Nothing was taken.
    Overloaded,
    Blocked(String),
}

#[derive(PartialEq, Eq)]
enum Fate {
    Done,
    Later,
    Waits,
    Judged,
}

fn fate(verdict: &Verdict) -> Fate {
    match verdict {
        Verdict::Indexed | Verdict::AlreadyThere => Fate::Done,
        Verdict::Retry { .. } => Fate::Later,
        Verdict::Blocked { .. } => Fate::Waits,
        Verdict::Conflict { .. } | Verdict::Dead { .. } => Fate::Judged,
    }
}

fn too_large(slice: Slice, limit: usize) -> Output {
    let reason = format!("document of {} bytes exceeds {limit} bytes", slice.body_bytes());
    Output::DeadLetter { slice, reason, field: None }
}

#[cfg(test)]
mod tests;
