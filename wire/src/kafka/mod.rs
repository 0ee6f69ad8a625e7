//! The Kafka protocol: frames, messages of every supported version, record batches.

pub mod records;
