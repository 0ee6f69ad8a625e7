//! From the files to a server that can go on.

use std::io;

use tracing::warn;

use crate::consensus::{Members, RaftConsensus, Start};
use crate::machine::Machine;
use crate::snapshots::{self, SnapshotError};
use crate::wal::disk::Disk;
use crate::wal::{self, Wal, WalError};

/// Beside the log while this server has not yet caught up with an ensemble it came to with an
/// empty log.
const JOINING_FILE: &str = "joining";
/// Likewise, where the log was not empty but damaged.
const REPAIRING_FILE: &str = "repairing";

/// What the files held.
#[derive(Debug)]
pub(crate) struct Recovered<D> {
    /// With everything applied that is known to be committed.
    pub(crate) machine: Machine,
    /// Of the snapshot it started from; 0 where there was none.
    pub(crate) snapshot_index: u64,
    pub(crate) wal: Wal<D>,
    /// Holds the entries after those.
    pub(crate) consensus: RaftConsensus,
    /// Nothing was ever written here.
    pub(crate) has_empty_log: bool,
    /// Nothing that was promised from here may be remembered.
    pub(crate) is_joining: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error(transparent)]
    Snapshots(SnapshotError),
    #[error(transparent)]
    Log(WalError),
    #[error("write beside the log: {0}")]
    Mark(io::Error),
    #[error(transparent)]
    Consensus(raft::Error),
}

impl RecoveryError {
    /// Whether what is here cannot be used, and could be had from another server.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Snapshots(error) => !matches!(error, SnapshotError::List(_)),
            Self::Log(error) => {
                !matches!(error, WalError::List(_) | WalError::Create(_) | WalError::Cut { .. })
            }
            Self::Mark(_) | Self::Consensus(_) => false,
        }
    }
}

/// Reads the newest snapshot and the log after it, for a server among `members`. The log goes on in
/// segments of `segment_bytes`.
pub(crate) fn recover<D: Disk>(
    mut snapshots: D,
    mut log: D,
    server: u64,
    members: &Members,
    segment_bytes: u64,
) -> Result<Recovered<D>, RecoveryError> {
    snapshots::remove_unfinished(&mut snapshots);
    let names = log.list().map_err(|error| RecoveryError::Log(WalError::List(error)))?;
    let begins = |index| wal::begins_at(&names, index);
    snapshots::adopt_received(&mut snapshots, begins).map_err(RecoveryError::Snapshots)?;
    let mut machine = snapshots::load_newest(&snapshots).map_err(RecoveryError::Snapshots)?;
    let snapshot_index = machine.index();
    let has = |file: &str| names.iter().any(|name| name == file);
    let is_repairing = has(REPAIRING_FILE);
    let mut is_joining = has(JOINING_FILE) || is_repairing;
    if !is_joining && members.voters.len() > 1 && !wal::holds_log(&names) && snapshot_index == 0 {
        log.create(JOINING_FILE).map_err(RecoveryError::Mark)?;
        is_joining = true;
    }
    let (wal, recovered) =
        Wal::open(log, snapshot_index, segment_bytes).map_err(RecoveryError::Log)?;
    let before = (snapshot_index, machine.term());
    let mut members = machine.members().unwrap_or(members).clone();
    for entry in &recovered.entries {
        if entry.index > recovered.vote.commit {
            break;
        }
        if entry.kind == 0 {
            machine.apply(entry.term, entry.index, &entry.data);
        } else {
            members = members.changed(&entry.data);
            machine.apply_members(entry.term, entry.index, members.clone());
        }
    }
    let has_empty_log = machine.index() == 0 && recovered.entries.is_empty() && !is_repairing;
    let consensus = RaftConsensus::new(Start {
        id: server,
        members,
        vote: recovered.vote,
        before,
        applied_index: machine.index(),
        entries: recovered.entries,
    })
    .map_err(RecoveryError::Consensus)?;
    Ok(Recovered { machine, snapshot_index, wal, consensus, has_empty_log, is_joining })
}

/// Remembers, before anything else is written, that the log was damaged and set aside.
pub(crate) fn mark_repairing(log: &mut impl Disk) -> io::Result<()> {
    match log.list()?.iter().any(|name| name == REPAIRING_FILE) {
        true => Ok(()),
        false => log.create(REPAIRING_FILE),
    }
}

/// This server is a full member from now on.
pub(crate) fn forget_joining(log: &mut impl Disk) {
    for name in [JOINING_FILE, REPAIRING_FILE] {
        match log.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(name, %error, "file cannot be removed: at the next start this server votes later than it could");
            }
            _ => {}
        }
    }
}
