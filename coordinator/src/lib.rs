//! The replicated znode tree; answers the ZooKeeper protocol.
//!
//! Requests go into a log agreed on by Raft and are decided when they are applied, so that every
//! server decides alike. The cores are `tree`, `machine` (tree and sessions, changed by the log
//! alone) and `service` (what one server does for its clients); they do no I/O and read no clock.
//! The shell is `server`: sockets, the thread that waits for the disk, and the one task that owns
//! the cores.

mod admin;
mod config;
mod consensus;
mod ensemble;
mod import;
mod machine;
mod metrics;
mod recovery;
mod replica;
mod server;
mod service;
mod snapshots;
mod tree;
mod wal;

pub use admin::{AdminConfig, AdminError};
pub use config::Config;
pub use elkfk_wire::jute::Zxid;
pub use ensemble::Server;
pub use import::{ImportConfig, ImportError, Imported, import};
pub use server::{PlaceError, Running, StartError, start};
pub use snapshots::SnapshotError;
pub use tree::ImageError;
pub use wal::WalError;
