//! The broker's parts, as its APIs see them.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;

use crate::cluster::{Cluster, Image};
use crate::config::Config;
use crate::group::shell::Coordinator;
use crate::log::LogManager;
use crate::partition::Partition;
use crate::server::Memory;

/// Shared by everything that answers requests.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: Arc<Config>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) logs: Arc<LogManager>,
    pub(crate) groups: Arc<Coordinator>,
    /// Records on their way to consumers.
    pub(crate) answers: Memory,
}

impl Broker {
    pub(crate) fn id(&self) -> i32 {
        self.cluster.broker_id
    }

    pub(crate) fn is_controller(&self, image: &Image) -> bool {
        image.controller == self.id()
    }

    /// A partition that this broker holds.
    ///
    /// # Errors
    /// With the code that sends the client where the partition is.
    pub(crate) fn partition(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<Arc<Partition>, ErrorCode> {
        if let Some(partition) = self.logs.partition(topic, partition) {
            return Ok(partition);
        }
        match self.cluster.image().partition(topic, partition) {
            None => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            Some(state) if state.leader == self.id() => Err(ErrorCode::KAFKA_STORAGE_ERROR),
            Some(_) => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        }
    }
}
