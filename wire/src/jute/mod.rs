//! ZooKeeper's records and frames.
