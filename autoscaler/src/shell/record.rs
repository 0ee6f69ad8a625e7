//! Observations as JSON lines, for a simulation of what was seen.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::ladder::Observation;

/// Recording ends there: some ten days of a topic with 64 partitions.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A line of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Looked {
    pub at_ms: i64,
    pub group: String,
    pub topic: String,
    pub observation: Observation,
}

/// An open recording.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    /// None: full, or not writable any more.
    file: Option<File>,
    bytes: u64,
}

impl Recorder {
    /// Goes on where a recording of that name ends.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Some(file), bytes })
    }

    /// Some kilobytes at most, each interval: written in place.
    pub(crate) fn write(&mut self, looked: &Looked) {
        let Some(file) = &mut self.file else { return };
        let mut line = serde_json::to_vec(looked).unwrap_or_default();
        line.push(b'\n');
        let written = match self.bytes + line.len() as u64 > FILE_BYTES_MAX {
            true => Err(io::Error::other(format!("{FILE_BYTES_MAX} bytes are enough"))),
            false => file.write_all(&line),
        };
        match written {
            Ok(()) => self.bytes += line.len() as u64,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "recording ends");
                self.file = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_goes_on_where_it_ended_and_ends_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("looked.jsonl");
        let looked = Looked {
            at_ms: 7,
            group: "g".into(),
            topic: "t".into(),
            observation: Observation::default(),
        };
        for _ in 0..2 {
            Recorder::open(&path).unwrap().write(&looked);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Looked> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [looked.clone(), looked.clone()]);
        let mut full = Recorder::open(&path).unwrap();
        full.bytes = FILE_BYTES_MAX;
        full.write(&looked);
        assert!(full.file.is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
