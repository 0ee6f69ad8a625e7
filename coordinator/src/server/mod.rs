//! The shell: opens the data, listens, accepts, stops.

mod link;
mod node;
mod place;
mod words;
mod writer;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use elkfk_base::Tasks;
use elkfk_base::durable::{DataDirectory, DirectoryError, sync_parent};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{info, warn};

pub(crate) use link::Shared;
pub use place::PlaceError;
pub(crate) use words::{
    Asked, Member, Membership, Role, Surroundings, WORDS, directory_bytes, environment, measures,
};

use crate::admin::{self, AdminError};
use crate::config::Config;
use crate::machine::Rules;
use crate::recovery::{Recovered, RecoveryError, recover};
use crate::service::{Now, Service, Settings, WATCH_BYTES_MAX};
use crate::snapshots::SnapshotError;
use crate::wal::disk::{Directory, Disk};
use crate::wal::{SEGMENT_BYTES, WalError};

/// Of the files this program writes below the data directory.
const FORMAT_VERSION: u32 = 1;
/// Our folder below dataDir and dataLogDir: their other files are ZooKeeper's.
const FOLDER: &str = "elkfk";
/// Inputs on their way to the node. Their bytes are counted by the budget.
const INPUTS_QUEUED_MAX: usize = 1024;
/// Bytes of requests all clients together may have unanswered.
const BUDGET_BYTES: usize = 64 << 20;
/// Accepting pauses this long when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "listen on {addr}: address in use; stop the program that holds it or give another with clientPort=…"
    )]
    InUse { addr: SocketAddr },
    #[error("listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(
        "{path} holds the data of a ZooKeeper, which this program does not read; \
         give another dataDir, or move that folder away to start with an empty tree"
    )]
    ZooKeeperData { path: PathBuf },
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("open snapshots in {path}")]
    Snapshots { path: PathBuf, source: SnapshotError },
    #[error("open log in {path}")]
    Log { path: PathBuf, source: WalError },
    #[error("start consensus")]
    Consensus(#[from] raft::Error),
    #[error("coordinator stopped while it started: {0}")]
    Stopped(String),
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
    tasks: Tasks,
    node: Tasks,
    failed: watch::Receiver<Option<String>>,
    _directories: Vec<DataDirectory>,
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops in order: no new clients, what is in flight made durable and answered, then the rest.
    /// Sessions go on when it starts again.
    pub async fn stop(self) {
        // The node first: it hands out the last answers, which the connections then send.
        self.node.shutdown().await;
        self.tasks.shutdown().await;
        info!("coordinator stopped");
    }

    /// Resolves when it can no longer serve, with the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // Told to stop it says nothing here, so this is a panic.
            Err(_) => "its task has ended; the log says why".to_owned(),
        }
    }
}

pub(crate) fn data_path(directory: &Path) -> PathBuf {
    directory.join(FOLDER)
}

/// Starts a coordinator; clients can connect when this returns.
pub async fn start(config: Config) -> Result<Running, StartError> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let started = Instant::now();
    let listener = listen(config.listen).await?;
    let admin = admin::bind(&config.admin).await?;
    let config = Arc::new(config);
    let opening = config.clone();
    // Reading the log back takes as long as it takes, and blocks.
    let (directories, recovered) = tokio::task::spawn_blocking(move || open(&opening))
        .await
        .map_err(|error| StartError::Stopped(error.to_string()))??;

    let running = serve_recovered(listener, admin, config, recovered, started).await?;
    Ok(Running { _directories: directories, ..running })
}

/// Serves what was read back; that began at `started`.
async fn serve_recovered<D: Disk>(
    listener: TcpListener,
    admin: Vec<admin::Bound>,
    config: Arc<Config>,
    recovered: Recovered<D>,
    started: Instant,
) -> Result<Running, StartError> {
    let local_addr = listener
        .local_addr()
        .map_err(|source| StartError::Listen { addr: config.listen, source })?;
    let millis = |timeout: Duration| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let settings = Settings {
        server: config.raft_id(),
        session_timeout_ms_min: millis(config.session_timeout_min()),
        session_timeout_ms_max: millis(config.session_timeout_max()),
        frame_bytes_max: config.frame_bytes_max,
        rules: Rules::default(),
        super_digest: None,
        watch_bytes_max: WATCH_BYTES_MAX,
    };
    let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now = Now { steady_ms: 1, wall_ms: wall.as_millis() as i64 };
    // With the service, not with this start: to read a long log back takes sessions no time.
    let epoch = Instant::now();
    let tree = &recovered.machine.tree;
    let (znodes, digest) = (tree.len(), format!("{:016x}", tree.digest()));
    let service = Service::new(recovered.machine, settings, rand::random(), now);
    let mut snapshot = node::SnapshotState::default();
    snapshot.index = recovered.snapshot_index;

    let (tasks, node_tasks) = (Tasks::new(), Tasks::new());
    let (inputs, received) = mpsc::channel(INPUTS_QUEUED_MAX);
    let shared = Arc::new(link::Shared {
        inputs,
        budget: Semaphore::new(BUDGET_BYTES.max(config.frame_bytes_max * 4)),
        frame_bytes_max: config.frame_bytes_max,
        words: words::Whitelist::new(&config.words),
        open: AtomicUsize::new(0),
        next: AtomicU64::new(1),
        stop: tasks.token(),
    });
    // One batch at a time, and a purge: both fit.
    let (log, log_tasks) = std::sync::mpsc::sync_channel(4);
    let (notifier, notices) = mpsc::channel(16);
    let (failed_sender, failed) = watch::channel(None);
    // Held by the threads alone: when the log's has ended, the node hears of it.
    let weak_notifier = notifier.downgrade();
    let wal = recovered.wal;
    node_tasks.spawn_blocking(move || writer::write_log(wal, &log_tasks, &notifier));
    let node = node::Node {
        service,
        consensus: recovered.consensus,
        config: config.clone(),
        shared: shared.clone(),
        port: local_addr.port(),
        tasks: node_tasks.clone(),
        log,
        notices,
        notifier: weak_notifier,
        failed: failed_sender,
        links: HashMap::new(),
        batches_in_flight: 0,
        last_batch: 0,
        snapshot,
        log_bytes: 0,
        epoch,
    };
    let (ready, is_ready) = oneshot::channel();
    node_tasks.spawn("coordinator", node.run(received, ready, node_tasks.token()));
    if is_ready.await.is_err() {
        let why = failed.borrow().clone().unwrap_or_else(|| "no reason given".to_owned());
        return Err(StartError::Stopped(why));
    }
    for bound in admin {
        tasks.spawn("coordinator admin", admin::serve(bound, shared.clone(), tasks.clone()));
    }
    tasks.spawn("coordinator accept", accept(listener, shared, config, tasks.clone()));
    info!(addr = %local_addr, znodes, digest, after_ms = started.elapsed().as_millis() as u64, "coordinator ready");
    Ok(Running { local_addr, tasks, node: node_tasks, failed, _directories: Vec::new() })
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse { addr },
        _ => StartError::Listen { addr, source },
    })
}

/// Claims the directories and reads what is in them.
fn open(config: &Config) -> Result<(Vec<DataDirectory>, Recovered<Directory>), StartError> {
    let log_dir = config.data_log_dir.as_ref().unwrap_or(&config.data_dir);
    let (path, log_path) = (data_path(&config.data_dir), data_path(log_dir));
    for directory in [&config.data_dir, log_dir] {
        let foreign = directory.join("version-2");
        if foreign.exists() && !data_path(directory).exists() {
            return Err(StartError::ZooKeeperData { path: foreign });
        }
    }
    let mut directories = vec![claim(&path)?];
    if log_path != path {
        directories.push(claim(&log_path)?);
    }
    place::check(&path, &log_path)?;
    let (disk, log_disk) = (Directory::new(&path), Directory::new(&log_path));
    let recovered =
        recover(disk, log_disk, config.raft_id(), SEGMENT_BYTES).map_err(|error| match error {
            RecoveryError::Snapshots(source) => {
                StartError::Snapshots { path: path.clone(), source }
            }
            RecoveryError::Log(source) => StartError::Log { path: log_path.clone(), source },
            RecoveryError::Consensus(source) => StartError::Consensus(source),
        })?;
    place::record(&path, &log_path)?;
    Ok((directories, recovered))
}

pub(crate) fn claim(path: &Path) -> Result<DataDirectory, DirectoryError> {
    let directory = DataDirectory::open(path, FORMAT_VERSION)?;
    // Or a power cut could take the folder away with all that was made durable in it. What is above
    // need not be readable for us; where it is not, it was made before.
    for path in path.ancestors().take(2) {
        let _ = sync_parent(path);
    }
    Ok(directory)
}

/// How many connections each address has.
type PerAddress = Arc<Mutex<HashMap<IpAddr, usize>>>;

async fn accept(
    listener: TcpListener,
    shared: Arc<link::Shared>,
    config: Arc<Config>,
    tasks: Tasks,
) {
    let per_address = PerAddress::default();
    loop {
        let accepted = tokio::select! {
            () = tasks.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "connections cannot be accepted for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(counted) = Counted::new(&per_address, peer.ip(), config.client_connections_max)
        else {
            crate::metrics::REFUSED_CONNECTIONS.inc();
            warn!(%peer, limit = config.client_connections_max, "too many connections from this address (maxClientCnxns)");
            continue;
        };
        let shared = shared.clone();
        tasks.spawn("coordinator client", serve(shared, stream, peer, counted));
    }
}

async fn serve(shared: Arc<link::Shared>, stream: TcpStream, peer: SocketAddr, counted: Counted) {
    shared.open.fetch_add(1, Ordering::Relaxed);
    link::serve(shared.clone(), stream, peer).await;
    shared.open.fetch_sub(1, Ordering::Relaxed);
    drop(counted);
}

/// One connection of an address, counted while it lives.
struct Counted {
    per_address: PerAddress,
    addr: IpAddr,
}

impl Counted {
    /// `None` where the address has as many as it may; a `limit` of 0 is none.
    fn new(per_address: &PerAddress, addr: IpAddr, limit: usize) -> Option<Self> {
        let mut counts = per_address.lock().expect("no panic while held");
        let count = counts.entry(addr).or_default();
        if limit > 0 && *count >= limit {
            return None;
        }
        *count += 1;
        Some(Self { per_address: per_address.clone(), addr })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.per_address.lock().expect("no panic while held");
        if let Some(count) = counts.get_mut(&self.addr) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.addr);
            }
        }
    }
}

#[cfg(test)]
mod tests;
