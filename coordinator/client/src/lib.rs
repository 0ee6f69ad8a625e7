//! A ZooKeeper seen by its client: sessions, ephemerals and watches, on our coordinator and on a
//! real ZooKeeper alike.
//!
//! A [`Client`] is one session. It moves between servers by itself, keeps the session alive by
//! pings, and on a new connection sets its watches again, so that none is missed. Reads that were
//! under way when a connection broke are sent again; a write then fails with
//! [`Error::ConnectionLost`], for it may have been done or not, and only the caller can tell by
//! looking. An expired session stays expired: its ephemerals are gone, and whoever wants to go on
//! starts another client.

mod client;
mod config;
mod connection;
mod error;
mod multi;
mod read;
mod watch;

pub use client::{Client, CreateMode, SessionState};
pub use config::{
    Config, ConnectStringError, Credentials, DEFAULT_REPLY_BYTES_MAX, DEFAULT_SESSION_TIMEOUT,
};
pub use elkfk_wire::jute::{
    Acl, ErrorCode, EventKind, EventState, SessionId, Stat, WatchedEvent, Zxid,
};
pub use error::Error;
pub use multi::{Op, OpResult};
pub use read::{Read, ReadResult};
pub use watch::{PersistentWatch, Watch, WatchMode};
