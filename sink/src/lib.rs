//! Consumes a topic, runs a Logstash pipeline, writes events out in bulk.

mod api;
pub mod codec;
pub mod config;
mod crew;
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
mod scaling;
mod status;
pub mod worker;

pub use api::ListenError;
pub use crew::{ScaleError, Scaled};
pub use replay::{ReplayConfig, ReplayError, ReplayReport, replay};
pub use runtime::{Config, Control, Running, StartError, check, start};
pub use sample::run_sample;
pub use scaling::{Refused, Wish};
pub use status::{InputStatus, LastError, PartitionStatus, Status};
