//! What this broker knows of the cluster: an unchanging picture, replaced whole when it changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use elkfk_wire::kafka::Uuid;

/// The topic that holds what groups committed.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Kafka's other internal topic; nothing is written to it yet.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

pub(crate) fn is_internal(topic: &str) -> bool {
    topic == OFFSETS_TOPIC || topic == TRANSACTIONS_TOPIC
}

/// No leader is known.
pub(crate) const NO_LEADER: i32 = -1;

#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    /// -1: none is elected.
    pub(crate) controller: i32,
    pub(crate) brokers: BTreeMap<i32, BrokerInfo>,
    pub(crate) topics: BTreeMap<String, Arc<Topic>>,
    pub(crate) names: HashMap<Uuid, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerInfo {
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
    /// The czxid of its registration (KIP-380).
    pub(crate) epoch: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    /// By partition number, without gaps.
    pub(crate) partitions: Vec<PartitionState>,
    /// The topic's own settings; the rest is at the broker's defaults.
    pub(crate) config: BTreeMap<String, String>,
    /// Marked in `/admin/delete_topics`.
    pub(crate) is_being_deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) replicas: Vec<i32>,
    /// [`NO_LEADER`] while none is elected.
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) isr: Vec<i32>,
    pub(crate) controller_epoch: i32,
    /// Version of the state's znode: Kafka's partition epoch. -1: there is none yet.
    pub(crate) version: i32,
}

impl PartitionState {
    /// Assigned, and nobody has elected a leader.
    pub(crate) fn unelected(replicas: Vec<i32>) -> Self {
        let (leader, leader_epoch, isr) = (NO_LEADER, 0, Vec::new());
        Self { replicas, leader, leader_epoch, isr, controller_epoch: 0, version: -1 }
    }
}

impl Image {
    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionState> {
        self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)
    }

    pub(crate) fn insert(&mut self, name: &str, topic: Topic) {
        self.names.retain(|_, known| known != name);
        self.names.insert(topic.id, name.to_owned());
        self.topics.insert(name.to_owned(), Arc::new(topic));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.names.retain(|_, known| known != name);
        self.topics.remove(name);
    }
}
