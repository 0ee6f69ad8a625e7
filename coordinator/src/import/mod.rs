//! A ZooKeeper's data directory → one of ours.
//!
//! The newest whole snapshot is read, the transactions logged after it are done again on top, and the
//! result is written as a snapshot of ours with an empty log after it. Nothing of the source is
//! changed, and nothing is taken that does not check out: a damaged snapshot gives way to the one
//! before it, as in ZooKeeper; a damaged transaction with a whole one after it was acknowledged once,
//! so it stops the import. What a crash left of a last transaction nobody was told of.

mod files;
mod log;
mod snapshot;
mod state;
mod write;

use std::io;
use std::path::PathBuf;

use elkfk_base::durable::DirectoryError;
use elkfk_wire::jute::{DecodeError, Zxid};

use files::{LogFile, SnapshotFile};
use state::State;

/// What to read and where to write it.
#[derive(Debug, Clone)]
pub struct ImportConfig {
    /// ZooKeeper's `dataDir`, or the `version-2` in it.
    pub from: PathBuf,
    /// Its `dataLogDir`, where it has one.
    pub log_dir: Option<PathBuf>,
    /// The `dataDir` our server is to have.
    pub to: PathBuf,
    /// Our server's `dataLogDir`, where it is to have one.
    pub to_log_dir: Option<PathBuf>,
    /// The last transaction that is taken; all of them where `None`.
    pub until: Option<Zxid>,
}

/// What was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// `None` where there was no snapshot yet.
    pub snapshot: Option<PathBuf>,
    /// Transactions done again after it.
    pub transactions: u64,
    /// The last one's; our server goes on above it.
    pub zxid: Zxid,
    pub znodes: usize,
    pub sessions: usize,
    /// Znodes that go with those sessions.
    pub ephemerals: usize,
    /// What was left out, and why that is right.
    pub warnings: Vec<String>,
    /// Our snapshot.
    pub written: PathBuf,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} holds no snapshot.* and no log.*: give the dataDir of a ZooKeeper's zoo.cfg, and its dataLogDir with --log-dir where it has one"
    )]
    Nothing { path: PathBuf },
    #[error("{path} is a compressed snapshot, which is not read: {remedy}, then import again")]
    Compressed { path: PathBuf, remedy: &'static str },
    #[error("none of the snapshots can be used; the newest: {0}")]
    NoSnapshot(String),
    #[error("no snapshot in {path} is as old as --zxid {until}; the oldest is {oldest}")]
    TooOld { path: PathBuf, until: Zxid, oldest: Zxid },
    #[error(
        "{path} is damaged at byte {offset}, with a whole transaction after it: what stood there was acknowledged once; \
         take that file from another server of the ensemble or from a backup, or stop before the damage with --zxid {last}"
    )]
    Damaged { path: PathBuf, offset: u64, last: Zxid },
    #[error("{path} is no transaction log of a ZooKeeper: {why}")]
    NoLog { path: PathBuf, why: &'static str },
    #[error("{path}, byte {offset}: transaction {zxid} cannot be read: {why}")]
    Transaction { path: PathBuf, offset: u64, zxid: Zxid, why: String },
    #[error(
        "{path}, byte {offset}: after {last} comes {found}: transactions between are missing; \
         put the missing log.* files back, or stop before the gap with --zxid {last}"
    )]
    Gap { path: PathBuf, offset: u64, last: Zxid, found: Zxid },
    #[error("the znodes read are no tree: {0}")]
    NoTree(String),
    #[error(
        "{path} holds data of this program already ({name}): give another directory, or remove that folder to import anew"
    )]
    NotEmpty { path: PathBuf, name: String },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("write to {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// Why a piece of a file cannot be what it should.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Other(String),
}

/// Reads a ZooKeeper's data and writes ours. Blocks.
///
/// # Errors
/// Where anything is not as ZooKeeper writes it; nothing is written then.
pub fn import(config: &ImportConfig) -> Result<Imported, ImportError> {
    // Before the long part, for it is quickly said.
    write::refuse_taken(config)?;
    let found = files::find(config)?;
    let mut done = Imported::default();
    let (mut state, base) = base(&found.snapshots, config, &mut done)?;
    replay(&found.logs, base, config.until, &mut state, &mut done)?;
    state.raise_epoch(found.epoch);
    (done.zxid, done.sessions) = (state.zxid, state.sessions.len());
    done.ephemerals = state.ephemerals.values().map(|paths| paths.len()).sum();
    if state.ignored > 0 {
        done.warnings.push(format!(
            "{} transactions had been done already when the snapshot was written, as ZooKeeper writes it while it works",
            state.ignored
        ));
    }
    write::write(config, state, &mut done)?;
    Ok(done)
}

/// The newest whole snapshot that is not after `until`, and its zxid.
fn base(
    snapshots: &[SnapshotFile],
    config: &ImportConfig,
    done: &mut Imported,
) -> Result<(State, Zxid), ImportError> {
    let is_wanted = |file: &&SnapshotFile| config.until.is_none_or(|until| file.zxid <= until);
    if let (Some(oldest), Some(until), 0) =
        (snapshots.first(), config.until, snapshots.iter().filter(is_wanted).count())
    {
        let (path, oldest) = (config.from.clone(), oldest.zxid);
        return Err(ImportError::TooOld { path, until, oldest });
    }
    let mut newest = None;
    for file in snapshots.iter().rev().filter(is_wanted) {
        if let Some(remedy) = file.compression {
            return Err(ImportError::Compressed { path: file.path.clone(), remedy });
        }
        match snapshot::read(&file.path, file.zxid)? {
            Ok(state) => {
                if let Some(why) = newest {
                    done.warnings.push(format!("{why}; an older one is used, with the longer log"));
                }
                done.snapshot = Some(file.path.clone());
                return Ok((state, file.zxid));
            }
            Err(why) => {
                newest.get_or_insert(format!("{}: {why}", file.path.display()));
            }
        }
    }
    match newest {
        Some(why) => Err(ImportError::NoSnapshot(why)),
        None => Ok((State::new(), Zxid(0))),
    }
}

/// Does the transactions after `base` again.
fn replay(
    logs: &[LogFile],
    base: Zxid,
    until: Option<Zxid>,
    state: &mut State,
    done: &mut Imported,
) -> Result<(), ImportError> {
    // The last log that may begin at or before the first one wanted, and all after it.
    let first = logs.partition_point(|file| file.zxid.0 <= base.0 + 1).saturating_sub(1);
    for file in logs.iter().skip(first) {
        let mut before = None;
        let bytes = files::read(&file.path)?;
        let mut log = log::Log::new(&bytes)
            .map_err(|why| ImportError::NoLog { path: file.path.clone(), why })?;
        // Asked first: what comes after the last one wanted may be the damage that is to be left out.
        while until.is_none_or(|until| state.zxid < until)
            && let Some(found) = log.next()
        {
            let log::Entry { offset, transaction } = found.map_err(|offset| {
                let last = before.unwrap_or(state.zxid);
                ImportError::Damaged { path: file.path.clone(), offset, last }
            })?;
            let failed = |zxid, why: Malformed| ImportError::Transaction {
                path: file.path.clone(),
                offset,
                zxid,
                why: why.to_string(),
            };
            let header = log::Header::read(transaction).map_err(|why| failed(Zxid(-1), why))?;
            before = Some(header.zxid);
            if header.zxid <= base {
                continue;
            }
            if until.is_some_and(|until| header.zxid > until) {
                return Ok(());
            }
            if !follows(state.zxid, header.zxid) {
                let (path, last, found) = (file.path.clone(), state.zxid, header.zxid);
                return Err(ImportError::Gap { path, offset, last, found });
            }
            state.apply(&header).map_err(|why| failed(header.zxid, why))?;
            done.transactions += 1;
        }
        if let Some((offset, bytes)) = log.torn() {
            done.warnings.push(format!(
                "{}: the last {bytes} bytes, from byte {offset} on, are what a crash left of a transaction nobody was told of; they are left out",
                file.path.display()
            ));
        }
    }
    Ok(())
}

/// Every transaction takes the next zxid, or the first one of a later epoch.
fn follows(last: Zxid, next: Zxid) -> bool {
    next.0 == last.0 + 1 || (next.0 >> 32 > last.0 >> 32 && next.0 & 0xffff_ffff == 1)
}

#[cfg(test)]
mod tests;
