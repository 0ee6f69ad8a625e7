//! What tells files apart: device, inode and birth time; how they begin; what stands before a position.

use serde::{Deserialize, Serialize};

/// Bytes of a file's beginning that take part in its identity. It grows up to this from the first.
pub(crate) const HEAD_BYTES: usize = 1024;
/// Bytes before a position that are remembered to recognise it.
pub(crate) const GUARD_BYTES: usize = 64;

/// A file as the kernel names it. An inode that is used again has another birth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub device: u64,
    pub inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not keep it.
    pub birth_ns: u64,
}

/// What the kernel says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub id: FileId,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: u64,
    /// Names it has; 0 for one that was deleted and is still open.
    pub links: u64,
    pub is_file: bool,
}

/// Hash of how a generation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Head {
    pub bytes: u16,
    pub hash: u64,
}

impl Head {
    /// Of a file that begins with `bytes`, as far as they matter.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(HEAD_BYTES)];
        Self { bytes: bytes.len() as u16, hash: hash(bytes) }
    }

    /// Whether a file that begins with `bytes` may be the one this was taken of.
    pub(crate) fn matches(self, bytes: &[u8]) -> bool {
        self.bytes == 0
            || bytes.get(..usize::from(self.bytes)).is_some_and(|bytes| hash(bytes) == self.hash)
    }
}

/// Hash of the bytes just before a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Guard {
    /// Where the bytes end.
    pub end: u64,
    pub bytes: u8,
    pub hash: u64,
}

impl Guard {
    /// Of the last of `bytes`, which end at `end`.
    pub(crate) fn of(bytes: &[u8], end: u64) -> Self {
        let bytes = &bytes[bytes.len().saturating_sub(GUARD_BYTES)..];
        Self { end, bytes: bytes.len() as u8, hash: hash(bytes) }
    }

    /// Where the guarded bytes begin.
    pub(crate) fn start(self) -> u64 {
        self.end - u64::from(self.bytes)
    }

    pub(crate) fn matches(self, bytes: &[u8]) -> bool {
        bytes.len() == usize::from(self.bytes) && hash(bytes) == self.hash
    }
}

/// FNV-1a: short inputs, no secrets, the same on every machine and in every version.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether a copy or compressed form of the file called `original` may be called `candidate`.
///
/// `app.log` → `app.log.1`, `app.log-20261123.gz`, `app-20261123.log`, `app.1.log`.
pub(crate) fn is_rotated_name(original: &str, candidate: &str) -> bool {
    if original == candidate || original.is_empty() {
        return false;
    }
    let separates = |rest: &str| rest.starts_with(['.', '-', '_', '~']);
    if candidate.strip_prefix(original).is_some_and(separates) {
        return true;
    }
    // app.log.1 → app.log.2, app.log.1.gz → app.log.2.gz, and the forms that keep the extension.
    let stem = |name: &str| -> String {
        let name = name.trim_end_matches(".gz").trim_end_matches(".zst").trim_end_matches(".bz2");
        let end = name.find(|c: char| matches!(c, '.' | '-' | '_') || c.is_ascii_digit());
        name[..end.unwrap_or(name.len())].to_string()
    };
    let numbers = |name: &str| name.bytes().any(|byte| byte.is_ascii_digit());
    let stem_of_original = stem(original);
    !stem_of_original.is_empty() && stem_of_original == stem(candidate) && numbers(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_matches_what_begins_the_same() {
        let head = Head::of(b"start\n");
        assert!(head.matches(b"start\nand more"));
        assert!(!head.matches(b"start"));
        assert!(!head.matches(b"stars\nand more"));
        assert_eq!(Head::of(&[b'x'; 5000]).bytes, 1024);
    }

    #[test]
    fn a_guard_is_of_the_last_bytes() {
        let guard = Guard::of(&[b'x'; 100], 1000);
        assert_eq!((guard.start(), guard.bytes), (936, 64));
        assert!(guard.matches(&[b'x'; 64]) && !guard.matches(&[b'x'; 63]));
    }

    #[test]
    fn names_of_rotated_files_are_recognised() {
        for (original, candidate, expected) in [
            ("app.log", "app.log.1", true),
            ("app.log", "app.log-20261123.gz", true),
            ("app.log", "app-20261123.log", true),
            ("app.log.1", "app.log.2", true),
            ("app.log.1", "app.log.2.gz", true),
            ("syslog", "syslog.1.gz", true),
            ("app.log", "other.log", false),
            ("app.log", "application.log", false),
            ("app.log", "app.log", false),
        ] {
            assert_eq!(is_rotated_name(original, candidate), expected, "{original} {candidate}");
        }
    }
}
