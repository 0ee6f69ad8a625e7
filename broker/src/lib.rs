//! Keeps partitioned logs on disk; answers the Kafka protocol
