//! Consumes a topic, runs a Logstash pipeline, writes events out in bulk.

pub mod codec;
pub mod config;
pub mod delivery;
pub mod event;
pub mod filter;
pub mod pipeline;
