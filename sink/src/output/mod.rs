//! Where events go: one file per plugin, under Logstash's name.

pub mod dead_letter;
pub mod elasticsearch;
pub mod stdout;
