//! Which files a ZooKeeper has left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use elkfk_wire::jute::Zxid;

use super::{ImportConfig, ImportError};

/// Where ZooKeeper keeps its files, below dataDir and dataLogDir.
const FOLDER: &str = "version-2";

#[derive(Debug)]
pub(super) struct SnapshotFile {
    pub(super) path: PathBuf,
    /// Everything up to here is in it.
    pub(super) zxid: Zxid,
    /// How to get a plain one, where it is compressed.
    pub(super) compression: Option<&'static str>,
}

#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    /// Of its first transaction.
    pub(super) zxid: Zxid,
}

/// All of them, ascending.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) snapshots: Vec<SnapshotFile>,
    pub(super) logs: Vec<LogFile>,
    /// The newest epoch this server has promised to follow; 0 where it was alone.
    pub(super) epoch: i64,
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    fs::read(path).map_err(|source| ImportError::Read { path: path.into(), source })
}

/// The folder with the files, of a directory that may be that folder itself.
fn folder(given: &Path) -> PathBuf {
    let below = given.join(FOLDER);
    if below.is_dir() { below } else { given.into() }
}

pub(super) fn find(config: &ImportConfig) -> Result<Found, ImportError> {
    let mut found = Found::default();
    let data = folder(&config.from);
    let log = config.log_dir.as_deref().map_or_else(|| data.clone(), folder);
    for name in list(&data)? {
        let path = data.join(&name);
        if let Some(end) = name.strip_prefix("snapshot.") {
            let (zxid, compression) = match end.split_once('.') {
                None => (end, None),
                Some((zxid, "gz")) => (zxid, Some("run gunzip on it")),
                Some((zxid, "snappy")) => (
                    zxid,
                    Some(
                        "take snapshot.compression.method out of ZooKeeper's settings and have it write another",
                    ),
                ),
                Some(_) => continue,
            };
            if let Some(zxid) = parse(zxid) {
                found.snapshots.push(SnapshotFile { path, zxid, compression });
            }
        }
    }
    for name in list(&log)? {
        if let Some(zxid) = name.strip_prefix("log.").and_then(parse) {
            found.logs.push(LogFile { path: log.join(&name), zxid });
        }
    }
    for name in ["acceptedEpoch", "currentEpoch"] {
        if let Ok(text) = fs::read_to_string(data.join(name)) {
            // 31 bits, or a zxid would be negative.
            let epoch = text.trim().parse::<i64>().unwrap_or(0).clamp(0, i64::from(i32::MAX));
            found.epoch = found.epoch.max(epoch);
        }
    }
    if found.snapshots.is_empty() && found.logs.is_empty() {
        return Err(ImportError::Nothing { path: data });
    }
    found.snapshots.sort_by_key(|file| file.zxid);
    found.logs.sort_by_key(|file| file.zxid);
    Ok(found)
}

/// The zxid in a file's name. ZooKeeper takes no others.
fn parse(hex: &str) -> Option<Zxid> {
    i64::from_str_radix(hex, 16).ok().filter(|zxid| *zxid >= 0).map(Zxid)
}

fn list(path: &Path) -> Result<Vec<String>, ImportError> {
    let failed = |source: io::Error| ImportError::Read { path: path.into(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
