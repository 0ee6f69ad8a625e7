//! Filebeat's box: tails files, remembers positions in its registry, produces to a topic.
//!
//! [`Config`] is a checked `filebeat.yml`; [`start`] begins, [`Running`] is what goes on then. The log
//! file is the queue: nothing is spooled, nothing dropped, and the registry moves only after the broker
//! acknowledged. Every record carries the identity of its line (`elkfk_wire::source_id`), equal for
//! equal lines however often they are read.

mod compressed;
mod config;
mod discovery;
mod disk;
mod engine;
mod event;
mod harvester;
mod identity;
mod journal;
mod kafka;
mod metrics;
mod partitions;
mod processors;
mod registry;
mod run;
mod watch;

pub use config::{
    CloseConfig, Compression, Config, InputConfig, OutputConfig, PartitionChoice, StartAt,
};
pub use engine::FileStatus;
pub use harvester::{LineSettings, Parsers};
pub use run::{Running, StartError, start};
