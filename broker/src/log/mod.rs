//! The log of a partition, in Kafka 3.4's own files.
//!
//! ```text
//! DIR/meta.properties                   whose directory this is
//! DIR/recovery-point-offset-checkpoint  below these offsets all is durable
//! DIR/log-start-offset-checkpoint       where logs start within their first segment
//! DIR/replication-offset-checkpoint     high watermarks
//! DIR/.lock, DIR/.kafka_cleanshutdown
//! DIR/TOPIC-PARTITION/partition.metadata, leader-epoch-checkpoint
//!                    /00000000000000000000.log .index .timeindex .snapshot
//! DIR/TOPIC-PARTITION.UUID-delete       deleted, to be removed
//! ```
//!
//! What a producer sent is what lies on the disk and what a consumer gets: base offset and leader
//! epoch are patched in place, nothing is decompressed unless the topic's configuration asks.

mod checkpoint;
mod compact;
mod config;
mod directory;
mod disk;
mod epochs;
mod files;
mod index;
mod manager;
mod partition_log;
mod producers;
mod read;
mod recovery;
mod retention;
mod scan;
mod segment;
mod upkeep;
mod validate;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use checkpoint::{CheckpointError, MetaProperties, TopicId};
pub use compact::{CleanError, CleanPlan, Cleaned};
pub use config::TopicConfig;
pub use directory::{Durability, LogDirectory};
pub use disk::{Disk, DiskFile, Entry, SystemDisk};
pub use epochs::LeaderEpochs;
pub(crate) use files::lock;
pub use files::{Files, OPEN_FILES_DEFAULT};
pub use manager::{LogConfig, LogManager, OpenError, PartitionError, meta_properties};
pub use partition_log::{AppendInfo, Log, SyncWork};
pub use producers::{ProducerError, Producers};
pub use read::{LookupError, ReadBatches, ReadPlan, TimestampOffset, TimestampPlan};
pub use recovery::{LogError, OpenHints, Recovery};
pub use validate::{AppendError, Origin, Validated, validate};
