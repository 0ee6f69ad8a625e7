//! Files that survive a crash whole or not at all, and directories that belong to one process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces `path` by `contents`: readers and crashes meet the old file or the new one.
///
/// Durable when it returns: the bytes, and the name in its directory.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a creation, rename or removal within the directory of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_directory(parent),
        None => sync_directory(Path::new(".")),
    }
}

pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error(
        "create directory {path}: {source}; make it writable for this user or give another one"
    )]
    Create { path: PathBuf, source: io::Error },
    #[error("write in {path}: {source}; make it writable for this user or give another one")]
    NotWritable { path: PathBuf, source: io::Error },
    #[error("{path} is in use by another process; stop that one or give another directory")]
    InUse { path: PathBuf },
    #[error(
        "{path} has format version {found}, this program reads versions up to {known}; \
         use the newer program that wrote it or give another directory"
    )]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error(
        "{path} does not hold a format version: {text:?}; move the file away if the directory is really ours"
    )]
    BadFormat { path: PathBuf, text: String },
}

/// A data directory that this process holds until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Holds the advisory lock; the kernel frees it however the process ends.
    _lock: File,
}

const LOCK_FILE: &str = ".elkfk.lock";
const FORMAT_FILE: &str = ".elkfk.format";

impl DataDirectory {
    /// Creates `path` where missing, locks it and checks that its format is at most `format_version`.
    pub fn open(path: &Path, format_version: u32) -> Result<Self, DirectoryError> {
        fs::create_dir_all(path)
            .map_err(|source| DirectoryError::Create { path: path.into(), source })?;
        let not_writable = |source| DirectoryError::NotWritable { path: path.into(), source };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(not_writable)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DirectoryError::InUse { path: path.into() });
            }
            Err(error) => return Err(not_writable(error.into())),
        }
        let format = path.join(FORMAT_FILE);
        match fs::read_to_string(&format) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(found) if found > format_version => {
                    return Err(DirectoryError::NewerFormat {
                        path: path.into(),
                        found,
                        known: format_version,
                    });
                }
                Ok(_) => {}
                Err(_) => return Err(DirectoryError::BadFormat { path: format, text }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace(&format, format!("{format_version}\n").as_bytes()).map_err(not_writable)?;
            }
            Err(error) => return Err(not_writable(error)),
        }
        Ok(Self { path: path.into(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDirectory::open(directory.path(), 1).unwrap();
        assert!(matches!(
            DataDirectory::open(directory.path(), 1),
            Err(DirectoryError::InUse { .. })
        ));
        drop(held);
        DataDirectory::open(directory.path(), 1).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(directory.path(), 2).unwrap());
        let error = DataDirectory::open(directory.path(), 1).unwrap_err();
        assert!(error.to_string().contains("format version 2"), "{error}");
    }
}
