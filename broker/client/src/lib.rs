//! A Kafka client for administration: metadata, offsets, groups
