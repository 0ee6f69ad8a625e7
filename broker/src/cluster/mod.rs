//! This broker's place in the cluster: Kafka's znodes, on our coordinator or a real ZooKeeper.
//!
//! `session.rs` keeps one ZooKeeper session after the other: it registers the broker, takes part in
//! the election of the controller and follows the znodes, so that what anyone changes is picked up.
//! `controller.rs` is what the elected broker does with them. `admin.rs` is what clients ask for.
//! While ZooKeeper is away, the last [`Image`] goes on being served.

mod admin;
mod controller;
pub(crate) mod image;
mod producer_ids;
mod session;
pub(crate) mod znodes;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use elkfk_coordinator_client as zookeeper;
use tokio::sync::watch;
use tracing::info;
use zookeeper::{Client, CreateMode};

use crate::config::Config;
pub(crate) use admin::{AdminError, NewTopic, Replicas as WantedReplicas, check_name};
pub(crate) use image::{Image, OFFSETS_TOPIC, Topic, is_internal};
pub(crate) use session::follow;

/// Why the broker has no place in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("zookeeper.connect={connect}: {source}")]
    ConnectString { connect: String, source: zookeeper::ConnectStringError },
    #[error(
        "connect to ZooKeeper at {connect}: {source}; start one or give another with zookeeper.connect=host:port"
    )]
    Connect { connect: String, source: zookeeper::Error },
    #[error("{what}: {source}")]
    ZooKeeper { what: &'static str, source: zookeeper::Error },
    #[error("{path} in ZooKeeper does not hold what Kafka writes there")]
    Malformed { path: String },
    #[error(
        "broker.id {id} is taken by a broker at {host}:{port}; stop that one or give this one another broker.id"
    )]
    IdTaken { id: i32, host: String, port: i32 },
    #[error(
        "ZooKeeper holds cluster {found:?}, this broker belongs to {ours:?}; \
         restore ZooKeeper's data or start the broker with new log directories"
    )]
    OtherCluster { found: String, ours: String },
    #[error("no broker id: give broker.id or leave broker.id.generation.enable on")]
    NoId,
}

/// Names what was being done, for [`ClusterError::ZooKeeper`].
trait While<T> {
    fn during(self, what: &'static str) -> Result<T, ClusterError>;
}

impl<T> While<T> for Result<T, zookeeper::Error> {
    fn during(self, what: &'static str) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError::ZooKeeper { what, source })
    }
}

/// The first session, before the broker knows who it is.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) cluster_id: String,
}

/// How long a request of a client may wait for ZooKeeper and the controller at most.
pub(crate) const ADMIN_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the rest of the broker sees of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: Arc<Config>,
    pub(crate) broker_id: i32,
    pub(crate) cluster_id: String,
    /// Of the current session; replaced when that expires.
    client: Mutex<Client>,
    image: watch::Sender<Arc<Image>>,
    producer_ids: tokio::sync::Mutex<producer_ids::Block>,
    /// Listener name, host and port as other brokers and clients are told.
    endpoints: Vec<(String, String, u16)>,
}

impl Cluster {
    pub(crate) fn new(
        config: Arc<Config>,
        connected: &Connected,
        broker_id: i32,
        endpoints: Vec<(String, String, u16)>,
    ) -> Self {
        let image = Image { controller: -1, ..Image::default() };
        Self {
            config,
            broker_id,
            cluster_id: connected.cluster_id.clone(),
            client: Mutex::new(connected.client.clone()),
            image: watch::Sender::new(Arc::new(image)),
            producer_ids: tokio::sync::Mutex::default(),
            endpoints,
        }
    }

    /// The cluster as it is known now.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    pub(crate) fn watch_image(&self) -> watch::Receiver<Arc<Image>> {
        self.image.subscribe()
    }

    pub(crate) fn client(&self) -> Client {
        self.client.lock().expect("no panic while held").clone()
    }
}

fn client_config(config: &Config) -> Result<zookeeper::Config, ClusterError> {
    let connect = &config.zookeeper_connect;
    let mut parsed = zookeeper::Config::parse(connect)
        .map_err(|source| ClusterError::ConnectString { connect: connect.clone(), source })?;
    parsed.session_timeout = config.zookeeper_session_timeout;
    parsed.connect_timeout = config.zookeeper_connection_timeout;
    Ok(parsed)
}

/// Connects, creates what every cluster has, and learns or decides the cluster's id.
pub(crate) async fn connect(config: &Config) -> Result<Connected, ClusterError> {
    let parsed = client_config(config)?;
    let connect = config.zookeeper_connect.clone();
    let failed = |source| ClusterError::Connect { connect: connect.clone(), source };
    if !parsed.chroot.is_empty() {
        let mut root = parsed.clone();
        root.chroot = String::new();
        let client = Client::connect(root).await.map_err(failed)?;
        client.create_all(&parsed.chroot).await.during("create the chroot")?;
        client.close().await;
    }
    let client = Client::connect(parsed).await.map_err(failed)?;
    for path in znodes::PERSISTENT {
        client.create_all(path).await.during("create Kafka's znodes")?;
    }
    let cluster_id = cluster_id(&client).await?;
    create_if_missing(&client, znodes::FEATURE, znodes::encode_feature().as_bytes()).await?;
    Ok(Connected { client, cluster_id })
}

async fn cluster_id(client: &Client) -> Result<String, ClusterError> {
    let fresh = elkfk_wire::kafka::Uuid(rand::random()).to_string();
    client.create_all("/cluster").await.during("create /cluster")?;
    create_if_missing(client, znodes::CLUSTER_ID, znodes::encode_cluster_id(&fresh).as_bytes())
        .await?;
    let (data, _) = client.get(znodes::CLUSTER_ID).await.during("read the cluster id")?;
    znodes::decode_cluster_id(&data)
        .ok_or_else(|| ClusterError::Malformed { path: znodes::CLUSTER_ID.into() })
}

async fn create_if_missing(client: &Client, path: &str, data: &[u8]) -> Result<(), ClusterError> {
    match client.create(path, data, CreateMode::Persistent).await {
        Err(error) if !error.is_node_exists() => Err(error).during("create Kafka's znodes"),
        _ => Ok(()),
    }
}

/// A broker id above those given by hand, as Kafka generates it.
pub(crate) async fn generate_broker_id(
    client: &Client,
    reserved_max: i32,
) -> Result<i32, ClusterError> {
    let stat = client.set(znodes::BROKER_SEQID, b"", None).await.during("generate a broker id")?;
    let id = stat.version.saturating_add(reserved_max);
    info!(id, "broker id generated");
    Ok(id)
}
