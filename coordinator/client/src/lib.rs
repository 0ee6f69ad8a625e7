//! Sessions, ephemerals and watches of a ZooKeeper, seen by its client
