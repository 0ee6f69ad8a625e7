//! Keeps partitioned logs on disk; answers the Kafka protocol.
//!
//! ```text
//! server/ ──► api/ ──► group/, partition/ ──► log/
//!              └────► cluster/  (znodes, through the coordinator's client)
//! ```
//!
//! [`start`] runs one broker in this process; [`Config`] is its `server.properties`.

mod api;
mod broker;
mod cluster;
pub mod config;
mod group;
pub mod log;
mod metrics;
pub mod partition;
mod replicas;
mod run;
mod server;

pub use config::Config;
pub use run::{Running, StartError, start};
