//! Which log belongs to which snapshots.
//!
//! With dataLogDir the log lies apart. Where that key is added, changed or removed between two
//! starts, the log would be looked for where it is not: an older tree, or an empty one, would be
//! served as if nothing had been acknowledged since. So a file beside the snapshots and one beside
//! the log name the same random number, and where they differ nothing is started.

use std::path::{Path, PathBuf};
use std::{fs, io};

use elkfk_base::durable::replace;

/// Beside the snapshots: the number, and on a second line where the log was, for people.
const PLACE_FILE: &str = "log-place";
/// Beside the log: the number. Its name has it moved along with the log's `log-*`.
const ID_FILE: &str = "log-id";

/// Why the log may not be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{path} holds a log, but dataLogDir has it looked for in {log}: move the files log-* there, \
         or take dataLogDir out of zoo.cfg again"
    )]
    Left { path: PathBuf, log: PathBuf },
    #[error(
        "{log} holds snapshots, which belong to a dataDir: exchange dataDir and dataLogDir, or give another dataLogDir"
    )]
    Exchanged { log: PathBuf },
    #[error(
        "the log of {path} is not in {log}, it was in {was}: set dataLogDir as it was, \
         or move the files log-* from there to {log}"
    )]
    Elsewhere { path: PathBuf, log: PathBuf, was: PathBuf },
}

fn read(path: PathBuf) -> Result<Option<String>, PlaceError> {
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PlaceError::Read { path, source }),
    }
}

/// Whether there is a file of such a name; one of half a number counts too.
fn holds(directory: &Path, prefix: &str) -> Result<bool, PlaceError> {
    let failed = |source| PlaceError::Read { path: directory.into(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name.as_encoded_bytes().starts_with(prefix.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses a log in `log` that is not that of the snapshots in `path`, or lies apart from it.
pub(super) fn check(path: &Path, log: &Path) -> Result<(), PlaceError> {
    if log != path {
        if holds(path, "log-0")? {
            return Err(PlaceError::Left { path: path.into(), log: log.into() });
        }
        if holds(log, "snapshot-")? {
            return Err(PlaceError::Exchanged { log: log.into() });
        }
    }
    let Some(place) = read(path.join(PLACE_FILE))? else { return Ok(()) };
    let (id, was) = place.split_once('\n').unwrap_or((&place, ""));
    if read(log.join(ID_FILE))?.as_deref().map(str::trim) == Some(id.trim()) {
        return Ok(());
    }
    let was = PathBuf::from(was.trim_end());
    Err(PlaceError::Elsewhere { path: path.into(), log: log.into(), was })
}

/// Makes sure that [`check`] will know this pair again. To be called before anything is acknowledged.
pub(super) fn record(path: &Path, log: &Path) -> Result<(), PlaceError> {
    let write = |path: PathBuf, text: &str| {
        replace(&path, text.as_bytes()).map_err(|source| PlaceError::Write { path, source })
    };
    let id = match read(log.join(ID_FILE))? {
        Some(id) => id.trim().to_owned(),
        None => {
            let id = format!("{:032x}", rand::random::<u128>());
            write(log.join(ID_FILE), &format!("{id}\n"))?;
            id
        }
    };
    let log = fs::canonicalize(log).unwrap_or_else(|_| log.into());
    let place = format!("{id}\n{}\n", log.display());
    // A crash before this leaves the log with a number and the snapshots without: taken over next time.
    match read(path.join(PLACE_FILE))? == Some(place.clone()) {
        true => Ok(()),
        false => write(path.join(PLACE_FILE), &place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Places {
        root: tempfile::TempDir,
        path: PathBuf,
        log: PathBuf,
        other: PathBuf,
    }

    fn places() -> Places {
        let root = tempfile::tempdir().unwrap();
        let [path, log, other] = ["data", "log", "other"].map(|name| root.path().join(name));
        for directory in [&path, &log, &other] {
            fs::create_dir(directory).unwrap();
        }
        Places { root, path, log, other }
    }

    fn start(path: &Path, log: &Path) -> Result<(), PlaceError> {
        check(path, log)?;
        record(path, log)
    }

    #[test]
    fn a_log_apart_is_looked_for_nowhere_else() {
        let Places { root: _root, path, log, other } = places();
        start(&path, &log).unwrap();
        start(&path, &log).unwrap();
        // The key removed, and changed.
        for elsewhere in [&path, &other] {
            let error = start(&path, elsewhere).unwrap_err();
            assert!(matches!(error, PlaceError::Elsewhere { .. }), "{error}");
            assert!(error.to_string().contains(log.to_str().unwrap()), "{error}");
        }
        // Moved with all that is called log-*, it is known again, and its new place too.
        fs::rename(log.join(ID_FILE), other.join(ID_FILE)).unwrap();
        start(&path, &other).unwrap();
        let error = start(&path, &log).unwrap_err();
        assert!(error.to_string().contains(other.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_log_beside_the_snapshots_is_not_left_behind() {
        let Places { root: _root, path, log, .. } = places();
        start(&path, &path).unwrap();
        assert!(matches!(start(&path, &log), Err(PlaceError::Elsewhere { .. })));
        fs::write(path.join("log-0000000000000001-0000000000000001"), "").unwrap();
        assert!(matches!(start(&path, &log), Err(PlaceError::Left { .. })));
        start(&path, &path).unwrap();
    }

    #[test]
    fn another_ones_log_is_refused() {
        let Places { root: _root, path, log, other } = places();
        start(&path, &log).unwrap();
        start(&other, &other).unwrap();
        assert!(matches!(start(&path, &other), Err(PlaceError::Elsewhere { .. })));
        fs::write(log.join("snapshot-0000000000000009"), "").unwrap();
        assert!(matches!(start(&path, &log), Err(PlaceError::Exchanged { .. })));
    }

    #[test]
    fn a_crash_between_the_two_files_is_healed() {
        let Places { root: _root, path, log, .. } = places();
        start(&path, &log).unwrap();
        fs::remove_file(path.join(PLACE_FILE)).unwrap();
        start(&path, &log).unwrap();
        assert!(path.join(PLACE_FILE).exists());
    }
}
