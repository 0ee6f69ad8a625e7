//! A running sink: readers → workers → writers, and their orderly end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use elkfk_base::{Mistakes, Tasks};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{self, ListenError};
use crate::config::Plugin;
use crate::crew::{self, Crew, Members, ScaleError, Scaled, Threads, thread};
use crate::delivery::budget::Budget;
use crate::input::kafka_options::KafkaInput;
use crate::metrics::Meters;
use crate::output::dead_letter::DeadLetters;
use crate::output::elasticsearch::documents::IndexNames;
use crate::output::elasticsearch::options::Elasticsearch;
use crate::output::elasticsearch::{CHUNKS_WAITING_MAX, Writer};
use crate::output::stdout::{self, Stdout};
use crate::pipeline::Pipeline;
use crate::scaling::{Bounds, Wish};
use crate::status::Status;
use crate::worker::{Queue, Shared, Sink};

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
    /// How many there may become while the sink runs; `workers`, if that is more.
    pub workers_max: usize,
    /// How many consumers each kafka input may get; its `consumer_threads`, if that is more.
    pub consumers_max: usize,
    /// Where Logstash's HTTP API is served; port 0 takes any free one. Nowhere by default.
    pub api: Option<SocketAddr>,
    /// Where the port of `api` is taken, those after it up to this one are tried.
    pub api_port_last: Option<u16>,
    /// Memory for records and documents that are not acknowledged yet. Reading stops beyond it.
    pub held_bytes_max: usize,
}

/// Far more than a machine has processors for; each costs what its filters keep.
const WORKERS_MAX: usize = 32;
/// Each reads up to 16 MiB ahead.
const CONSUMERS_MAX: usize = 32;
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
            workers_max: WORKERS_MAX,
            consumers_max: CONSUMERS_MAX,
            api: None,
            api_port_last: None,
            held_bytes_max: HELD_BYTES_MAX,
        }
    }
}

/// Why a sink did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Mistakes(#[from] Mistakes),
    #[error(transparent)]
    Threads(#[from] ScaleError),
    #[error(transparent)]
    Api(#[from] ListenError),
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
    let api = match config.api {
        Some(first) => Some(api::listen(first, config.api_port_last).await?),
        None => None,
    };
    let meters = Arc::new(Meters::default());
    let held = Budget::new(config.held_bytes_max);
    let tasks = Tasks::new();
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
    let workers = config.workers.max(1);
    let configured = plan.inputs.iter().map(|input| input.consumers).collect();
    let crew = Arc::new(Crew {
        turns: crew::turns(&plan.inputs),
        inputs: plan.inputs.into(),
        bounds: Bounds::new(workers, config.workers_max, configured, config.consumers_max),
        queue: Arc::new(Queue::default()),
        unfiltered: Budget::new(UNFILTERED_BYTES_MAX.min(config.held_bytes_max)),
        held: held.clone(),
        meters: meters.clone(),
        stop_reading: CancellationToken::new(),
        failed: failed.clone(),
        members: Mutex::new(Members::default()),
    });
    let recruits = crew.recruit()?;

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
                let meters = meters.clone();
                let print = move || stdout::print(waiting, &meters);
                printers.push(thread("sink-stdout".into(), print)?);
                sinks.push(Sink::Stdout(stdout, chunks));
            }
        }
    }
    let shared = Shared {
        pipeline: plan.pipeline,
        inputs: crew.inputs.clone(),
        sinks,
        dead_letters,
        held,
        meters,
        live: live.clone(),
    };
    // Dropped where a thread cannot be started, it stops those that were.
    let mut running = Running {
        tasks,
        api: None,
        stop_api: CancellationToken::new(),
        crew: crew.clone(),
        printers,
        live,
        failed,
    };
    crew.begin(shared, workers, recruits)?;
    if let Some((listener, at)) = api {
        running.api = Some(at);
        let stop = running.stop_api.clone();
        let serving = api::serve(listener, at, running.control(), running.tasks.clone(), stop);
        running.tasks.spawn("api", serving);
    }
    info!(workers, "sink started");
    Ok(running)
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

/// A sink at work. To be ended by [`Running::stop`]; dropped, it stops reading and is not awaited.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    api: Option<SocketAddr>,
    stop_api: CancellationToken,
    crew: Arc<Crew>,
    printers: Vec<JoinHandle<()>>,
    live: broadcast::Sender<Arc<str>>,
    failed: watch::Sender<Option<String>>,
}

/// A hold on a sink that runs, to look at it and to change it; clones are of the same sink. Once that
/// has stopped, nothing can be changed any more.
#[derive(Debug, Clone)]
pub struct Control(Arc<Crew>);

impl Control {
    pub fn status(&self) -> Status {
        Status::of(&self.0)
    }

    /// Changes the numbers of workers and consumers. Returns what is in force then.
    ///
    /// Blocks for some milliseconds for each new consumer, not until any that leaves has left. Within
    /// that and a heartbeat of the group its partitions move.
    ///
    /// # Errors
    /// A number is out of bounds, and nothing was changed; or a thread or consumer could not be
    /// started, and what came before it was.
    pub fn scale(&self, wish: Wish) -> Result<Scaled, ScaleError> {
        self.0.scale(wish)
    }

    /// As [`Control::scale`]: the threads that run filters.
    pub fn set_workers(&self, workers: usize) -> Result<Scaled, ScaleError> {
        self.scale(Wish { workers: Some(workers), consumers: None })
    }

    /// As [`Control::scale`]: the consumers of each kafka input, never less than it is configured to
    /// have.
    pub fn set_consumers(&self, consumers: usize) -> Result<Scaled, ScaleError> {
        self.scale(Wish { workers: None, consumers: Some(consumers) })
    }
}

impl Running {
    /// Figures for the dashboard.
    pub fn status(&self) -> Status {
        Status::of(&self.crew)
    }

    /// Where Logstash's HTTP API is served.
    pub fn api_addr(&self) -> Option<SocketAddr> {
        self.api
    }

    /// A hold that outlives this one.
    pub fn control(&self) -> Control {
        Control(self.crew.clone())
    }

    /// See [`Control::set_workers`].
    pub fn set_workers(&self, workers: usize) -> Result<Scaled, ScaleError> {
        self.control().set_workers(workers)
    }

    /// See [`Control::set_consumers`].
    pub fn set_consumers(&self, consumers: usize) -> Result<Scaled, ScaleError> {
        self.control().set_consumers(consumers)
    }

    /// Outgoing events as JSON, as they are indexed: the newest of each batch. Who lags skips.
    pub fn live_tail(&self) -> broadcast::Receiver<Arc<str>> {
        self.live.subscribe()
    }

    /// Resolves with the reason if the sink can not go on by itself.
    pub async fn failed(&self) -> String {
        elkfk_base::tasks::failure(&self.failed.subscribe()).await
    }

    /// Stops reading, waits up to two seconds for what is under way, commits, leaves the group.
    pub async fn stop(mut self) {
        self.stop_api.cancel();
        self.crew.stop_reading.cancel();
        let Threads { readers, workers } = self.crew.close();
        if tokio::time::timeout(READERS_PATIENCE, join(readers)).await.is_err() {
            // A commit to a broker that is away: the records will be read again.
            warn!("reading did not end in time; offsets may not be committed");
        }
        self.crew.queue.close();
        // What the workers still hold was not acknowledged in time; if an output is away their
        // queue to it may be full, so the outputs go first.
        let patience = tokio::time::timeout(Duration::from_millis(200), join(workers));
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
        self.stop_api.cancel();
        self.crew.stop_reading.cancel();
        drop(self.crew.close());
        self.crew.queue.close();
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
