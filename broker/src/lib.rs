//! Keeps partitioned logs on disk; answers the Kafka protocol

pub mod config;
pub use config::Config;
