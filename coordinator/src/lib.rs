//! The replicated znode tree; answers the ZooKeeper protocol
