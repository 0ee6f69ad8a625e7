//! Shell: the history in files, so that plots outlive a restart. A thread of its own writes them: a disk
//! that hangs must not hold up the measuring.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use elkfk_base::Tasks;
use elkfk_base::durable::DataDirectory;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::history::{Closed, Grain, Histories};
use super::journal::{self, Names};

const FORMAT_VERSION: u32 = 1;
/// All files together; the oldest go first.
const BYTES_MAX: u64 = 128 << 20;
/// A file is not read further than this, which no file of ours reaches.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Batches on their way to the disk; while it hangs, newer ones are left out.
const WAITING_MAX: usize = 64;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Job {
    Closed(Vec<Closed>),
    Mark(Vec<u8>),
}

/// Where the measuring sends what is to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    sender: Option<mpsc::Sender<Job>>,
}

impl Disk {
    /// Keeps nothing.
    pub(crate) fn none() -> Self {
        Self { sender: None }
    }

    pub(crate) fn keep(&self, closed: Vec<Closed>) {
        if !closed.is_empty() {
            self.send(Job::Closed(closed));
        }
    }

    pub(crate) fn keep_mark(&self, json: Vec<u8>) {
        self.send(Job::Mark(json));
    }

    fn send(&self, write: Job) {
        if let Some(sender) = &self.sender {
            // A disk that does not keep up costs points, not memory.
            let _ = sender.try_send(write);
        }
    }
}

/// Reads what an earlier run kept and goes on behind it. Without a usable directory the history is in
/// memory only, which is told once.
pub(crate) fn open(path: &Path, tasks: &Tasks) -> (Disk, Histories, Vec<Vec<u8>>) {
    let mut histories = Histories::default();
    let directory = match DataDirectory::open(path, FORMAT_VERSION) {
        Ok(directory) => directory,
        Err(error) => {
            warn!(%error, "the history is kept in memory only");
            return (Disk::none(), histories, Vec::new());
        }
    };
    let mut files = Files { directory, open: [None, None], is_well: true };
    let marks = files.read(&mut histories);
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    tasks.spawn_blocking(move || {
        // Ends when the measuring has, with all it had to say.
        while let Some(write) = receiver.blocking_recv() {
            files.write(&write);
        }
    });
    (Disk { sender: Some(sender) }, histories, marks)
}

/// A file that is written to.
#[derive(Debug)]
struct Open {
    file: File,
    names: Names,
    /// Up to here it is whole.
    bytes: u64,
    /// The window of time it is for.
    period: i64,
}

#[derive(Debug)]
struct Files {
    directory: DataDirectory,
    open: [Option<Open>; 2],
    is_well: bool,
}

impl Grain {
    /// One file holds this long.
    fn file_ms(self) -> i64 {
        match self {
            Self::TenSeconds => 3_600_000,
            Self::FiveMinutes => 86_400_000,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::TenSeconds => "10s-",
            Self::FiveMinutes => "5m-",
        }
    }
}

impl Files {
    fn path(&self, grain: Grain, period: i64) -> PathBuf {
        self.directory.path().join(format!("{}{period:08}.history", grain.prefix()))
    }

    /// (grain, period, bytes) of every file of ours, oldest first.
    fn list(&self) -> Vec<(Grain, i64, u64)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            for grain in Grain::ALL {
                let period = name
                    .strip_prefix(grain.prefix())
                    .and_then(|rest| rest.strip_suffix(".history"))
                    .and_then(|period| period.parse().ok());
                if let Some(period) = period {
                    let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                    files.push((grain, period, bytes));
                }
            }
        }
        files.sort_by_key(|(grain, period, _)| period * grain.file_ms());
        files
    }

    fn read(&self, histories: &mut Histories) -> Vec<Vec<u8>> {
        let mut marks = Vec::new();
        for (grain, period, bytes) in self.list() {
            if bytes > FILE_BYTES_MAX {
                continue;
            }
            match fs::read(self.path(grain, period)) {
                Ok(bytes) => {
                    let read = journal::read(&bytes, grain);
                    read.closed.into_iter().for_each(|closed| histories.restore(closed));
                    marks.extend(read.marks);
                }
                Err(error) => warn!(%error, "a part of the history cannot be read"),
            }
        }
        marks
    }

    fn write(&mut self, write: &Job) {
        let result = match write {
            Job::Closed(closed) => Grain::ALL.into_iter().try_for_each(|grain| {
                let of_it: Vec<_> =
                    closed.iter().filter(|closed| closed.grain == grain).cloned().collect();
                let Some(first) = of_it.first() else { return Ok(()) };
                self.append(grain, first.at_ms, |names, out| {
                    journal::write_closed(names, &of_it, out);
                })
            }),
            Job::Mark(json) => {
                let now_ms = crate::now_ms();
                self.append(Grain::FiveMinutes, now_ms, |_, out| journal::write_mark(json, out))
            }
        };
        match result {
            Ok(()) if !self.is_well => {
                info!("the history is written to disk again");
                self.is_well = true;
            }
            Err(error) if self.is_well => {
                let path = self.directory.path().display();
                warn!(%path, %error, "the history cannot be written; it is kept in memory only");
                self.is_well = false;
            }
            _ => {}
        }
    }

    fn append(
        &mut self,
        grain: Grain,
        at_ms: i64,
        records: impl FnOnce(&mut Names, &mut Vec<u8>),
    ) -> io::Result<()> {
        let (slot, period) = (grain as usize, at_ms.div_euclid(grain.file_ms()));
        if self.open[slot].as_ref().is_none_or(|open| open.period != period) {
            if let Some(done) = self.open[slot].take() {
                done.file.sync_data()?;
            }
            self.purge(at_ms);
            self.open[slot] = Some(self.open_file(grain, period)?);
        }
        // Taken out: what fails is opened anew, which cuts what was half written.
        let Some(mut open) = self.open[slot].take() else { return Ok(()) };
        let mut out = Vec::new();
        records(&mut open.names, &mut out);
        if open.bytes + out.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other("the file of this period has grown to its bound"));
        }
        open.file.write_all(&out)?;
        open.bytes += out.len() as u64;
        self.open[slot] = Some(open);
        Ok(())
    }

    /// Opens the file of a period behind the last whole record.
    fn open_file(&self, grain: Grain, period: i64) -> io::Result<Open> {
        let path = self.path(grain, period);
        let before = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= FILE_BYTES_MAX => fs::read(&path)?,
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let read = journal::read(&before, grain);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.set_len(read.whole_bytes as u64)?;
        let mut bytes = read.whole_bytes as u64;
        if read.whole_bytes == 0 {
            file.write_all(journal::MAGIC)?;
            bytes = journal::MAGIC.len() as u64;
        }
        Ok(Open { file, names: read.names, bytes, period })
    }

    /// Removes what the rings no longer reach, and the oldest where all is too large.
    fn purge(&self, now_ms: i64) {
        let mut files = self.list();
        files.retain(|(grain, period, _)| {
            let is_old = now_ms - (period + 1) * grain.file_ms() > grain.span_ms();
            if is_old {
                let _ = fs::remove_file(self.path(*grain, *period));
            }
            !is_old
        });
        let mut bytes: u64 = files.iter().map(|(.., bytes)| bytes).sum();
        for (grain, period, of_it) in files {
            if bytes <= BYTES_MAX {
                return;
            }
            if fs::remove_file(self.path(grain, period)).is_ok() {
                bytes -= of_it;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use elkfk_base::Tasks;

    use super::*;

    fn closed(at_ms: i64) -> Closed {
        let series = ("sink".to_owned(), "logs".to_owned());
        Closed { grain: Grain::TenSeconds, at_ms, series, values: [1.0; 4] }
    }

    /// When the present hour began: within it there is one file.
    fn begin_ms() -> i64 {
        let now_ms = crate::now_ms();
        now_ms - now_ms.rem_euclid(3_600_000)
    }

    async fn run(path: &Path, keep: &[i64]) -> usize {
        let tasks = Tasks::new();
        let (disk, histories, marks) = open(path, &tasks);
        keep.iter().for_each(|at_ms| disk.keep(vec![closed(*at_ms)]));
        disk.keep_mark(b"{}".to_vec());
        drop(disk);
        tasks.shutdown().await;
        let _ = marks;
        histories.points("sink", "logs", (i64::MIN, i64::MAX)).len()
    }

    #[tokio::test]
    async fn it_outlives_restarts_and_torn_tails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let begin_ms = begin_ms();
        let at = |n: i64| begin_ms + n * 10_000;
        assert_eq!(run(path, &[at(0), at(1), at(2)]).await, 0);
        assert_eq!(run(path, &[at(3)]).await, 3);
        let newest = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("10s-"))
            .unwrap();
        let whole = fs::read(&newest).unwrap();
        fs::write(&newest, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(run(path, &[at(4)]).await, 3);
        assert_eq!(run(path, &[]).await, 4);
        // Marks of four runs.
        let (_, _, marks) = open(path, &Tasks::new());
        assert_eq!(marks.len(), 4);
    }

    /// The file of the day is opened at any hour of it: that of this hour stays.
    #[tokio::test]
    async fn a_mark_in_the_morning_leaves_the_points_of_the_morning() {
        let directory = tempfile::tempdir().unwrap();
        let (day, hour) = (86_400_000, 3_600_000);
        let morning = crate::now_ms().div_euclid(day) * day + hour;
        let tasks = Tasks::new();
        let (held, ..) = open(directory.path(), &tasks);
        drop(held);
        tasks.shutdown().await;
        let opened = DataDirectory::open(directory.path(), FORMAT_VERSION).unwrap();
        let mut files = Files { directory: opened, open: [None, None], is_well: true };
        files.write(&Job::Closed(vec![closed(morning)]));
        files
            .append(Grain::FiveMinutes, morning + 1, |_, out| journal::write_mark(b"{}", out))
            .unwrap();
        let kept = files.list().into_iter().map(|(grain, ..)| grain);
        assert_eq!(kept.collect::<Vec<_>>(), [Grain::FiveMinutes, Grain::TenSeconds]);
    }

    #[tokio::test]
    async fn old_files_go() {
        let directory = tempfile::tempdir().unwrap();
        let hours: Vec<i64> = (-24..0).map(|hour| begin_ms() + hour * 3_600_000).collect();
        run(directory.path(), &hours).await;
        let files = fs::read_dir(directory.path())
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("10s-")
            })
            .count();
        assert!((3..=5).contains(&files), "{files}");
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_used_is_no_reason_to_stop() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(run(&file.join("below"), &[begin_ms()]).await, 0);
        let tasks = Tasks::new();
        let (held, ..) = open(directory.path(), &tasks);
        assert_eq!(run(directory.path(), &[begin_ms()]).await, 0);
        // Gone while it is in use.
        drop(held);
        tasks.shutdown().await;
    }
}
