//! Indexes events for search; answers Elasticsearch's HTTP API.
//!
//! An index is a directory with one tantivy index. A `_bulk` is answered when its documents are on
//! disk and searchable. See `docs/store.md` for what of the API is honoured.

pub mod aggs;
pub mod analysis;
mod api;
pub mod cluster;
pub mod dates;
pub mod engine;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod index;
pub mod json;
pub mod mapping;
pub mod metrics;
pub mod search;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use elkfk_base::Tasks;
use elkfk_base::durable::{DataDirectory, DirectoryError};
use tokio::net::TcpListener;
use tokio::sync::watch;

use engine::Engine;

/// Version of the layout under the data directory.
const FORMAT_VERSION: u32 = 1;

/// How a store runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes any.
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// Indices older than this many days are removed; `None` keeps them.
    pub retention_days: Option<u32>,
    /// Bytes of bulk requests in hand before further ones get 429.
    pub memory_bytes: u64,
    /// Bytes of one request's body, packed or unpacked.
    pub body_bytes_max: usize,
    /// How long a client may send nothing of a body it has begun.
    pub body_timeout: Duration,
    /// Bytes of one document.
    pub document_bytes_max: usize,
    /// After which a search answers with what it has and `timed_out`.
    pub search_timeout: Duration,
    /// Searches at a time; others wait.
    pub search_slots: usize,
    /// Memory of one search's aggregations.
    pub aggregation_bytes_max: usize,
    /// Buckets of one answer.
    pub buckets_max: usize,
    pub cluster_name: String,
    pub node_name: String,
    /// Writes are refused above this use of the disk, if also less than
    /// `flood_stage_free_bytes_max` is free.
    pub flood_stage_percent: u8,
    pub flood_stage_free_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9200)),
            data_dir: PathBuf::from("data/store"),
            retention_days: None,
            memory_bytes: 64 << 20,
            body_bytes_max: 100 << 20,
            body_timeout: Duration::from_secs(30),
            document_bytes_max: 1 << 20,
            search_timeout: Duration::from_secs(30),
            search_slots: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            aggregation_bytes_max: 128 << 20,
            buckets_max: 65_536,
            cluster_name: "elkfk".into(),
            node_name: "node-1".into(),
            flood_stage_percent: 95,
            flood_stage_free_bytes_max: 10 << 30,
        }
    }
}

/// Why a store did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("listen on {address}: {reason}")]
    Listen { address: SocketAddr, reason: String },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("open the store in {path}: {reason}")]
    Open { path: PathBuf, reason: String },
}

/// A running store.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    tasks: Tasks,
    engine: Arc<Engine>,
    failure: watch::Receiver<Option<String>>,
}

/// Opens the data directory, listens and serves.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let directory = DataDirectory::open(&config.data_dir, FORMAT_VERSION)?;
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| StartError::Listen {
        address,
        reason: match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "address in use; stop the program that holds it or give another with --listen"
                    .to_owned()
            }
            _ => error.to_string(),
        },
    })?;
    let address = listener
        .local_addr()
        .map_err(|error| StartError::Listen { address, reason: error.to_string() })?;
    let path = config.data_dir.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::open(config, directory))
        .await
        .map_err(|error| StartError::Open { path: path.clone(), reason: error.to_string() })?
        .map_err(|error| StartError::Open { path, reason: error.reason().to_owned() })?;
    let engine = Arc::new(engine);
    let tasks = Tasks::new();
    let (failed, failure) = watch::channel(None);
    tasks.spawn("store http", http::serve(listener, engine.clone(), tasks.clone(), failed));
    tasks.spawn("store upkeep", upkeep(engine.clone(), tasks.clone()));
    tracing::info!(%address, "store listens");
    Ok(Running { address, tasks, engine, failure })
}

impl Running {
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Resolves with the reason if the store dies by itself.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        loop {
            if let Some(reason) = failure.borrow_and_update().clone() {
                return reason;
            }
            if failure.changed().await.is_err() {
                // Stopped in order: there is no failure to come.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes no more requests, answers those in hand, closes the indices.
    pub async fn stop(self) {
        self.tasks.shutdown().await;
        let engine = self.engine;
        let _ = tokio::task::spawn_blocking(move || engine.close()).await;
    }
}

/// Retention, the disk's fill, writers and searches that nobody uses any more.
async fn upkeep(engine: Arc<Engine>, tasks: Tasks) {
    const TICK: Duration = Duration::from_secs(5);
    const EXPIRE_EVERY: u32 = 60;
    const WRITER_IDLE_MAX: Duration = Duration::from_secs(300);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0u32;
    loop {
        tokio::select! {
            biased;
            () = tasks.stopping() => break,
            _ = ticks.tick() => {}
        }
        let engine = engine.clone();
        let work = move || {
            engine.watch_disk();
            engine.merge();
            engine.trim(WRITER_IDLE_MAX);
            engine.forget_ids(WRITER_IDLE_MAX);
            engine.contexts.expire();
            if count.is_multiple_of(EXPIRE_EVERY) {
                engine.expire(dates::now_ms());
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "upkeep failed");
        }
        count = count.wrapping_add(1);
    }
}
