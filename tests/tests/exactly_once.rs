//! Nothing lost, nothing doubled: every line of four files, rotated in every way and with `kill -9`
//! of the whole process, is in the index once.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use elkfk_tests::gen_logs;
use elkfk_tests::line::{TestDir, Up, difference};
use elkfk_tests::peers::{self, Peer};
use flate2::Compression;
use flate2::write::GzEncoder;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Without a document more for this long, something is stuck.
const PATIENCE: Duration = Duration::from_secs(90);

/// Files are looked for anew every ten seconds: a line that is sent twice so late comes by then.
const SCAN: Duration = Duration::from_secs(12);

/// One line at a time: both at once would test the machine's patience.
static TURN: Mutex<()> = Mutex::new(());

fn line_count() -> usize {
    std::env::var("ELKFK_EXACTLY_ONCE_LINES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000)
}

/// How logrotate would rotate a file.
#[derive(Debug, Clone, Copy)]
enum Rotation {
    /// `create`: the file is renamed, a new one takes its name.
    Rename,
    /// `copytruncate`: its bytes are copied away, then it is cut to nothing.
    CopyTruncate,
}

/// A program that logs, and the logrotate beside it.
struct Source {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    text: Vec<u8>,
    at: usize,
    rotations: usize,
    /// Old files that were compressed.
    gzips: usize,
}

impl Source {
    fn new(dir: &Path, name: &str, rotation: Rotation, text: Vec<u8>) -> Self {
        let path = dir.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        Self { path, rotation, file, text, at: 0, rotations: 0, gzips: 0 }
    }

    fn old(&self, n: u32) -> PathBuf {
        PathBuf::from(format!("{}.{n}", self.path.display()))
    }

    /// Writes about `bytes` more, now and then not up to a line's end; false when all is written.
    fn write(&mut self, bytes: usize) -> bool {
        let end = (self.at + bytes).min(self.text.len());
        self.file.write_all(&self.text[self.at..end]).unwrap();
        self.at = end;
        end < self.text.len()
    }

    /// Whether it has come so far without being rotated that one is due: two in its life, so that its
    /// kind is met and an old file is compressed, whatever chance does.
    fn is_due(&self) -> bool {
        self.rotations < (self.at * 3 / self.text.len().max(1)).min(2)
    }

    /// To the end of the line, so that a rotation does not split one.
    fn finish_line(&mut self) {
        if self.at > 0 && self.text[self.at - 1] != b'\n' {
            let rest = self.text[self.at..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(self.text.len() - self.at, |n| n + 1);
            self.write(rest);
        }
    }

    fn rotate(&mut self) {
        self.finish_line();
        self.rotations += 1;
        let compressed = |n: u32| PathBuf::from(format!("{}.gz", self.old(n).display()));
        // .2.gz and older move up; .1 becomes .2.gz.
        for n in (2..20).rev().filter(|n| compressed(*n).exists()) {
            fs::rename(compressed(n), compressed(n + 1)).unwrap();
        }
        if self.old(1).exists() {
            let mut bytes = Vec::new();
            File::open(self.old(1)).unwrap().read_to_end(&mut bytes).unwrap();
            let mut gzip =
                GzEncoder::new(File::create(compressed(2)).unwrap(), Compression::fast());
            gzip.write_all(&bytes).unwrap();
            gzip.finish().unwrap();
            self.gzips += 1;
            fs::remove_file(self.old(1)).unwrap();
        }
        match self.rotation {
            Rotation::Rename => {
                fs::rename(&self.path, self.old(1)).unwrap();
                self.file = OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
            }
            Rotation::CopyTruncate => {
                fs::copy(&self.path, self.old(1)).unwrap();
                OpenOptions::new().write(true).open(&self.path).unwrap().set_len(0).unwrap();
            }
        }
    }
}

/// Kills while the lines are written; one more follows while they drain.
const KILLS: usize = 4;

/// Writes the lines while `elkfk up` runs and is killed five times; then every line is accounted for.
fn run(test: &str, seed: u64, extra: &[&str]) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let quarter = line_count() / 4;
    let texts = [("nginx", 1), ("nginx", 2), ("syslog", 3), ("syslog", 4)]
        .map(|(kind, n)| gen_logs(test, kind, quarter, seed * 10 + n));
    let [Some(a), Some(b), Some(c), Some(d)] = texts else { return };
    println!("{test}: seed {seed}, {} lines", quarter * 4);
    let mut written: HashMap<String, u32> = HashMap::new();
    for text in [&a, &b, &c, &d] {
        for line in std::str::from_utf8(text).unwrap().lines() {
            *written.entry(line.to_owned()).or_insert(0) += 1;
        }
    }
    let dir = TestDir::new();
    let logs = dir.path().join("log");
    fs::create_dir(&logs).unwrap();
    let mut sources = [
        Source::new(&logs, "access.log", Rotation::Rename, a),
        Source::new(&logs, "shop.log", Rotation::CopyTruncate, b),
        Source::new(&logs, "syslog", Rotation::Rename, c),
        Source::new(&logs, "auth.log", Rotation::CopyTruncate, d),
    ];
    let watch = format!("{}/**", logs.display());
    let mut args = vec!["--watch", watch.as_str()];
    args.extend(extra);
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut up = Up::start(&dir.path(), &args).unwrap();

    let bytes: usize = sources.iter().map(|source| source.text.len()).sum();
    let mut kills: Vec<usize> = (0..KILLS).map(|_| rng.random_range(bytes / 50..bytes)).collect();
    kills.sort_unstable();
    let mut killed = 0;
    while sources.iter().any(|source| source.at < source.text.len()) {
        for source in &mut sources {
            source.write(rng.random_range(1..400_000));
            if source.is_due() || rng.random_bool(0.06) && source.rotations < 12 {
                source.rotate();
            }
        }
        let written: usize = sources.iter().map(|source| source.at).sum();
        while kills.first().is_some_and(|at| *at <= written) {
            kills.remove(0);
            killed += 1;
            up.process.kill();
            // What happens while it is away is a rotation like any other.
            if rng.random_bool(0.5) {
                sources[rng.random_range(0..4)].rotate();
            }
            up = Up::start(&dir.path(), &args).unwrap();
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
    }
    // All is written, the rest of it is on its way.
    std::thread::sleep(Duration::from_millis(rng.random_range(0..500)));
    let drained = up.index().count();
    up.process.kill();
    killed += 1;
    println!("killed while draining, with {drained:?} lines in the index");
    up = Up::start(&dir.path(), &args).unwrap();
    assert_eq!((killed, kills.len()), (KILLS + 1, 0));
    for source in &sources {
        assert!(
            source.rotations >= 2 && source.gzips >= 1,
            "seed {seed}: {} was rotated {} times ({:?}), {} compressed",
            source.path.display(),
            source.rotations,
            source.rotation,
            source.gzips
        );
    }
    let index = up.index();
    let count = (quarter * 4) as u64;
    let waited = index.wait_for(count, PATIENCE).and_then(|()| index.stays(count, SCAN));
    let found = index.lines().unwrap();
    let differences = difference(&written, &found);
    assert!(
        differences.is_empty(),
        "seed {seed}: {} lines differ, {waited:?}:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
    waited.unwrap();
    let status = up.process.stop(Duration::from_secs(30)).unwrap();
    assert!(status.success(), "{status}");
}

fn seed() -> u64 {
    std::env::var("ELKFK_EXACTLY_ONCE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()))
}

#[test]
fn every_line_once_through_kills_and_rotations() {
    run("every_line_once_through_kills_and_rotations", seed(), &[]);
}

#[test]
fn every_line_once_into_real_kafka_and_elasticsearch() {
    let test = "every_line_once_into_real_kafka_and_elasticsearch";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper, Peer::Elasticsearch]) {
        return;
    }
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "").unwrap();
    let kafka = peers::kafka(&dir.path().join("kafka"), &zookeeper.addr.to_string(), &[]).unwrap();
    let elasticsearch = peers::elasticsearch(&dir.path().join("elasticsearch"), &[]).unwrap();
    let (bootstrap, url) = (kafka.addr.to_string(), format!("http://{}", elasticsearch.addr));
    run(test, seed(), &["--bootstrap-server", &bootstrap, "--elasticsearch", &url]);
}
