//! What this broker holds of each topic: the cluster's word put onto the disk.
//!
//! Today the word comes from the znodes; LeaderAndIsr and StopReplica will speak to the same
//! functions.

use std::sync::Arc;

use elkfk_wire::kafka::records::LeaderEpoch;
use tracing::{error, warn};

use crate::cluster::{OFFSETS_TOPIC, Topic};
use crate::config::{Config, log_config};
use crate::group::shell::Coordinator;
use crate::log::LogManager;
use crate::partition::{BrokerId, Partition};

#[derive(Debug)]
pub(crate) struct Replicas {
    config: Arc<Config>,
    broker_id: i32,
    logs: Arc<LogManager>,
    groups: Arc<Coordinator>,
}

impl Replicas {
    pub(crate) fn new(
        config: Arc<Config>,
        broker_id: i32,
        logs: Arc<LogManager>,
        groups: Arc<Coordinator>,
    ) -> Self {
        Self { config, broker_id, logs, groups }
    }

    /// Makes, leads or follows this broker's partitions of the topic, with its configuration.
    pub(crate) async fn topic_changed(self: &Arc<Self>, name: &str, topic: &Topic) {
        let (this, name, topic) = (self.clone(), name.to_owned(), topic.clone());
        let work = move || this.apply(&name, &topic);
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            error!(%error, "partitions were not made");
        }
    }

    fn apply(&self, name: &str, topic: &Topic) {
        let config = log_config(&self.config, &topic.config);
        for (number, state) in topic.partitions.iter().enumerate() {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            if !state.replicas.contains(&self.broker_id) {
                continue;
            }
            let partition = match self.logs.create(name, Some(topic.id.0), number, config.clone()) {
                Ok(partition) => partition,
                Err(error) => {
                    error!(topic = name, partition = number, %error, "partition is offline here");
                    continue;
                }
            };
            let epoch = LeaderEpoch(state.leader_epoch);
            if state.leader == self.broker_id {
                let followers: Vec<BrokerId> = state
                    .isr
                    .iter()
                    .copied()
                    .filter(|id| *id != self.broker_id)
                    .map(BrokerId)
                    .collect();
                if let Err(error) =
                    partition.become_leader(BrokerId(self.broker_id), epoch, &followers)
                {
                    warn!(topic = name, partition = number, %error, "partition cannot be led");
                }
            } else if state.leader >= 0 {
                partition.become_follower(epoch);
            }
            if name == OFFSETS_TOPIC {
                self.coordinate(&partition, state.leader);
            }
        }
        if name == OFFSETS_TOPIC {
            self.groups.set_partitions(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
        }
    }

    fn coordinate(&self, partition: &Arc<Partition>, leader: i32) {
        if leader == self.broker_id {
            self.groups.lead(partition);
        } else {
            self.groups.resign(partition.partition());
        }
    }

    /// Takes away what this broker holds of a topic that is gone.
    pub(crate) async fn topic_deleted(self: &Arc<Self>, name: &str, topic: &Topic) {
        if name == OFFSETS_TOPIC {
            self.groups.set_partitions(0);
        } else {
            self.groups.topic_deleted(name);
        }
        let (this, owned, count) = (self.clone(), name.to_owned(), topic.partitions.len());
        let work = move || {
            for number in 0..i32::try_from(count).unwrap_or(i32::MAX) {
                if let Err(error) = this.logs.delete(&owned, number) {
                    error!(topic = owned, partition = number, %error, "partition was not deleted");
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            error!(topic = name, %error, "topic was not deleted");
        }
    }
}
