//! Starting and stopping a broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elkfk_base::Tasks;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::broker::Broker;
use crate::cluster::{self, Cluster, ClusterError};
use crate::config::{self, Config, Listener};
use crate::group::shell::Coordinator;
use crate::log::{Durability, LogConfig, LogManager, OpenError, SystemDisk, meta_properties};
use crate::metrics;
use crate::replicas::Replicas;
use crate::server::{ListenError, Memory, Server, bind};

/// Why the broker did not start. The text names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(
        "broker.id {given} contradicts broker.id {found} in {path}/meta.properties; correct one of them"
    )]
    OtherId { given: i32, found: i32, path: String },
    #[error("start was interrupted")]
    Interrupted,
}

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    broker: Arc<Broker>,
    /// Accepting and connections: these stop first.
    server_tasks: Tasks,
    /// Groups and upkeep of the logs.
    work_tasks: Tasks,
    /// The ZooKeeper session: it ends last, so that nobody takes over what is still being written.
    cluster_tasks: Tasks,
    addresses: Vec<SocketAddr>,
}

/// Starts a broker; it serves, and has its place in the cluster, when this returns.
///
/// # Errors
/// When an address, a log directory or ZooKeeper cannot be used, or the broker id is taken.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let started = Instant::now();
    for warning in &config.warnings.0 {
        warn!("{warning}");
    }
    let config = Arc::new(config);
    // The address first: a second start of the same broker should say that, before anything else.
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        listeners.push((listener.clone(), bind(&config, listener).await?));
    }
    let connected = cluster::connect(&config).await?;
    let started = async {
        let broker_id = broker_id(&config, &connected).await?;
        let logs = open_logs(&config, broker_id, &connected.cluster_id).await?;
        Ok::<_, StartError>((broker_id, logs, started))
    };
    let (broker_id, logs, started) = match started.await {
        Ok(parts) => parts,
        Err(error) => {
            connected.client.close().await;
            return Err(error);
        }
    };
    let (server_tasks, work_tasks, cluster_tasks) = (Tasks::new(), Tasks::new(), Tasks::new());
    let endpoints = endpoints(&config, &listeners);
    let cluster = Arc::new(Cluster::new(config.clone(), &connected, broker_id, endpoints));
    let groups = Arc::new(Coordinator::new(&config, work_tasks.clone()));
    let replicas = Arc::new(Replicas::new(config.clone(), broker_id, logs.clone(), groups.clone()));
    let broker = Arc::new(Broker {
        answers: Memory::new(config.request_memory_bytes),
        config,
        cluster: cluster.clone(),
        logs: logs.clone(),
        groups: groups.clone(),
    });
    let addresses = listeners.iter().filter_map(|(_, socket)| socket.local_addr().ok()).collect();
    let running =
        Running { broker: broker.clone(), server_tasks, work_tasks, cluster_tasks, addresses };

    let (ready, is_ready) = oneshot::channel();
    let follow = cluster::follow(cluster.clone(), replicas, running.cluster_tasks.clone(), ready);
    running.cluster_tasks.spawn("cluster", follow);
    match is_ready.await {
        Ok(Ok(())) => {}
        failed => {
            running.stop().await;
            return Err(match failed {
                Ok(Err(error)) => error.into(),
                _ => StartError::Interrupted,
            });
        }
    }
    logs.start(&running.work_tasks);
    running.work_tasks.spawn("groups", groups.run());
    running.work_tasks.spawn("metrics", measure(cluster, running.work_tasks.clone()));
    let server = Arc::new(Server::new(broker, running.server_tasks.clone()));
    for (listener, socket) in listeners {
        running.server_tasks.spawn("accept", server.clone().accept(socket, listener.name));
    }
    info!(
        id = broker_id,
        addresses = ?running.addresses,
        partitions = logs.partitions().len(),
        ms = started.elapsed().as_millis() as u64,
        "broker started"
    );
    Ok(running)
}

/// The id given, else the one this broker had before, else a new one.
async fn broker_id(config: &Config, connected: &cluster::Connected) -> Result<i32, StartError> {
    let mut found = None;
    for path in &config.log_dirs {
        if let Some(meta) = meta_properties(&SystemDisk, path)? {
            found = Some((meta.broker_id, path.display().to_string()));
        }
    }
    match (config.broker_id, found) {
        (given, Some((found, path))) if given >= 0 && found >= 0 && given != found => {
            Err(StartError::OtherId { given, found, path })
        }
        (-1, Some((found, _))) if found >= 0 => Ok(found),
        (-1, _) if config.value("broker.id.generation.enable") == Some("false") => {
            Err(ClusterError::NoId.into())
        }
        (-1, _) => {
            let reserved = config.reserved_broker_id_max;
            Ok(cluster::generate_broker_id(&connected.client, reserved).await?)
        }
        (given, _) => Ok(given),
    }
}

async fn open_logs(
    config: &Arc<Config>,
    broker_id: i32,
    cluster_id: &str,
) -> Result<Arc<LogManager>, StartError> {
    let ms = |key: &str| Duration::from_millis(config.number(key).max(0).unsigned_abs());
    let log_config = LogConfig {
        directories: config.log_dirs.clone(),
        broker_id,
        cluster_id: Some(cluster_id.to_owned()),
        topic_defaults: config::log_config(config, &Default::default()),
        durability: match config.durability {
            config::Durability::Kafka => Durability::Kafka,
            config::Durability::Group | config::Durability::Always => Durability::Group,
        },
        recovery_threads: usize::try_from(config.number("num.recovery.threads.per.data.dir"))
            .unwrap_or(1),
        retention_check_interval: config.retention_check,
        checkpoint_interval: ms("log.flush.offset.checkpoint.interval.ms"),
        high_watermark_interval: ms("replica.high.watermark.checkpoint.interval.ms"),
        producer_expiration: ms("producer.id.expiration.ms"),
        reserve_bytes: config.number("elkfk.log.reserve.bytes").max(0).unsigned_abs(),
        open_files_max: open_files_max(),
        ..LogConfig::default()
    };
    let opened = tokio::task::spawn_blocking(move || LogManager::open(log_config)).await;
    Ok(opened.map_err(|_| StartError::Interrupted)??)
}

/// A quarter of what the process may open is for sealed segments; each partition keeps one more open,
/// and connections and the other boxes want theirs.
fn open_files_max() -> usize {
    let allowed = elkfk_base::open_files::raise_limit();
    usize::try_from(allowed / 4).unwrap_or(usize::MAX).clamp(64, OPEN_FILES_MOST)
}

/// More would save opening a file that is read once in a while, for a descriptor each.
const OPEN_FILES_MOST: usize = 10_000;

/// What goes into the registration: the advertised listeners, else where we listen.
fn endpoints(config: &Config, listeners: &[(Listener, TcpListener)]) -> Vec<(String, String, u16)> {
    if !config.advertised_listeners.is_empty() {
        let advertised = config.advertised_listeners.iter();
        return advertised.map(|it| (it.name.clone(), it.host.clone(), it.port)).collect();
    }
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let endpoints = listeners.iter().map(|(listener, socket)| {
        let host = match listener.host.as_str() {
            "" | "0.0.0.0" | "::" => host_name.clone(),
            host => host.to_owned(),
        };
        (listener.name.clone(), host, socket.local_addr().map_or(listener.port, |it| it.port()))
    });
    endpoints.collect()
}

/// Keeps the gauges of the cluster.
async fn measure(cluster: Arc<Cluster>, tasks: Tasks) {
    let mut images = cluster.watch_image();
    loop {
        {
            let image = images.borrow_and_update();
            let partitions: usize = image.topics.values().map(|topic| topic.partitions.len()).sum();
            metrics::TOPICS.set(i64::try_from(image.topics.len()).unwrap_or(i64::MAX));
            metrics::PARTITIONS.set(i64::try_from(partitions).unwrap_or(i64::MAX));
            metrics::CONTROLLER.set((image.controller == cluster.broker_id).into());
        }
        tokio::select! {
            () = tasks.stopping() => return,
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}

impl Running {
    /// Where the first listener listens; its port is a real one where 0 was asked for.
    ///
    /// # Panics
    /// Never: a configuration has at least one listener.
    pub fn local_addr(&self) -> SocketAddr {
        *self.addresses.first().expect("there is a listener")
    }

    /// Where all listeners listen, in the order of `listeners`.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn broker_id(&self) -> i32 {
        self.broker.id()
    }

    /// The id in `/cluster/id`.
    pub fn cluster_id(&self) -> &str {
        &self.broker.cluster.cluster_id
    }

    /// Stops taking requests, syncs and closes the logs, leaves the cluster.
    pub async fn stop(self) {
        self.server_tasks.shutdown().await;
        self.work_tasks.shutdown().await;
        let logs = self.broker.logs.clone();
        let _ = tokio::task::spawn_blocking(move || logs.shutdown()).await;
        self.cluster_tasks.shutdown().await;
        info!("broker stopped");
    }

    /// Resolves with the cause once a log directory has failed and its partitions with it.
    pub async fn failed(&self) -> String {
        let (path, cause) = self.broker.logs.failed().await;
        format!("log directory {} has failed: {cause}", path.display())
    }
}
