//! Batches of records → filtered documents, on threads of their own.
//!
//! Any worker takes any batch: records are committed in the order of their partition whatever the
//! order in which batches are done.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};

use elkfk_wire::source_id::SourceId;
use tokio::sync::{broadcast, mpsc};

use crate::codec::Codec;
use crate::delivery::budget::{Budget, Credit};
use crate::delivery::chunk::{Batch, Chunk, RecordView};
use crate::event::{Event, FieldRef, Template, Timestamp};
use crate::filter::Context;
use crate::input::kafka_options::{Decorate, KafkaInput};
use crate::metrics::Meters;
use crate::output::dead_letter::{DeadLetters, HEADER_PREFIX, Letter};
use crate::output::elasticsearch::documents::Documents;
use crate::output::elasticsearch::options::Elasticsearch;
use crate::output::stdout::{Printed, Stdout};
use crate::pipeline::{Outcome, Pipeline};

/// Batches that wait for a worker. Bounded by the budget of the credits within.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    batches: VecDeque<(Arc<Batch>, Credit)>,
    is_closed: bool,
}

impl Queue {
    /// `credit` counts the batch as waiting until a worker takes it.
    pub fn push(&self, batch: Arc<Batch>, credit: Credit) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        state.batches.push_back((batch, credit));
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for a batch; `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<Arc<Batch>> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        loop {
            if let Some((batch, _credit)) = state.batches.pop_front() {
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
    }

    pub fn close(&self) {
        self.state.lock().expect("no holder of this lock panics").is_closed = true;
        self.changed.notify_all();
    }
}

/// An output as a worker sees it.
#[derive(Debug, Clone)]
pub enum Sink {
    Elasticsearch(Arc<Elasticsearch>, mpsc::Sender<Vec<Arc<Chunk>>>),
    Stdout(Stdout, mpsc::Sender<Vec<Arc<Chunk>>>),
}

/// What all workers of a pipeline share.
#[derive(Debug, Clone)]
pub struct Shared {
    pub pipeline: Pipeline,
    pub inputs: Arc<[KafkaInput]>,
    pub sinks: Vec<Sink>,
    pub dead_letters: Arc<[DeadLetters]>,
    pub held: Arc<Budget>,
    pub meters: Arc<Meters>,
    pub live: broadcast::Sender<Arc<str>>,
}

/// Events of one batch that the live tail gets at most: a page cannot show more, and the newest
/// are what it is for.
const LIVE_PER_BATCH: usize = 50;

enum Writer {
    Elasticsearch(Documents, mpsc::Sender<Vec<Arc<Chunk>>>),
    Stdout(Printed, mpsc::Sender<Vec<Arc<Chunk>>>),
}

/// Works until the queue is closed. Blocks: wants a thread of its own.
pub fn run(shared: &Shared, queue: &Queue) {
    let mut worker = Worker {
        shared,
        writers: shared
            .sinks
            .iter()
            .map(|sink| match sink {
                Sink::Elasticsearch(output, chunks) => Writer::Elasticsearch(
                    Documents::new(output.clone(), shared.held.clone()),
                    chunks.clone(),
                ),
                Sink::Stdout(stdout, chunks) => {
                    Writer::Stdout(Printed::new(*stdout), chunks.clone())
                }
            })
            .collect(),
        decorations: Decorations::default(),
        context: Context::default(),
        events: Vec::new(),
    };
    while let Some(batch) = queue.pop() {
        worker.process(&batch);
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    writers: Vec<Writer>,
    decorations: Decorations,
    context: Context,
    events: Vec<Event>,
}

/// What became of one record.
#[derive(Default)]
struct Tally {
    deliveries: u32,
    events: u64,
    dropped: u64,
}

/// Why a record is a dead letter already.
struct Dead {
    reason: String,
    index: Option<String>,
}

impl Worker<'_> {
    fn process(&mut self, batch: &Arc<Batch>) {
        let mut others: Vec<(u32, u32)> = Vec::new();
        let mut dead: Vec<(u32, Dead)> = Vec::new();
        let (mut events, mut dropped) = (0, 0);
        for (record, view) in batch.iter().enumerate() {
            let record = record as u32;
            // A filter that panics must not stop the pipeline, nor meet the same record for ever.
            let done = catch_unwind(AssertUnwindSafe(|| self.process_record(batch, view, record)));
            let tally = match done {
                Ok((tally, reasons)) => {
                    dead.extend(reasons.into_iter().map(|reason| (record, reason)));
                    tally
                }
                Err(panic) => {
                    self.context = Context::default();
                    self.events.clear();
                    let reason = format!("a filter panicked: {}", text_of_panic(&*panic));
                    dead.push((record, Dead { reason, index: None }));
                    Tally { deliveries: 1, ..Tally::default() }
                }
            };
            events += tally.events;
            dropped += tally.dropped;
            if tally.deliveries != 1 {
                others.push((record, tally.deliveries));
            }
        }
        self.shared.meters.on_filtered(events, dropped);
        if !others.is_empty() {
            let mut acks = batch.acks.lock().expect("no holder of this lock panics");
            for (record, deliveries) in others {
                acks.expect(batch.epoch, batch.first + u64::from(record), deliveries);
            }
        }
        for (record, Dead { reason, index }) in dead {
            let batch = batch.clone();
            let letters = &self.shared.dead_letters[batch.input];
            letters.send(Letter { batch, record, reason, index, field: None });
        }
        let mut is_shown = self.shared.live.receiver_count() == 0;
        for writer in &mut self.writers {
            // Sending fails only when the output has stopped: then nobody waits for these either.
            match writer {
                Writer::Elasticsearch(documents, chunks) => {
                    if !std::mem::replace(&mut is_shown, true) {
                        for source in documents.newest(LIVE_PER_BATCH) {
                            let text = String::from_utf8_lossy(source);
                            let _ = self.shared.live.send(text.into());
                        }
                    }
                    let finished = documents.finish(batch);
                    if !finished.is_empty() {
                        let _ = chunks.blocking_send(finished);
                    }
                }
                Writer::Stdout(printed, chunks) => {
                    if let Some(finished) = printed.finish(batch) {
                        let _ = chunks.blocking_send(vec![finished]);
                    }
                }
            }
        }
    }

    fn process_record(
        &mut self,
        batch: &Batch,
        view: RecordView<'_>,
        record: u32,
    ) -> (Tally, Vec<Dead>) {
        let (mut tally, mut dead) = (Tally::default(), Vec::new());
        let input = &self.shared.inputs[batch.input];
        // A tombstone is no event. A dead letter met through a pattern of topics would come back
        // as a dead letter of its own.
        let Some(value) = view.value() else { return (tally, dead) };
        if input.is_pattern && view.headers().any(|(name, _)| name.starts_with(HEADER_PREFIX)) {
            return (tally, dead);
        }
        let received = Timestamp::from_millis(received_ms(view));
        self.context.received = received;
        decode(&input.codec, value, received, &mut self.events);
        for (nth, mut event) in self.events.drain(..).enumerate() {
            tally.events += 1;
            self.decorations.apply(input, &mut event, batch, view);
            let event = match self.shared.pipeline.filter(event, &mut self.context) {
                Outcome::Keep(event) => event,
                Outcome::Drop => {
                    tally.dropped += 1;
                    continue;
                }
            };
            let writers = &mut self.writers;
            self.shared.pipeline.route(&event, |output| {
                tally.deliveries += 1;
                match &mut writers[output] {
                    Writer::Elasticsearch(documents, _) => {
                        if let Err((error, index)) = documents.add(&event, view, record, nth) {
                            dead.push(Dead { reason: error.to_string(), index: Some(index) });
                        }
                    }
                    Writer::Stdout(printed, _) => printed.add(&event, record),
                }
            });
        }
        (tally, dead)
    }
}

/// When the record was made, by Kafka; else by the shipper. Never the clock: a replay must see the
/// same.
fn received_ms(view: RecordView<'_>) -> i64 {
    view.timestamp_ms().unwrap_or_else(|| {
        view.headers()
            .find(|(name, _)| *name == elkfk_wire::source_id::HEADER)
            .and_then(|(_, value)| SourceId::from_bytes(value?))
            .map_or(0, |source| source.generation.first_seen_ms() as i64)
    })
}

fn decode(codec: &Codec, value: &[u8], received: Timestamp, events: &mut Vec<Event>) {
    codec.decode(value, received, events);
}

/// What the input adds to each event.
#[derive(Debug)]
struct Decorations {
    topic: FieldRef,
    partition: FieldRef,
    offset: FieldRef,
    timestamp: FieldRef,
    group: FieldRef,
    key: FieldRef,
    event_type: FieldRef,
}

impl Default for Decorations {
    fn default() -> Self {
        let field = |text: &str| FieldRef::parse(text).expect("a reference written here is valid");
        Self {
            topic: field("[@metadata][kafka][topic]"),
            partition: field("[@metadata][kafka][partition]"),
            offset: field("[@metadata][kafka][offset]"),
            timestamp: field("[@metadata][kafka][timestamp]"),
            group: field("[@metadata][kafka][consumer_group]"),
            key: field("[@metadata][kafka][key]"),
            event_type: field("type"),
        }
    }
}

impl Decorations {
    /// Where a part of the path is no object the event says something else there, and keeps it.
    fn apply(&self, input: &KafkaInput, event: &mut Event, batch: &Batch, view: RecordView<'_>) {
        if input.decorate != Decorate::Nothing {
            let _ = event.set_text(&self.topic, &batch.partition.topic);
            let _ = event.set_int(&self.partition, i64::from(batch.partition.partition));
            let _ = event.set_int(&self.offset, view.offset());
            let _ = event.set_text(&self.group, &input.group);
            if let Some(timestamp_ms) = view.timestamp_ms() {
                let _ = event.set_int(&self.timestamp, timestamp_ms);
            }
            if let Some(key) = view.key() {
                let _ = event.set_text(&self.key, &String::from_utf8_lossy(key));
            }
        }
        if input.decorate == Decorate::Extended {
            for (name, value) in view.headers() {
                let Some(value) = value.and_then(|value| std::str::from_utf8(value).ok()) else {
                    continue;
                };
                if let Ok(field) = FieldRef::parse(&format!("[@metadata][kafka][headers][{name}]"))
                {
                    let _ = event.set_text(&field, value);
                }
            }
        }
        if let Some(event_type) = &input.event_type
            && event.get(&self.event_type).is_none()
        {
            let _ = event.set_text(&self.event_type, event_type);
        }
        for (field, template) in &input.add_fields {
            let text = Template::to_text(template, event);
            let _ = event.set_text(field, &text);
        }
        for tag in &input.add_tags {
            event.tag(tag);
        }
    }
}

fn text_of_panic(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a word".into())
}
