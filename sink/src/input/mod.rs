//! Where events come from: one file per plugin, under Logstash's name.

pub mod kafka;
pub mod kafka_options;
