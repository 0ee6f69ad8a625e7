//! Consumer groups: members, generations, committed offsets.
//!
//! `core.rs` decides and `state.rs` holds one group; both are pure: they take the time and an input
//! and answer with outputs. `shell.rs` performs those on the log of `__consumer_offsets`.

pub(crate) mod core;
pub(crate) mod member;
pub(crate) mod offsets;
pub(crate) mod record;
pub(crate) mod shell;
#[cfg(test)]
mod simulation;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use elkfk_wire::kafka::ErrorCode;

/// The time of one step: `at` orders, `wall_ms` is written into records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    /// Milliseconds since the epoch.
    pub(crate) wall_ms: i64,
}

/// Who waits for an answer. Given by the shell, unique while it waits.
pub(crate) type Waiter = u64;

/// A write that the core asked for.
pub(crate) type WriteId = u64;

/// A member wants to be part of the next generation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Join {
    pub(crate) group: String,
    /// Empty for one that has no id yet.
    pub(crate) member_id: String,
    /// Random, for the id of a new member: chance stays outside the core.
    pub(crate) fresh: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    /// Name and metadata, the preferred first.
    pub(crate) protocols: Vec<(String, Vec<u8>)>,
    /// From version 4 a new member is first told its id (KIP-394).
    pub(crate) is_id_required: bool,
    /// From version 9 a returning leader may be told not to assign (KIP-814).
    pub(crate) can_skip_assignment: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Sync {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// By member id; only the group's leader sends them.
    pub(crate) assignments: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeat {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Leave {
    pub(crate) group: String,
    /// Member id, which may be empty where an instance id is given.
    pub(crate) members: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Commit {
    pub(crate) group: String,
    /// -1 for one that is no member: a simple consumer or a tool.
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) offsets: Vec<(String, i32, offsets::Committed)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Input {
    Join(Waiter, Join),
    Sync(Waiter, Sync),
    Heartbeat(Waiter, Heartbeat),
    Leave(Waiter, Leave),
    Commit(Waiter, Commit),
    DeleteGroup(Waiter, String),
    /// Offsets of a group, by topic and partition.
    DeleteOffsets(Waiter, String, Vec<(String, i32)>),
    /// The topic is gone, and with it what groups committed for it.
    TopicDeleted(String),
    /// A write is as durable as it will be, or failed.
    Written(WriteId, ErrorCode),
    /// A deadline may have passed.
    Tick,
    /// Offsets may have expired.
    Expire,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Answer(Waiter, Answer),
    /// To be appended in this order and answered with [`Input::Written`].
    Write(WriteId, Vec<record::Record>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Joined(Box<Joined>),
    Synced(Box<Synced>),
    /// Heartbeat, group deletion, and a refusal of anything as a whole.
    Code(ErrorCode),
    /// One code a member, in the order of the request.
    Left(Vec<ErrorCode>),
    /// One code a partition, in the order of the request.
    Offsets(Vec<ErrorCode>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) error: ErrorCode,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) is_assignment_skipped: bool,
    pub(crate) member_id: String,
    /// For the leader only: member id, instance id, metadata of the chosen protocol.
    pub(crate) members: Vec<(String, Option<String>, Vec<u8>)>,
}

impl Joined {
    pub(crate) fn refused(member_id: &str, error: ErrorCode) -> Answer {
        let member_id = member_id.to_owned();
        Answer::Joined(Box::new(Self { error, generation: -1, member_id, ..Self::default() }))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Vec<u8>,
}

impl Synced {
    pub(crate) fn refused(error: ErrorCode) -> Answer {
        Answer::Synced(Box::new(Self { error, ..Self::default() }))
    }
}
