//! `--demo`: a web shop that logs as one, so that there is something to follow.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, Zoned, tz::TimeZone};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tracing::warn;

use elkfk_base::Tasks;

/// The files of the demo stay below this, with as many old ones beside them.
const FILE_BYTES_MAX: u64 = 4 << 20;
const OLD_FILES: u32 = 2;
/// Lines come in small bursts this often; their number varies around 50 a second.
const EVERY: Duration = Duration::from_millis(100);

/// Where the demo writes, below a data directory.
pub(crate) fn directory(data: &Path) -> PathBuf {
    data.join("demo")
}

/// Starts writing `nginx/access.log` and `syslog` in `directory`, rotated as logrotate would.
pub(crate) fn start(directory: &Path, tasks: &Tasks) -> io::Result<()> {
    let nginx = directory.join("nginx");
    fs::create_dir_all(&nginx)?;
    let mut access = Rotating::open(nginx.join("access.log"))?;
    let mut syslog = Rotating::open(directory.join("syslog"))?;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let mut shop = Shop { rng: SmallRng::seed_from_u64(seed), orders: 1000 };
    let stopping = tasks.token();
    tasks.spawn("demo", async move {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = Timestamp::now().to_zoned(TimeZone::UTC);
            let result = (|| {
                for _ in 0..shop.rng.random_range(2..7) {
                    access.write_line(&shop.request(&now))?;
                }
                if shop.rng.random_bool(0.4) {
                    syslog.write_line(&shop.system(&now))?;
                }
                Ok::<_, io::Error>(())
            })();
            if let Err(error) = result {
                warn!(%error, "write the demo's log");
                return;
            }
        }
    });
    Ok(())
}

/// A log file that is renamed away when it has grown.
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Rotating {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        if self.bytes > FILE_BYTES_MAX {
            let old = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
            for n in (1..OLD_FILES).rev() {
                if old(n).exists() {
                    fs::rename(old(n), old(n + 1))?;
                }
            }
            fs::rename(&self.path, old(1))?;
            *self = Self::open(std::mem::take(&mut self.path))?;
        }
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

struct Shop {
    rng: SmallRng,
    orders: u64,
}

const PATHS: [&str; 10] = [
    "/",
    "/products/lamp",
    "/products/kettle",
    "/cart",
    "/checkout",
    "/search?q=lamp",
    "/static/app.css",
    "/static/app.js",
    "/api/v1/stock",
    "/account/login",
];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "curl/8.5.0",
    "kube-probe/1.29",
];
const STATUSES: [u16; 20] = [
    200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 304, 304, 301, 404, 404, 403, 500,
    502,
];

impl Shop {
    fn address(&mut self) -> String {
        // Documentation addresses (RFC 5737): nobody's.
        let net =
            *["192.0.2", "198.51.100", "203.0.113"].choose(&mut self.rng).unwrap_or(&"192.0.2");
        format!("{net}.{}", self.rng.random_range(1..255))
    }

    /// A line of nginx's combined format.
    fn request(&mut self, now: &Zoned) -> String {
        let path = if self.rng.random_bool(0.2) {
            self.orders += 1;
            format!("/api/v1/orders/{}", self.orders)
        } else {
            (*PATHS.choose(&mut self.rng).unwrap_or(&"/")).to_owned()
        };
        let method = if path == "/checkout" || path.ends_with("login") { "POST" } else { "GET" };
        let status = *STATUSES.choose(&mut self.rng).unwrap_or(&200);
        let bytes = if status == 304 { 0 } else { self.rng.random_range(120..40_000) };
        let agent = *AGENTS.choose(&mut self.rng).unwrap_or(&"-");
        let time = now.strftime("%d/%b/%Y:%H:%M:%S %z");
        format!(
            r#"{} - - [{time}] "{method} {path} HTTP/1.1" {status} {bytes} "-" "{agent}""#,
            self.address()
        )
    }

    /// A line as rsyslog writes it.
    fn system(&mut self, now: &Zoned) -> String {
        let pid = self.rng.random_range(300..32_000);
        let text = match self.rng.random_range(0..5) {
            0 => format!(
                "sshd[{pid}]: Failed password for invalid user admin from {} port 40222 ssh2",
                self.address()
            ),
            1 => format!("CRON[{pid}]: (root) CMD (/usr/local/bin/backup --quiet)"),
            2 => "systemd[1]: Started Session of User deploy.".to_owned(),
            3 => format!(
                "shop[{pid}]: order {} paid in {} ms",
                self.orders,
                self.rng.random_range(20..900)
            ),
            _ => format!("shop[{pid}]: payment provider timed out, trying again"),
        };
        format!("{} web-1 {text}", now.strftime("%b %e %H:%M:%S"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_small_and_no_line_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut file = Rotating::open(path.clone()).unwrap();
        let line = "x".repeat(1 << 20);
        for _ in 0..20 {
            file.write_line(&line).unwrap();
        }
        let files: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len() as u32, 1 + OLD_FILES);
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.len() as u64 <= FILE_BYTES_MAX + 2 * line.len() as u64);
            assert!(text.lines().all(|found| found == line));
        }
    }
}
