//! One ZooKeeper session after the other.
//!
//! Within a session: register, try to be the controller, read everything with watches, then follow
//! the watches. Whatever goes wrong, the next round reads everything again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use elkfk_base::{Tasks, now_ms};
use elkfk_coordinator_client::{Client, CreateMode, Op, SessionId};
use elkfk_wire::kafka::Uuid;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::controller::{self, Term};
use super::image::{Image, NO_LEADER, PartitionState, Topic};
use super::{Cluster, ClusterError, While, client_config, znodes};
use crate::replicas::Replicas;

/// Kafka keeps notifications of configuration changes this long.
const CHANGES_KEPT: Duration = Duration::from_secs(15 * 60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What a watch said.
#[derive(Debug)]
enum Event {
    Brokers,
    Topics,
    Topic(String),
    Deletions,
    ConfigChanges,
    Controller,
}

/// Follows the cluster until the tasks are stopped; `ready` hears of the first complete picture, or
/// why there is none.
pub(crate) async fn follow(
    cluster: Arc<Cluster>,
    replicas: Arc<Replicas>,
    tasks: Tasks,
    ready: oneshot::Sender<Result<(), ClusterError>>,
) {
    let mut ready = Some(ready);
    let mut retry = RETRY_FIRST;
    loop {
        let client = cluster.client();
        let mut session = Session::new(&cluster, &replicas, client.clone());
        let ended = tokio::select! {
            () = tasks.stopping() => break,
            ended = session.run(&mut ready, &mut retry) => ended,
        };
        drop(session);
        // These do not pass by themselves: who starts the broker should hear of them.
        let is_lasting = matches!(
            ended,
            ClusterError::IdTaken { .. }
                | ClusterError::OtherCluster { .. }
                | ClusterError::Malformed { .. }
        );
        if let Some(ready) = ready.take_if(|_| is_lasting) {
            let _ = ready.send(Err(ended));
            return;
        }
        warn!(error = %ended, retry_ms = retry.as_millis() as u64, "lost touch with ZooKeeper, serving what is known");
        tokio::select! {
            () = tasks.stopping() => break,
            () = tokio::time::sleep(retry) => retry = (retry * 2).min(RETRY_MAX),
        }
        if client.state().borrow().is_over() {
            let config = client_config(&cluster.config).expect("it was read at the start");
            info!("ZooKeeper session is over, starting another");
            *cluster.client.lock().expect("no panic while held") = Client::start(config);
        }
    }
    // Closing the session takes the registration and the controllership with it at once.
    let client = cluster.client();
    let _ = tokio::time::timeout(Duration::from_secs(2), client.close()).await;
}

struct Session<'a> {
    cluster: &'a Arc<Cluster>,
    replicas: &'a Arc<Replicas>,
    client: Client,
    /// While this broker is the controller.
    term: Option<Term>,
    image: Image,
    watches: JoinSet<Event>,
    /// Highest notification of a configuration change that was taken in.
    last_change: Option<String>,
    /// Topics whose own znode, or states, are being watched.
    watched: BTreeSet<String>,
}

impl<'a> Session<'a> {
    fn new(cluster: &'a Arc<Cluster>, replicas: &'a Arc<Replicas>, client: Client) -> Self {
        let mut image = Image::clone(&cluster.image());
        image.controller = -1;
        Self {
            cluster,
            replicas,
            client,
            term: None,
            image,
            watches: JoinSet::new(),
            last_change: None,
            watched: BTreeSet::new(),
        }
    }

    /// Runs until something fails, and returns what.
    async fn run(
        &mut self,
        ready: &mut Option<oneshot::Sender<Result<(), ClusterError>>>,
        retry: &mut Duration,
    ) -> ClusterError {
        if let Err(error) = self.begin().await {
            return error;
        }
        *retry = RETRY_FIRST;
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(()));
        }
        let mut state = self.client.state();
        loop {
            let event = tokio::select! {
                Some(event) = self.watches.join_next() => event,
                ended = state.wait_for(|state| state.is_over()) => {
                    drop(ended);
                    return ClusterError::ZooKeeper {
                        what: "follow the cluster",
                        source: elkfk_coordinator_client::Error::SessionExpired,
                    };
                }
            };
            let Ok(event) = event else { continue };
            debug!(?event, "znodes changed");
            if let Err(error) = self.on_event(event).await {
                return error;
            }
        }
    }

    async fn begin(&mut self) -> Result<(), ClusterError> {
        self.check_cluster().await?;
        self.register().await?;
        self.read_controller().await?;
        self.read_brokers().await?;
        self.read_config_changes().await?;
        self.read_topics().await?;
        self.read_deletions().await?;
        self.manage().await?;
        self.publish();
        Ok(())
    }

    /// Another cluster's znodes, as after a wiped ZooKeeper, must not be taken for ours.
    async fn check_cluster(&self) -> Result<(), ClusterError> {
        let found = match self.client.get(znodes::CLUSTER_ID).await {
            Ok((data, _)) => znodes::decode_cluster_id(&data).unwrap_or_default(),
            Err(error) if error.is_no_node() => String::new(),
            Err(error) => return Err(error).during("read the cluster id"),
        };
        match found == self.cluster.cluster_id {
            true => Ok(()),
            false => {
                Err(ClusterError::OtherCluster { found, ours: self.cluster.cluster_id.clone() })
            }
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), ClusterError> {
        match event {
            Event::Brokers => self.read_brokers().await?,
            Event::Topics => self.read_topics().await?,
            Event::Topic(name) => {
                self.watched.remove(&name);
                self.read_topic(&name).await?;
            }
            Event::Deletions => self.read_deletions().await?,
            Event::ConfigChanges => self.read_config_changes().await?,
            Event::Controller => {
                self.read_controller().await?;
                // A new controller writes states that the old one would have told us of.
                self.watched.clear();
                self.read_topics().await?;
            }
        }
        self.manage().await?;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        self.cluster.image.send_replace(Arc::new(self.image.clone()));
    }

    /// As the task is dropped with the session, so is the watch.
    fn watch(&mut self, watch: elkfk_coordinator_client::Watch, event: Event) {
        self.watches.spawn(async move {
            watch.await;
            event
        });
    }

    async fn register(&mut self) -> Result<(), ClusterError> {
        let path = znodes::broker(self.cluster.broker_id);
        let data = znodes::encode_broker(
            &self.cluster.endpoints,
            self.cluster.config.rack.as_deref(),
            now_ms(),
        );
        let acl = vec![elkfk_coordinator_client::Acl::OPEN];
        let ops = [
            Op::Create { path: path.clone(), data: None, acl, mode: CreateMode::Ephemeral },
            Op::set(&path, data, Some(0)),
        ];
        let deadline =
            tokio::time::Instant::now() + self.cluster.config.zookeeper_session_timeout * 2;
        loop {
            match self.client.multi(&ops).await {
                Ok(_) => {
                    info!(id = self.cluster.broker_id, endpoints = ?self.cluster.endpoints, "broker registered");
                    return Ok(());
                }
                Err(error) if error.is_node_exists() => {
                    if self.make_way(&path, deadline).await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error).during("register the broker"),
            }
        }
    }

    /// Someone is registered under our id. `true`: ourselves, in this session.
    async fn make_way(
        &self,
        path: &str,
        deadline: tokio::time::Instant,
    ) -> Result<bool, ClusterError> {
        let (data, stat) = match self.client.get(path).await {
            Ok(found) => found,
            Err(error) if error.is_no_node() => return Ok(false),
            Err(error) => return Err(error).during("register the broker"),
        };
        if stat.ephemeral_owner == self.client.session_id() {
            return Ok(true);
        }
        let id = self.cluster.broker_id;
        let other = znodes::decode_broker(&data, stat.czxid.0);
        let is_ours = other.as_ref().is_some_and(|other| {
            let ours = self.cluster.endpoints.first();
            ours.is_some_and(|(_, host, port)| {
                *host == other.host && i32::from(*port) == other.port
            })
        });
        if is_ours {
            // This process listens at that very address: who registered it is dead, and waiting for
            // its session to expire would only delay us.
            self.remove_stale(path, stat.ephemeral_owner).await?;
            return Ok(false);
        }
        let taken = |host: &str, port| ClusterError::IdTaken { id, host: host.into(), port };
        if let Some(other) = &other
            && is_answering(&other.host, other.port).await
        {
            return Err(taken(&other.host, other.port));
        }
        if tokio::time::Instant::now() > deadline {
            return Err(other.map_or_else(|| taken("?", 0), |other| taken(&other.host, other.port)));
        }
        info!(id, "waiting for the session of an earlier broker with this id to end");
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(false)
    }

    async fn remove_stale(&self, path: &str, owner: SessionId) -> Result<(), ClusterError> {
        info!(path, session = ?owner, "removing what an earlier run of this broker left");
        if let Ok((_, stat)) = self.client.get(znodes::CONTROLLER).await
            && stat.ephemeral_owner == owner
        {
            let _ = self.client.delete(znodes::CONTROLLER, Some(stat.version)).await;
        }
        match self.client.delete(path, None).await {
            Err(error) if !error.is_no_node() => Err(error).during("remove a stale registration"),
            _ => Ok(()),
        }
    }

    async fn read_controller(&mut self) -> Result<(), ClusterError> {
        loop {
            let (stat, watch) =
                self.client.exists_watch(znodes::CONTROLLER).await.during("read the controller")?;
            if stat.is_none() {
                self.term =
                    controller::elect(&self.client, self.cluster.broker_id, now_ms()).await?;
                continue;
            }
            let (data, stat) = match self.client.get(znodes::CONTROLLER).await {
                Ok(found) => found,
                Err(error) if error.is_no_node() => continue,
                Err(error) => return Err(error).during("read the controller"),
            };
            self.image.controller = znodes::decode_controller(&data).unwrap_or(-1);
            if stat.ephemeral_owner != self.client.session_id() {
                self.term = None;
            } else if self.term.is_none() {
                // Ours from an earlier round of this session: its epoch is not at hand, so once more.
                self.client.delete(znodes::CONTROLLER, None).await.during("resign")?;
                continue;
            }
            self.watch(watch, Event::Controller);
            return Ok(());
        }
    }

    async fn read_brokers(&mut self) -> Result<(), ClusterError> {
        let (ids, _, watch) =
            self.client.children_watch(znodes::BROKER_IDS).await.during("read the brokers")?;
        self.watch(watch, Event::Brokers);
        let mut brokers = BTreeMap::new();
        for id in ids.iter().filter_map(|id| id.parse().ok()) {
            match self.client.get(&znodes::broker(id)).await {
                Ok((data, stat)) => {
                    if let Some(broker) = znodes::decode_broker(&data, stat.czxid.0) {
                        brokers.insert(id, broker);
                    }
                }
                Err(error) if error.is_no_node() => {}
                Err(error) => return Err(error).during("read the brokers"),
            }
        }
        self.image.brokers = brokers;
        Ok(())
    }

    async fn read_topics(&mut self) -> Result<(), ClusterError> {
        let (names, _, watch) =
            self.client.children_watch(znodes::TOPICS).await.during("read the topics")?;
        self.watch(watch, Event::Topics);
        let names: BTreeSet<String> = names.into_iter().collect();
        let gone: Vec<String> =
            self.image.topics.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.forget(&name).await;
        }
        for name in &names {
            if !self.watched.contains(name) {
                self.read_topic(name).await?;
            }
        }
        Ok(())
    }

    /// The topic is gone from ZooKeeper; so it goes from here.
    ///
    /// Its logs go only if it was marked for deletion: znodes that vanish without that are an
    /// operator's slip, or a ZooKeeper that lost its data, and must not take the records with them.
    async fn forget(&mut self, name: &str) {
        self.watched.remove(name);
        let Some(topic) = self.image.topics.get(name).cloned() else { return };
        self.image.remove(name);
        if topic.is_being_deleted {
            self.replicas.topic_deleted(name, &topic).await;
        } else {
            warn!(
                topic = name,
                "topic vanished from ZooKeeper without being deleted, its logs are kept"
            );
        }
    }

    async fn read_topic(&mut self, name: &str) -> Result<(), ClusterError> {
        let path = znodes::topic(name);
        let (data, stat, watch) = match self.client.get_watch(&path).await {
            Ok(found) => found,
            Err(error) if error.is_no_node() => {
                self.forget(name).await;
                return Ok(());
            }
            Err(error) => return Err(error).during("read a topic"),
        };
        self.watch(watch, Event::Topic(name.to_owned()));
        self.watched.insert(name.to_owned());
        let Some((id, replicas)) = znodes::decode_topic(&data) else {
            warn!(path, "znode does not hold what Kafka writes there, topic is left out");
            return Ok(());
        };
        let id = match id {
            Some(id) => id,
            // Kafka's controller gives ids to topics of before 2.8.
            None => {
                let id = Uuid(*uuid::Uuid::new_v4().as_bytes());
                let json = znodes::encode_topic(id, &replicas);
                self.client
                    .set(&path, json.as_bytes(), Some(stat.version))
                    .await
                    .during("give a topic its id")?;
                id
            }
        };
        if let Some(old) = self.image.topics.get(name).cloned()
            && old.id != id
        {
            // Deleted and created anew between two looks (KIP-516).
            self.image.remove(name);
            self.replicas.topic_deleted(name, &old).await;
        }
        let mut partitions = Vec::with_capacity(replicas.len());
        for (number, replicas) in replicas.into_iter().enumerate() {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            match self.read_state(name, number, replicas).await {
                Ok(state) => partitions.push(state),
                // One damaged znode must not keep all the other topics from being served.
                Err(ClusterError::Malformed { path }) => {
                    error!(
                        topic = name,
                        path, "znode does not hold what Kafka writes there, topic is left out"
                    );
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let config = self.read_config(name).await?;
        let is_being_deleted =
            self.image.topics.get(name).is_some_and(|topic| topic.is_being_deleted);
        let topic = Topic { id, partitions, config, is_being_deleted };
        self.put(name, topic).await;
        Ok(())
    }

    async fn read_state(
        &mut self,
        name: &str,
        partition: i32,
        replicas: Vec<i32>,
    ) -> Result<PartitionState, ClusterError> {
        let path = znodes::state(name, partition);
        if self.term.is_none() {
            // Another broker decides: look again when it does.
            let (_, watch) =
                self.client.exists_watch(&path).await.during("read a partition state")?;
            self.watch(watch, Event::Topic(name.to_owned()));
        }
        match self.client.get(&path).await {
            Ok((data, stat)) => znodes::decode_state(&data, replicas, stat.version)
                .ok_or(ClusterError::Malformed { path }),
            Err(error) if error.is_no_node() => Ok(PartitionState::unelected(replicas)),
            Err(error) => Err(error).during("read a partition state"),
        }
    }

    async fn read_config(&self, name: &str) -> Result<BTreeMap<String, String>, ClusterError> {
        match self.client.get(&znodes::topic_config(name)).await {
            Ok((data, _)) => Ok(znodes::decode_config(&data).unwrap_or_default()),
            Err(error) if error.is_no_node() => Ok(BTreeMap::new()),
            Err(error) => Err(error).during("read a topic's configuration"),
        }
    }

    /// Takes the topic into the image, and its partitions onto the disk.
    async fn put(&mut self, name: &str, topic: Topic) {
        let is_new = self.image.topics.get(name).is_none_or(|old| **old != topic);
        if is_new {
            self.replicas.topic_changed(name, &topic).await;
            self.image.insert(name, topic);
        }
    }

    async fn read_deletions(&mut self) -> Result<(), ClusterError> {
        let (names, _, watch) =
            self.client.children_watch(znodes::DELETE_TOPICS).await.during("read deletions")?;
        self.watch(watch, Event::Deletions);
        for name in names {
            if !self.image.topics.contains_key(&name) {
                // Created and marked before the creation was looked at.
                self.read_topic(&name).await?;
            }
            if let Some(topic) = self.image.topics.get(&name) {
                let topic = Topic { is_being_deleted: true, ..Topic::clone(topic) };
                self.image.insert(&name, topic);
            } else if self.term.is_some() {
                // Marked, and not there: nothing but the mark is left.
                let _ = self.client.delete(&znodes::delete_topic(&name), None).await;
            }
        }
        Ok(())
    }

    async fn read_config_changes(&mut self) -> Result<(), ClusterError> {
        let (mut names, _, watch) = self
            .client
            .children_watch(znodes::CONFIG_CHANGES)
            .await
            .during("read configuration changes")?;
        self.watch(watch, Event::ConfigChanges);
        names.sort_unstable();
        let is_first_look = self.last_change.is_none();
        let seen = self.last_change.clone().unwrap_or_default();
        self.last_change = Some(names.last().cloned().unwrap_or_default().max(seen.clone()));
        for name in names {
            let path = format!("{}/{name}", znodes::CONFIG_CHANGES);
            let (data, stat) = match self.client.get(&path).await {
                Ok(found) => found,
                Err(error) if error.is_no_node() => continue,
                Err(error) => return Err(error).during("read configuration changes"),
            };
            if !is_first_look && name > seen {
                self.on_config_change(&data).await?;
            }
            if now_ms() - stat.ctime_ms > CHANGES_KEPT.as_millis() as i64 {
                let _ = self.client.delete(&path, None).await;
            }
        }
        Ok(())
    }

    async fn on_config_change(&mut self, data: &[u8]) -> Result<(), ClusterError> {
        let entity = znodes::decode_config_change(data).unwrap_or_default();
        let Some(name) = entity.strip_prefix("topics/") else {
            debug!(entity, "configuration change of no concern");
            return Ok(());
        };
        let config = self.read_config(name).await?;
        if let Some(topic) = self.image.topics.get(name) {
            info!(topic = name, ?config, "topic configuration changed");
            let topic = Topic { config, ..Topic::clone(topic) };
            self.put(name, topic).await;
        }
        Ok(())
    }

    /// The controller's part: deletions, then leaders.
    async fn manage(&mut self) -> Result<(), ClusterError> {
        let Some(term) = self.term else { return Ok(()) };
        let topics: Vec<(String, Arc<Topic>)> =
            self.image.topics.iter().map(|(name, topic)| (name.clone(), topic.clone())).collect();
        for (name, topic) in topics {
            if topic.is_being_deleted {
                if self.cluster.config.delete_topics {
                    // Nobody may go on writing to what is about to vanish.
                    self.forget(&name).await;
                    self.publish();
                    controller::delete(&self.client, term, &name).await?;
                } else {
                    controller::unmark(&self.client, &name).await?;
                    let topic = Topic { is_being_deleted: false, ..Topic::clone(&topic) };
                    self.image.insert(&name, topic);
                }
                continue;
            }
            let needs_leader = topic.partitions.iter().any(|partition| {
                partition.leader == NO_LEADER || !self.image.brokers.contains_key(&partition.leader)
            });
            if needs_leader
                && let Some(changed) =
                    controller::lead(&self.client, term, &self.image, &name, &topic).await?
            {
                self.put(&name, changed).await;
            }
        }
        Ok(())
    }
}

/// Whether someone accepts connections there.
async fn is_answering(host: &str, port: i32) -> bool {
    let Ok(port) = u16::try_from(port) else { return false };
    let address = (host.to_owned(), port);
    let addresses =
        tokio::task::spawn_blocking(move || address.to_socket_addrs().map(Vec::from_iter));
    let Ok(Ok(addresses)) = addresses.await else { return false };
    let connect = tokio::net::TcpStream::connect(&addresses[..]);
    matches!(tokio::time::timeout(Duration::from_secs(2), connect).await, Ok(Ok(_)))
}
