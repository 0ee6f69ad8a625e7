//! Log files that are written all the time, at a rate: numbered lines, as a service writes them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a line.
const LINE_BYTES: usize = 300;
/// Lines after which a file is closed and a next one begun; the one before the last is then removed.
const LINES_PER_FILE: u64 = 100;
const FILES: u64 = 8;
/// Of ten lines, those that go to the one hot file.
const HOT_OF_TEN: u64 = 9;

/// Which file gets which line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// To each its share; files are rotated.
    Even,
    /// Nine of ten to one file that stays.
    OneHot,
}

pub(crate) struct Files {
    thread: JoinHandle<u64>,
    stop: Arc<AtomicBool>,
    lines_per_s: Arc<AtomicU64>,
}

impl Files {
    pub(crate) fn write(dir: PathBuf, shape: Shape, lines_per_s: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let lines_per_s = Arc::new(AtomicU64::new(lines_per_s));
        let (stopped, rate) = (stop.clone(), lines_per_s.clone());
        let thread = std::thread::spawn(move || write(&dir, shape, &stopped, &rate));
        Self { thread, stop, lines_per_s }
    }

    pub(crate) fn set_rate(&self, lines_per_s: u64) {
        self.lines_per_s.store(lines_per_s, Relaxed);
    }

    /// How many lines there are.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn write(dir: &Path, shape: Shape, stop: &AtomicBool, rate: &AtomicU64) -> u64 {
    std::fs::create_dir_all(dir).unwrap();
    let mut files: Vec<(u64, Option<File>)> = (0..FILES).map(|_| (0, None)).collect();
    let (mut n, mut due, mut last) = (0, 0.0, Instant::now());
    while !stop.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        due += last.elapsed().as_secs_f64() * rate.load(Relaxed) as f64;
        last = Instant::now();
        while due >= 1.0 {
            let at = match shape {
                Shape::Even => n % FILES,
                Shape::OneHot if n % 10 < HOT_OF_TEN => 0,
                Shape::OneHot => 1 + n / 10 % (FILES - 1),
            };
            let (lines, file) = &mut files[at as usize];
            let turn = *lines / LINES_PER_FILE;
            let path = |turn| dir.join(format!("{at}-{turn}.log"));
            if shape == Shape::Even && *lines % LINES_PER_FILE == 0 {
                *file = None;
                if turn > 2 {
                    std::fs::remove_file(path(turn - 3)).unwrap();
                }
            }
            let file = file.get_or_insert_with(|| File::create(path(turn)).unwrap());
            // Padded to its length: what is read a second is then bytes by a constant.
            let line = format!("{:.<LINE_BYTES$}\n", format!("event {n} "));
            file.write_all(line.as_bytes()).unwrap();
            (*lines, n, due) = (*lines + 1, n + 1, due - 1.0);
        }
    }
    n
}
