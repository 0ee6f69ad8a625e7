//! Consumes a topic, runs a Logstash pipeline, writes events out in bulk.

pub mod codec;
pub mod config;
pub mod delivery;
pub mod event;
pub mod filter;
pub mod input;
pub mod metrics;
pub mod output;
pub mod pipeline;
pub mod replay;
pub mod runtime;
pub mod sample;
pub mod worker;

pub use replay::{ReplayConfig, ReplayError, ReplayReport, replay};
pub use runtime::{Config, PartitionStatus, Running, StartError, Status, check, start};
pub use sample::run_sample;
