//! The shell: the reader's thread around the engine, its waking, its stop.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use elkfk_base::Tasks;
use elkfk_base::durable::{DataDirectory, DirectoryError};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::disk::RealDisk;
use crate::engine::{Engine, FileStatus, Next, Now};
use crate::journal::FileJournal;
use crate::kafka::KafkaSender;
use crate::registry::{Contents, FORMAT_VERSION};
use crate::watch::{Events, Watcher};

/// How often what [`Running::files`] shows is renewed.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// Descriptors left to everybody else in the process.
const RESERVED_DESCRIPTORS: u64 = 128;

/// Why the shipper did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("start shipper: {0}")]
    Directory(#[from] DirectoryError),
    #[error("start shipper: open the registry in {path}: {source}")]
    Registry { path: std::path::PathBuf, source: std::io::Error },
    #[error("start shipper: watch directories: {0}; raise fs.inotify.max_user_instances")]
    Inotify(std::io::Error),
    #[error("start shipper: output.kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("start shipper: start a thread: {0}")]
    Thread(std::io::Error),
}

/// A shipper at work.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    reader: Thread,
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    files: Mutex<Vec<FileStatus>>,
}

/// Starts reading and sending. Kafka need not answer yet.
pub async fn start(config: Config) -> Result<Running, StartError> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let data = DataDirectory::open(&config.data, FORMAT_VERSION)?;
    let (journal, contents) = FileJournal::open(data.path())
        .map_err(|source| StartError::Registry { path: data.path().into(), source })?;
    let (watcher, events) = crate::watch::new().map_err(StartError::Inotify)?;
    let shared = Arc::new(Shared::default());
    let (end, ended) = watch::channel(None);
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let config = Config { open_files: open_file_limit(config.open_files), ..config };
    let reader = Reader { config, contents, watcher, shared: shared.clone(), data };
    let thread = std::thread::Builder::new()
        .name("shipper-reader".into())
        .spawn(move || {
            let run = AssertUnwindSafe(|| reader.run(journal, &ready));
            let result = std::panic::catch_unwind(run)
                .unwrap_or_else(|_| Err("the reader panicked; its message stands above".into()));
            if let Err(error) = &result {
                error!(error, "shipper ended");
            }
            let _ = end.send(Some(result));
        })
        .map_err(StartError::Thread)?;
    // The thread answers as soon as the producer's settings were accepted, or not.
    match started.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            return Err(StartError::Thread(std::io::Error::other("the reader ended at once")));
        }
    }
    let reader = thread.thread().clone();
    let tasks = Tasks::new();
    let (waking, token) = (reader.clone(), tasks.token());
    tasks.spawn("inotify", watch_directories(events, waking, token));
    Ok(Running { tasks, reader, shared, ended })
}

async fn watch_directories(
    events: Events,
    reader: Thread,
    stop: tokio_util::sync::CancellationToken,
) {
    if let Err(error) = events.run(reader, stop).await {
        // The scan goes on by itself.
        warn!(%error, "inotify ended; changes are seen by scanning only");
    }
}

impl Running {
    /// Every watched file, as of half a second ago.
    pub fn files(&self) -> Vec<FileStatus> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops reading, waits for acknowledgements as long as the configuration says, and writes the
    /// registry. What was not acknowledged is read again by the next start.
    pub async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.reader.unpark();
        let _ = self.ended.wait_for(Option::is_some).await;
        self.tasks.shutdown().await;
    }

    /// Resolves with the reason if the shipper ends by itself.
    pub async fn failed(&self) -> String {
        let mut ended = self.ended.clone();
        loop {
            if let Some(Err(error)) = &*ended.borrow_and_update() {
                return error.clone();
            }
            if ended.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct Reader {
    config: Config,
    contents: Contents,
    watcher: Watcher,
    shared: Arc<Shared>,
    /// Held until the registry was written for the last time.
    data: DataDirectory,
}

impl Reader {
    fn run(
        mut self,
        journal: FileJournal,
        ready: &std::sync::mpsc::SyncSender<Result<(), StartError>>,
    ) -> Result<(), String> {
        let sender = match KafkaSender::start(&self.config.output, std::thread::current()) {
            Ok(sender) => sender,
            Err(error) => {
                let _ = ready.send(Err(error.into()));
                return Ok(());
            }
        };
        let _ = ready.send(Ok(()));
        let mut engine = Engine::new(
            &self.config,
            RealDisk,
            sender,
            journal,
            std::mem::take(&mut self.contents),
            now(),
            rand::random,
        );
        info!(inputs = self.config.inputs.len(), registry = %self.data.path().display(), "shipper started");
        let mut status_due = Instant::now();
        let mut scans = 0;
        while !self.shared.stop.load(Ordering::SeqCst) {
            let changes = self.watcher.take();
            for path in &changes.paths {
                engine.wake_path(path);
            }
            if changes.rescan {
                engine.rescan();
            }
            let next = engine.turn(now());
            if engine.scans() != scans {
                scans = engine.scans();
                if self.watcher.watch(&engine.directories()) {
                    engine.rescan();
                }
            }
            if Instant::now() >= status_due {
                self.publish(&engine);
                status_due = Instant::now() + STATUS_INTERVAL;
            }
            if let Next::At(at) = next {
                if engine.is_short_of_credit() {
                    engine.sender.wait_for_credit();
                    if engine.sender.has_acks() {
                        continue;
                    }
                }
                std::thread::park_timeout(at.saturating_duration_since(Instant::now()));
            }
        }
        self.stop(engine)
    }

    fn publish(&self, engine: &Engine<RealDisk, KafkaSender, FileJournal>) {
        *self.shared.files.lock().unwrap_or_else(PoisonError::into_inner) = engine.files();
    }

    fn stop(&self, mut engine: Engine<RealDisk, KafkaSender, FileJournal>) -> Result<(), String> {
        engine.stop_reading();
        let deadline = Instant::now() + self.config.shutdown_timeout;
        engine.turn(now());
        while engine.in_flight_bytes() > 0 && Instant::now() < deadline {
            engine.sender.wait_for_credit();
            if !engine.sender.has_acks() {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            engine.turn(now());
        }
        let unacknowledged_bytes = engine.in_flight_bytes();
        if unacknowledged_bytes > 0 {
            warn!(
                unacknowledged_bytes,
                "stopped before everything was acknowledged; it will be read again"
            );
        }
        let saved = engine.save();
        self.publish(&engine);
        let Engine { sender, journal, .. } = engine;
        sender.stop();
        drop(journal);
        info!("shipper stopped");
        saved.map_err(|error| format!("write the registry: {error}"))
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_ms: unix.as_millis() as u64 }
}

/// `wanted`, or half of what the process may open, after raising that as far as allowed.
fn open_file_limit(wanted: usize) -> usize {
    let allowed = elkfk_base::open_files::raise_limit();
    let half = (allowed.saturating_sub(RESERVED_DESCRIPTORS) / 2).clamp(16, 1 << 20) as usize;
    if wanted == 0 { half } else { wanted.min(half) }
}
