//! A Kafka client for administration: metadata, topics, settings, groups, offsets.
//!
//! It speaks to any Kafka from 2.3 on and to ours. Requests find their broker by themselves: the
//! controller for topics, the coordinator for a group, the leader for a partition; where one has
//! moved, the request is tried again at its successor until the time allowed is over.
//!
//! ```no_run
//! # async fn run() -> Result<(), elkfk_broker_client::ClientError> {
//! use elkfk_broker_client::{Client, Config, OffsetAt};
//!
//! let client = Client::new(Config::to("127.0.0.1:9092"));
//! for group in client.list_groups().await?.groups {
//!     let committed = client.committed_offsets(&group.group).await?;
//!     let partitions: Vec<_> = committed.keys().cloned().collect();
//!     let ends = client.list_offsets(&partitions, OffsetAt::End).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod configs;
mod connection;
mod error;
mod groups;
pub mod lag;
mod log_dirs;
mod metadata;
mod offsets;
mod records;
mod topics;

pub use client::{Client, Config};
pub use configs::{ConfigEntry, ConfigOp, ConfigSynonym, Resource, ResourceConfigs, ResourceType};
pub use connection::{Connection, Reply};
pub use error::{ClientError, Refused};
pub use groups::{Assignment, Committed, GroupDescription, ListedGroup, ListedGroups, Member};
pub use log_dirs::{LogDir, LogSizes};
pub use metadata::{Broker, Cluster, Partition, Topic};
pub use offsets::{ListedOffset, ListedOffsets, OffsetAt};
pub use records::{FetchedRecord, FetchedRecords};
pub use topics::NewTopic;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
