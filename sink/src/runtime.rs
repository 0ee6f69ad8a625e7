//! A running sink: readers → workers → writers, and their orderly end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use elkfk_base::{Mistakes, Tasks};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Plugin;
use crate::delivery::acks::Acks;
use crate::delivery::budget::Budget;
use crate::input::kafka::Reader;
use crate::input::kafka_options::KafkaInput;
use crate::metrics::Meters;
use crate::output::dead_letter::DeadLetters;
use crate::output::elasticsearch::documents::IndexNames;
use crate::output::elasticsearch::options::Elasticsearch;
use crate::output::elasticsearch::{CHUNKS_WAITING_MAX, Writer};
use crate::output::stdout::{self, Stdout};
use crate::pipeline::Pipeline;
use crate::worker::{self, Queue, Shared, Sink};

/// One pipeline and how to run it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files of the pipeline; a directory stands for its `*.conf` files.
    pub files: Vec<PathBuf>,
    /// Values for `${NAME}` in the files; these go before the environment of the process.
    pub env: BTreeMap<String, String>,
    /// The consumer group, whatever the files say.
    pub group: Option<String>,
    /// A name that outlives the process, where the files give no `group_instance_id`: the group then takes
    /// the next process of this name for the same member, at once after `kill -9` too (KIP-345).
    pub instance: Option<String>,
    /// Threads that run filters; the processors of the machine by default.
    pub workers: usize,
    /// Memory for records and documents that are not acknowledged yet. Reading stops beyond it.
    pub held_bytes_max: usize,
}

const HELD_BYTES_MAX: usize = 64 << 20;
/// Of that, for records that wait for a worker: what follows can be some times as large.
const UNFILTERED_BYTES_MAX: usize = 8 << 20;
/// Waiting for what is under way takes up to two seconds, committing and leaving a moment more. A
/// stop takes less than five in all.
const READERS_PATIENCE: Duration = Duration::from_millis(3500);
/// Events that a slow reader of the live tail may lag behind before it skips.
const LIVE_EVENTS_MAX: usize = 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            env: BTreeMap::new(),
            group: None,
            instance: None,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            held_bytes_max: HELD_BYTES_MAX,
        }
    }
}

/// Why a sink did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Mistakes(#[from] Mistakes),
    #[error("join group {group} at {bootstrap_servers}: {source}")]
    Kafka { group: String, bootstrap_servers: String, source: Box<rdkafka::error::KafkaError> },
    #[error("start thread {name}")]
    Thread { name: String, source: std::io::Error },
}

/// Inputs and outputs of a pipeline, checked.
struct Plan {
    pipeline: Pipeline,
    inputs: Vec<KafkaInput>,
    outputs: Vec<PlannedOutput>,
}

enum PlannedOutput {
    Elasticsearch(Box<Elasticsearch>),
    Stdout(Stdout),
}

const INPUTS: [&str; 1] = ["kafka"];
const OUTPUTS: [&str; 2] = ["elasticsearch", "stdout"];

impl Plan {
    fn load(config: &Config) -> Result<Self, Mistakes> {
        let env = |name: &str| config.env.get(name).cloned().or_else(|| std::env::var(name).ok());
        let pipeline = Pipeline::load(&config.files, &env)?;
        let mut plan = Self::of(pipeline, config.group.as_deref())?;
        for (n, input) in plan.inputs.iter_mut().enumerate() {
            let name = config
                .instance
                .as_ref()
                .map(|name| if n == 0 { name.clone() } else { format!("{name}-{n}") });
            input.group_instance_id = input.group_instance_id.take().or(name);
        }
        Ok(plan)
    }

    fn of(pipeline: Pipeline, group: Option<&str>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for plugin in pipeline.inputs() {
            match plugin.name.as_str() {
                "kafka" => inputs.extend(KafkaInput::read(plugin, group, &mut mistakes)),
                _ => mistakes.push(unknown(plugin, &INPUTS)),
            }
        }
        for plugin in pipeline.outputs() {
            match plugin.name.as_str() {
                "elasticsearch" => outputs.extend(
                    Elasticsearch::read(plugin, &mut mistakes)
                        .map(|output| PlannedOutput::Elasticsearch(output.into())),
                ),
                "stdout" => {
                    outputs.extend(Stdout::read(plugin, &mut mistakes).map(PlannedOutput::Stdout))
                }
                _ => mistakes.push(unknown(plugin, &OUTPUTS)),
            }
        }
        if pipeline.inputs().is_empty() {
            mistakes.push(elkfk_base::Mistake::new(
                "pipeline",
                0,
                0,
                "has no input; add input { kafka { topics => [\"logs\"] codec => json } }",
            ));
        }
        if pipeline.outputs().is_empty() {
            mistakes.push(elkfk_base::Mistake::new(
                "pipeline",
                0,
                0,
                "has no output; add output { elasticsearch { hosts => [\"127.0.0.1:9200\"] } }",
            ));
        }
        mistakes.or(Self { pipeline, inputs, outputs })
    }
}

fn unknown(plugin: &Plugin, supported: &[&'static str]) -> elkfk_base::Mistake {
    let hint = elkfk_base::mistakes::did_you_mean(&plugin.name, supported.iter().copied());
    plugin.place.mistake(format!(
        "{} \"{}\" is not supported{hint}; supported are {}",
        plugin.section,
        plugin.name,
        supported.join(", ")
    ))
}

/// Whether the files make a pipeline that could be started: all options of all plugins, no network.
///
/// # Errors
/// Every mistake found, each with its place.
pub fn check(config: &Config) -> Result<(), Mistakes> {
    Plan::load(config).map(drop)
}

/// Starts the pipeline. Neither Kafka nor Elasticsearch need to be there yet.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let plan = Plan::load(&config)?;
    let meters = Arc::new(Meters::default());
    let held = Budget::new(config.held_bytes_max);
    let unfiltered = Budget::new(UNFILTERED_BYTES_MAX.min(config.held_bytes_max));
    let (tasks, stop_reading) = (Tasks::new(), CancellationToken::new());
    let (failed, _) = watch::channel(None);
    let (live, _) = broadcast::channel(LIVE_EVENTS_MAX);
    let dead_letters: Arc<[DeadLetters]> = plan
        .inputs
        .iter()
        .map(|input| {
            let servers = input.bootstrap_servers.clone();
            DeadLetters::new(servers, held.clone(), meters.clone(), tasks.token())
        })
        .collect();

    // Consumers first: what they cannot be created for must not leave threads behind.
    let queue = Arc::new(Queue::default());
    let (mut readers, mut all_acks) = (Vec::new(), Vec::new());
    for (number, input) in plan.inputs.iter().enumerate() {
        for consumer in 0..input.consumers {
            let acks = Arc::new(Mutex::new(Acks::default()));
            all_acks.push((input.group.clone(), acks.clone()));
            let reader = Reader {
                input: number,
                consumer,
                options: input.clone(),
                queue: queue.clone(),
                unfiltered: unfiltered.clone(),
                held: held.clone(),
                acks,
                meters: meters.clone(),
                stop: stop_reading.clone(),
            };
            readers.push(reader.connect().map_err(|source| StartError::Kafka {
                group: input.group.clone(),
                bootstrap_servers: input.bootstrap_servers.clone(),
                source: source.into(),
            })?);
        }
    }

    let mut sinks = Vec::new();
    let mut printers = Vec::new();
    for output in plan.outputs {
        let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING_MAX);
        match output {
            PlannedOutput::Elasticsearch(output) => {
                let output: Arc<Elasticsearch> = Arc::from(output);
                let writer = Writer {
                    output: output.clone(),
                    chunks: waiting,
                    dead_letters: dead_letters.clone(),
                    meters: meters.clone(),
                    stop: tasks.token(),
                };
                spawn_output(&tasks, "elasticsearch", writer.run(), failed.clone());
                let names = IndexNames::new(output.indices_per_hour, Instant::now());
                sinks.push(Sink::Elasticsearch(output, names.into(), chunks));
            }
            PlannedOutput::Stdout(stdout) => {
                printers.push(thread("sink-stdout", move || stdout::print(waiting))?);
                sinks.push(Sink::Stdout(stdout, chunks));
            }
        }
    }
    let shared = Shared {
        pipeline: plan.pipeline,
        inputs: plan.inputs.into(),
        sinks,
        dead_letters,
        held: held.clone(),
        meters: meters.clone(),
        live: live.clone(),
    };
    let mut workers = Vec::new();
    for number in 0..config.workers.max(1) {
        let (shared, queue, failed) = (shared.clone(), queue.clone(), failed.clone());
        workers.push(thread(&format!("sink-worker-{number}"), move || {
            let run = std::panic::AssertUnwindSafe(|| worker::run(&shared, &queue));
            if std::panic::catch_unwind(run).is_err() {
                failed.send_replace(Some("a worker of the sink panicked".to_owned()));
            }
        })?);
    }
    drop(shared);
    let mut reading = Vec::new();
    for (number, reader) in readers.into_iter().enumerate() {
        let failed = failed.clone();
        reading.push(thread(&format!("sink-reader-{number}"), move || {
            if let Err(reason) = reader.run() {
                error!(reason, "reading stopped for good");
                failed.send_replace(Some(reason));
            }
        })?);
    }
    info!(workers = config.workers, "sink started");
    Ok(Running {
        tasks,
        stop_reading,
        queue,
        reading,
        workers,
        printers,
        meters,
        held,
        all_acks,
        live,
        failed,
    })
}

/// Starts the task of an output; its panic is told, since nothing would be acknowledged any more
/// while records were still read.
fn spawn_output(
    tasks: &Tasks,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
    failed: watch::Sender<Option<String>>,
) {
    let running = tasks.spawn(name, work);
    tasks.spawn("output-watch", async move {
        if let Err(error) = running.await {
            error!(output = name, %error, "output ended");
            failed.send_replace(Some(format!("output {name} of the sink ended: {error}")));
        }
    });
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|source| StartError::Thread { name: name.into(), source })
}

/// A sink at work. To be ended by [`Running::stop`]; dropped, it stops reading and is not awaited.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    stop_reading: CancellationToken,
    queue: Arc<Queue>,
    reading: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    printers: Vec<JoinHandle<()>>,
    meters: Arc<Meters>,
    held: Arc<Budget>,
    all_acks: Vec<(String, Arc<Mutex<Acks>>)>,
    live: broadcast::Sender<Arc<str>>,
    failed: watch::Sender<Option<String>>,
}

/// What the sink does at a moment; counts are since its start.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Status {
    pub records: u64,
    pub events: u64,
    /// By a filter.
    pub dropped: u64,
    /// Records without an event.
    pub skipped: u64,
    /// Offsets that Kafka's retention had removed before they were read.
    pub lost: u64,
    /// Acknowledged by an elasticsearch output.
    pub delivered: u64,
    /// Of these, those that were there from an earlier delivery.
    pub already_there: u64,
    pub salvaged: u64,
    pub dead_letters: u64,
    /// Bulk answers that told of overload.
    pub throttled: u64,
    pub bulks: u64,
    pub bulks_in_flight: usize,
    /// Mean from request to answer, since the start.
    pub bulk_seconds_mean: f64,
    /// Share of the last half minute in which reading waited for the outputs, 0 to 1.
    pub blocked_share: f64,
    pub held_bytes: usize,
    /// No node of Elasticsearch answers.
    pub is_elasticsearch_away: bool,
    /// It answers, but refuses the credentials.
    pub is_unauthorised: bool,
    pub partitions: Vec<PartitionStatus>,
    pub last_error: Option<LastError>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartitionStatus {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    /// Records read and not acknowledged.
    pub in_flight: usize,
    /// What was last committed by this assignment.
    pub committed: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LastError {
    pub seconds_ago: f64,
    pub text: String,
}

impl Running {
    /// Figures for the dashboard.
    pub fn status(&self) -> Status {
        let meters = &self.meters;
        let bulks = meters.bulks.load(Relaxed);
        let mut partitions: Vec<PartitionStatus> = Vec::new();
        for (group, acks) in &self.all_acks {
            let acks = acks.lock().expect("no holder of this lock panics");
            partitions.extend(acks.positions().map(|(name, in_flight, committed)| {
                PartitionStatus {
                    group: group.clone(),
                    topic: name.topic.to_string(),
                    partition: name.partition,
                    in_flight,
                    committed,
                }
            }));
        }
        partitions.sort_by(|a, b| {
            (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition))
        });
        Status {
            records: meters.records.load(Relaxed),
            events: meters.events.load(Relaxed),
            dropped: meters.dropped.load(Relaxed),
            skipped: meters.skipped.load(Relaxed),
            lost: meters.lost.load(Relaxed),
            delivered: meters.delivered.load(Relaxed),
            already_there: meters.already_there.load(Relaxed),
            salvaged: meters.salvaged.load(Relaxed),
            dead_letters: meters.dead.load(Relaxed),
            throttled: meters.throttled.load(Relaxed),
            bulks,
            bulks_in_flight: meters.bulks_in_flight.load(Relaxed),
            bulk_seconds_mean: meters.bulk_micros.load(Relaxed) as f64 / 1e6 / bulks.max(1) as f64,
            blocked_share: meters.blocked_share(),
            held_bytes: self.held.used(),
            is_elasticsearch_away: meters.is_away.load(Relaxed),
            is_unauthorised: meters.is_unauthorised.load(Relaxed),
            partitions,
            last_error: meters
                .last_error()
                .map(|(ago, text)| LastError { seconds_ago: ago.as_secs_f64(), text }),
        }
    }

    /// Outgoing events as JSON, as they are indexed: the newest of each batch. Who lags skips.
    pub fn live_tail(&self) -> broadcast::Receiver<Arc<str>> {
        self.live.subscribe()
    }

    /// Resolves with the reason if the sink can not go on by itself.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender is held by `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops reading, waits up to two seconds for what is under way, commits, leaves the group.
    pub async fn stop(mut self) {
        self.stop_reading.cancel();
        let readers = join(std::mem::take(&mut self.reading));
        if tokio::time::timeout(READERS_PATIENCE, readers).await.is_err() {
            // A commit to a broker that is away: the records will be read again.
            warn!("reading did not end in time; offsets may not be committed");
        }
        self.queue.close();
        // What the workers still hold was not acknowledged in time; if an output is away their
        // queue to it may be full, so the outputs go first.
        let patience = tokio::time::timeout(
            Duration::from_millis(200),
            join(std::mem::take(&mut self.workers)),
        );
        let has_ended = patience.await.is_ok();
        self.tasks.shutdown().await;
        if has_ended {
            join(std::mem::take(&mut self.printers)).await;
        }
        info!("sink stopped");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_reading.cancel();
        self.queue.close();
    }
}

async fn join(threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            // Panics were caught and told within.
            let _ = thread.join();
        }
    });
    let _ = joined.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_that_panics_fails_the_sink() {
        let (tasks, (failed, mut told)) = (Tasks::new(), watch::channel(None));
        spawn_output(&tasks, "test", async { panic!("asked to panic") }, failed);
        let reason = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(reason.starts_with("output test of the sink ended"), "{reason}");
        tasks.shutdown().await;
    }

    fn checked(text: &str) -> Result<(), String> {
        let pipeline =
            Pipeline::parse("a.conf", text, &|_| None).map_err(|mistakes| mistakes.to_string())?;
        Plan::of(pipeline, None).map(drop).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn pipeline_needs_an_input_and_an_output_that_are_known() {
        assert_eq!(checked("input { kafka {} } output { stdout {} elasticsearch {} }"), Ok(()));
        let text = checked("input { kafkaa {} } output { elastic {} }").unwrap_err();
        assert!(
            text.contains("a.conf:1:9: input \"kafkaa\" is not supported, did you mean \"kafka\"?"),
            "{text}"
        );
        assert!(text.contains("output \"elastic\" is not supported"), "{text}");
        let text = checked("filter { drop {} }").unwrap_err();
        assert!(text.contains("has no input") && text.contains("has no output"), "{text}");
    }
}
