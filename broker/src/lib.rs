//! Keeps partitioned logs on disk; answers the Kafka protocol

pub mod config;
pub mod log;
pub mod partition;

pub use config::Config;
