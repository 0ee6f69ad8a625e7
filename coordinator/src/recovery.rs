//! From the files to a server that can go on.

use crate::consensus::{RaftConsensus, Start};
use crate::machine::Machine;
use crate::snapshots::{self, SnapshotError};
use crate::wal::disk::Disk;
use crate::wal::{Wal, WalError};

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
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error(transparent)]
    Snapshots(SnapshotError),
    #[error(transparent)]
    Log(WalError),
    #[error(transparent)]
    Consensus(raft::Error),
}

/// Reads the newest snapshot and the log after it, for a server that is the only voter. The log goes
/// on in segments of `segment_bytes`.
pub(crate) fn recover<D: Disk>(
    mut snapshots: D,
    log: D,
    server: u64,
    segment_bytes: u64,
) -> Result<Recovered<D>, RecoveryError> {
    snapshots::remove_unfinished(&mut snapshots);
    let mut machine = snapshots::load_newest(&snapshots).map_err(RecoveryError::Snapshots)?;
    let snapshot_index = machine.index();
    let (wal, mut recovered) =
        Wal::open(log, snapshot_index, segment_bytes).map_err(RecoveryError::Log)?;
    while recovered.entries.front().is_some_and(|entry| entry.index <= recovered.vote.commit) {
        if let Some(entry) = recovered.entries.pop_front() {
            machine.apply(entry.term, entry.index, &entry.data);
        }
    }
    let consensus = RaftConsensus::new(Start {
        id: server,
        voters: vec![server],
        vote: recovered.vote,
        applied_index: machine.index(),
        applied_term: machine.term(),
        entries: recovered.entries,
    })
    .map_err(RecoveryError::Consensus)?;
    Ok(Recovered { machine, snapshot_index, wal, consensus })
}
