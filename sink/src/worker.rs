//! Batches of records → filtered documents, on threads of their own.
//!
//! Any worker takes any batch: records are committed in the order of their partition whatever the
//! order in which batches are done.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use elkfk_wire::source_id::SourceId;
use tokio::sync::{broadcast, mpsc};

use crate::delivery::budget::{Budget, Credit};
use crate::delivery::chunk::{Batch, Chunk, RecordView};
use crate::event::{Event, FieldRef, Template, Timestamp};
use crate::filter::Context;
use crate::input::kafka_options::{Decorate, KafkaInput};
use crate::metrics::Meters;
use crate::output::dead_letter::{DeadLetters, HEADER_PREFIX, Letter};
use crate::output::elasticsearch::documents::{Documents, IndexNames};
use crate::output::elasticsearch::options::Elasticsearch;
use crate::output::stdout::{Printed, Stdout};
use crate::pipeline::{Outcome, Pipeline};

/// Batches that wait for a worker, and how many workers there are to be. Bounded by the budget of
/// the credits within.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    batches: VecDeque<(Arc<Batch>, Credit)>,
    /// Workers that have not left, those about to start included.
    workers: usize,
    /// While there are more, who comes for a batch leaves instead.
    workers_wanted: usize,
    is_closed: bool,
}

impl Queue {
    /// `credit` counts the batch as waiting until a worker takes it.
    pub fn push(&self, batch: Arc<Batch>, credit: Credit) {
        let mut state = self.state();
        state.batches.push_back((batch, credit));
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for a batch; `None` where this worker is one too many, or once the queue is closed and
    /// empty.
    pub fn pop(&self) -> Option<Arc<Batch>> {
        let mut state = self.state();
        loop {
            if state.workers > state.workers_wanted {
                state.workers -= 1;
                return None;
            }
            if let Some((batch, _credit)) = state.batches.pop_front() {
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
    }

    /// Returns how many workers the caller is to start. Those who are too many leave when they are
    /// done with their batch; while some have not, fewer are missing.
    pub fn set_workers(&self, wanted: usize) -> usize {
        let mut state = self.state();
        let missing = wanted.saturating_sub(state.workers);
        state.workers_wanted = wanted;
        state.workers += missing;
        drop(state);
        // All: a push may just have woken one that now leaves without its batch.
        self.changed.notify_all();
        missing
    }

    /// Some of the missing could not be started.
    pub fn not_started(&self, workers: usize) {
        let mut state = self.state();
        state.workers -= workers;
        state.workers_wanted -= workers;
    }

    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// An output as a worker sees it.
#[derive(Debug, Clone)]
pub enum Sink {
    Elasticsearch(Arc<Elasticsearch>, Arc<IndexNames>, mpsc::Sender<Vec<Arc<Chunk>>>),
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

/// Works until the queue is closed, or until fewer workers are wanted. Blocks: wants a thread of its own.
pub fn run(shared: &Shared, queue: &Queue) {
    let mut worker = Worker::new(shared);
    while let Some(batch) = queue.pop() {
        let begun = Instant::now();
        worker.process(&batch);
        shared.meters.on_worked(begun.elapsed());
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    writers: Vec<Writer>,
    decorations: Decorations,
    context: Context,
}

/// What became of one record.
#[derive(Default)]
struct Tally {
    deliveries: u32,
    events: u64,
    dropped: u64,
    /// A record without an event: a tombstone, an empty array, another's dead letter.
    skipped: u64,
}

/// Why a record is a dead letter already.
struct Dead {
    reason: String,
    index: Option<String>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        let writer = |sink: &Sink| match sink {
            Sink::Elasticsearch(output, names, chunks) => Writer::Elasticsearch(
                Documents::new(output.clone(), shared.held.clone(), names.clone()),
                chunks.clone(),
            ),
            Sink::Stdout(stdout, chunks) => Writer::Stdout(Printed::new(*stdout), chunks.clone()),
        };
        Self {
            shared,
            writers: shared.sinks.iter().map(writer).collect(),
            decorations: Decorations::default(),
            context: Context::default(),
        }
    }

    fn process(&mut self, batch: &Arc<Batch>) {
        let mut others: Vec<(u32, u32)> = Vec::new();
        let mut dead: Vec<(u32, Dead)> = Vec::new();
        let (mut events, mut dropped, mut skipped) = (0, 0, 0);
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
                    let grok_failures = self.context.grok_failures;
                    self.context = Context { grok_failures, ..Context::default() };
                    // Events before the one that panicked must not go out beside the dead letter:
                    // each would count as the record's one delivery, and the letter might be lost.
                    self.forget(record);
                    let reason = format!("a filter panicked: {}", text_of_panic(&*panic));
                    dead.push((record, Dead { reason, index: None }));
                    Tally { deliveries: 1, ..Tally::default() }
                }
            };
            events += tally.events;
            dropped += tally.dropped;
            skipped += tally.skipped;
            if tally.deliveries != 1 {
                others.push((record, tally.deliveries));
            }
        }
        self.shared.meters.on_filtered(events, dropped, skipped);
        self.shared.meters.on_grok_failures(std::mem::take(&mut self.context.grok_failures));
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

    /// Takes back what a record has added to the outputs.
    fn forget(&mut self, record: u32) {
        for writer in &mut self.writers {
            match writer {
                Writer::Elasticsearch(documents, _) => documents.forget(record),
                Writer::Stdout(printed, _) => printed.forget(record),
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
        let Self { shared, writers, decorations, context } = self;
        let input = &shared.inputs[batch.input];
        let skipped = Tally { skipped: 1, ..Tally::default() };
        // A tombstone is no event. A dead letter met through a pattern of topics would come back
        // as a dead letter of its own.
        let Some(value) = view.value() else { return (skipped, dead) };
        if input.is_pattern && view.headers().any(|(name, _)| name.starts_with(HEADER_PREFIX)) {
            return (skipped, dead);
        }
        let received = Timestamp::from_millis(received_ms(view));
        context.received = received;
        input.codec.decode(value, received, &mut |mut event| {
            let nth = tally.events as usize;
            tally.events += 1;
            decorations.apply(input, &mut event, batch, view);
            let event = match shared.pipeline.filter(event, context) {
                Outcome::Keep(event) => event,
                Outcome::Drop => {
                    tally.dropped += 1;
                    return;
                }
            };
            shared.pipeline.route(&event, |output| {
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
        });
        if tally.events == 0 {
            tally.skipped = 1;
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

#[cfg(test)]
mod tests {
    use elkfk_base::Mistakes;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::delivery::acks::{Acks, TopicPartition};

    /// What the workers of this pipeline share, with the receiving end of its one output.
    fn shared(text: &str) -> (Shared, mpsc::Receiver<Vec<Arc<Chunk>>>) {
        let pipeline = Pipeline::parse("a.conf", text, &|_| None).unwrap();
        let mut mistakes = Mistakes::default();
        let input = KafkaInput::read(&pipeline.inputs()[0], None, &mut mistakes).unwrap();
        let output = Elasticsearch::read(&pipeline.outputs()[0], &mut mistakes).unwrap();
        let (chunks, received) = mpsc::channel(16);
        let (held, meters) = (Budget::new(1 << 20), Arc::new(Meters::default()));
        let letters = DeadLetters::new(
            input.bootstrap_servers.clone(),
            held.clone(),
            meters.clone(),
            CancellationToken::new(),
        );
        let names = IndexNames::new(10, Instant::now());
        let shared = Shared {
            pipeline,
            inputs: vec![input].into(),
            sinks: vec![Sink::Elasticsearch(output.into(), names.into(), chunks)],
            dead_letters: vec![letters].into(),
            held,
            meters,
            live: broadcast::channel(1).0,
        };
        (shared, received)
    }

    fn batch(values: &[Option<&str>]) -> Arc<Batch> {
        let acks = Arc::new(Mutex::new(Acks::default()));
        let name = TopicPartition { topic: "logs".into(), partition: 0 };
        let epoch = acks.lock().unwrap().assign(name.clone());
        let mut batch = Batch::new(name, epoch, acks.clone());
        for (offset, value) in values.iter().enumerate() {
            batch.push(offset as i64, None, None, value.map(str::as_bytes), []);
        }
        batch.first = acks.lock().unwrap().track(epoch, 0..values.len() as i64).unwrap();
        Arc::new(batch)
    }

    fn process(text: &str, batch: &Arc<Batch>) -> (Shared, Vec<Arc<Chunk>>) {
        let (shared, mut received) = shared(text);
        let mut worker = Worker::new(&shared);
        std::thread::scope(|scope| {
            // Sending blocks, which a thread of the runtime may not.
            scope.spawn(|| worker.process(batch)).join().unwrap();
        });
        let chunks = received.try_recv().unwrap_or_default();
        (shared, chunks)
    }

    #[tokio::test]
    async fn record_whose_last_event_panics_is_a_dead_letter_only() {
        let text = "input { kafka { bootstrap_servers => \"127.0.0.1:1\" codec => json } } \
                    filter { panic {} } output { elasticsearch { index => a } }";
        let values = [Some(r#"{"n":1}"#), Some(r#"[{"n":2},{"n":3},{"panic":true}]"#)];
        let batch = batch(&values);
        let (_shared, chunks) = process(text, &batch);
        let records: Vec<u32> = chunks[0].documents.iter().map(|d| d.record).collect();
        assert_eq!(records, [0]);
        batch.acknowledge([0]);
        let mut acks = batch.acks.lock().unwrap();
        assert_eq!(acks.take_committable_of(batch.epoch).unwrap().1, 1, "the letter is awaited");
    }

    #[test]
    fn workers_leave_down_to_the_number_wanted_and_no_batch_is_left_behind() {
        const BATCHES: usize = 1000;
        let (queue, budget) = (Arc::new(Queue::default()), Budget::new(1 << 20));
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut threads = Vec::new();
        let mut begin = |count: usize| {
            for _ in 0..count {
                let (queue, taken) = (queue.clone(), taken.clone());
                threads.push(std::thread::spawn(move || {
                    while queue.pop().is_some() {
                        taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }));
            }
        };
        begin(queue.set_workers(1));
        for n in 0..BATCHES {
            queue.push(batch(&[None]), budget.take(1));
            if n % 10 == 0 {
                begin(queue.set_workers(1 + n / 10 % 4));
            }
        }
        begin(queue.set_workers(1));
        // The one that stays empties the queue and leaves with its closing only.
        while budget.used() > 0 || queue.state().workers > 1 {
            std::thread::yield_now();
        }
        assert_eq!(queue.set_workers(3), 2, "one is there");
        queue.not_started(2);
        queue.close();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), BATCHES);
    }

    #[tokio::test]
    async fn records_without_an_event_are_done_and_counted() {
        let text = "input { kafka { codec => json } } filter { if [n] == 1 { drop {} } } \
                    output { elasticsearch { index => a } }";
        let batch = batch(&[None, Some("[]"), Some(r#"{"n":1}"#)]);
        let (shared, chunks) = process(text, &batch);
        assert!(chunks.is_empty());
        assert_eq!(shared.meters.skipped.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!(shared.meters.dropped.load(std::sync::atomic::Ordering::Relaxed), 1);
        let mut acks = batch.acks.lock().unwrap();
        assert_eq!(acks.take_committable_of(batch.epoch).unwrap().1, 3);
    }
}
