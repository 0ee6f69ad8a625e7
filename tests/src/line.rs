//! The whole line as a user runs it: `elkfk up`, its addresses, and what its index holds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process::{Process, elkfk};

/// A running `elkfk up` and where its boxes listen.
#[derive(Debug)]
pub struct Up {
    pub process: Process,
    /// `http://host:port` of the index: ours, or the one given with `--elasticsearch`.
    pub elasticsearch: String,
    /// `host:port` of the broker: ours, or the one given with `--bootstrap-server`.
    pub bootstrap: String,
    /// `http://host:port` of the page.
    pub dashboard: String,
    /// `host:port` of the coordinator; empty where there is none of ours.
    pub coordinator: String,
    /// From the process's start to the printed address of the page.
    pub ready_after: Duration,
}

impl Up {
    /// Starts it with its data in `dir/data`, on ports that were free at the first start there; its log is
    /// appended to `dir/up.log`.
    pub fn start(dir: &Path, args: &[&str]) -> Result<Self> {
        let data = dir.join("data").display().to_string();
        Self::start_with(dir, &[&["--data", &data], args].concat(), &[])
    }

    /// The same, with its data where it puts it itself, and with more in its environment.
    pub fn start_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let log = dir.join("up.log");
        let printed = std::fs::read_to_string(&log).unwrap_or_default().len();
        let mut command = Command::new(elkfk());
        command.arg("up").envs(env.iter().copied());
        let flags = ["--coordinator-port", "--broker-port", "--store-port", "--dashboard-port"];
        // A second start in the same directory takes the ports of the first, as a user's would: a broker that
        // comes back to its address takes its old registration over at once.
        let remembered = dir.join("ports");
        let ports = match std::fs::read_to_string(&remembered) {
            Ok(text) => text,
            Err(_) => {
                let text = flags.map(|_| crate::free_port().to_string()).join(" ");
                std::fs::write(&remembered, &text)?;
                text
            }
        };
        for (flag, port) in flags.iter().zip(ports.split(' ')) {
            command.args([flag, port]);
        }
        command.args(args);
        let begun = Instant::now();
        let mut process = Process::start("elkfk up", &mut command, &log)?;
        let fresh =
            |process: &Process| process.output().get(printed..).unwrap_or_default().to_owned();
        process.wait_until(Duration::from_secs(60), |process| {
            fresh(process).lines().any(|line| line.starts_with("dashboard "))
        })?;
        let ready_after = begun.elapsed();
        let text = fresh(&process);
        let address = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
            line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_owned()
        };
        let given = |flag: &str| {
            args.iter()
                .position(|arg| *arg == flag)
                .and_then(|at| args.get(at + 1))
                .map(|arg| (*arg).to_owned())
        };
        Ok(Self {
            elasticsearch: given("--elasticsearch")
                .unwrap_or_else(|| format!("http://{}", address("store"))),
            bootstrap: given("--bootstrap-server").unwrap_or_else(|| address("broker")),
            dashboard: address("dashboard"),
            coordinator: address("coordinator"),
            process,
            ready_after,
        })
    }

    pub fn index(&self) -> Index {
        Index::new(&self.elasticsearch)
    }
}

/// The indices `logs-*` of an Elasticsearch, ours or a real one.
#[derive(Debug, Clone)]
pub struct Index {
    url: String,
    agent: ureq::Agent,
}

impl Index {
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false);
        Self { url: url.to_owned(), agent: config.build().into() }
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        let mut answer = self
            .agent
            .get(format!("{}{path}", self.url))
            .call()
            .with_context(|| format!("GET {path}"))?;
        Ok(answer.body_mut().with_config().limit(256 << 20).read_json()?)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self
            .agent
            .post(format!("{}{path}", self.url))
            .send_json(body)
            .with_context(|| format!("POST {path}"))?;
        Ok(answer.body_mut().with_config().limit(256 << 20).read_json()?)
    }

    /// Whether `path` is answered with 200.
    pub fn is_ok(&self, path: &str) -> bool {
        self.agent
            .get(format!("{}{path}", self.url))
            .call()
            .is_ok_and(|answer| answer.status().as_u16() == 200)
    }

    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self
            .agent
            .put(format!("{}{path}", self.url))
            .send_json(body)
            .with_context(|| format!("PUT {path}"))?;
        Ok(answer.body_mut().with_config().limit(256 << 20).read_json()?)
    }

    /// Documents of `logs-*`; 0 while there is no such index.
    pub fn count(&self) -> Result<u64> {
        let _ = self.post("/logs-*/_refresh", &json!({}));
        Ok(self.get("/logs-*/_count")?["count"].as_u64().unwrap_or(0))
    }

    /// Waits until `count` documents are there; an error once there are more, or after `limit` without a change.
    pub fn wait_for(&self, count: u64, limit: Duration) -> Result<()> {
        let (mut last, mut changed) = (0, Instant::now());
        loop {
            let now = self.count().unwrap_or(last);
            ensure!(now <= count, "{now} documents, {} more than there are lines", now - count);
            if now == count {
                return Ok(());
            }
            if now != last {
                (last, changed) = (now, Instant::now());
            }
            if changed.elapsed() > limit {
                bail!("{now} of {count} documents, and no change for {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Watches for `period` that the number of documents stays what it is.
    pub fn stays(&self, count: u64, period: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < period {
            let now = self.count()?;
            ensure!(now == count, "{now} documents after there were {count}");
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Waits until at least `count` documents are there.
    pub fn wait_for_more(&self, count: u64, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.count().unwrap_or(0) < count {
            ensure!(begun.elapsed() < limit, "fewer than {count} documents after {limit:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    pub fn delete(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.delete(format!("{}{path}", self.url)).force_send_body();
        let mut answer = request.send_json(body).with_context(|| format!("DELETE {path}"))?;
        Ok(answer.body_mut().read_json()?)
    }

    /// Each line of every document and how often it is there.
    ///
    /// Read at a point in time: without one, a merge between two pages moves documents over their border.
    pub fn lines(&self) -> Result<HashMap<String, u32>> {
        let mut lines = HashMap::new();
        let mut indices: Vec<String> = self
            .get("/_cat/indices/logs-*?format=json&h=index")?
            .as_array()
            .context("a list of indices")?
            .iter()
            .filter_map(|row| row["index"].as_str().map(str::to_owned))
            .collect();
        indices.sort();
        for index in indices {
            let opened = self.post(&format!("/{index}/_pit?keep_alive=5m"), &json!({}))?;
            let mut pit = opened["id"].clone();
            ensure!(pit.is_string(), "no point in time of {index}: {opened}");
            let mut after = Value::Null;
            loop {
                let mut body = json!({
                    "pit": {"id": pit, "keep_alive": "5m"},
                    "size": 5000, "track_total_hits": false, "query": {"match_all": {}},
                    "_source": ["@timestamp", "message", "event.original", "host.hostname", "process.name", "process.pid"],
                    "sort": [{"_shard_doc": "asc"}],
                });
                if !after.is_null() {
                    body["search_after"] = after;
                }
                let answer = self.post("/_search", &body)?;
                if answer["pit_id"].is_string() {
                    pit = answer["pit_id"].clone();
                }
                let hits = answer["hits"]["hits"]
                    .as_array()
                    .with_context(|| format!("hits of {index}: {answer}"))?;
                for hit in hits {
                    let line = written_line(&hit["_source"]);
                    let line =
                        line.with_context(|| format!("a document without its line: {hit}"))?;
                    *lines.entry(line).or_insert(0) += 1;
                }
                let Some(last) = hits.last() else { break };
                after = last["sort"].clone();
            }
            self.delete("/_pit", &json!({"id": pit}))?;
        }
        Ok(lines)
    }
}

/// The line a document was made of. The default pipeline takes a syslog line apart and keeps its text as
/// `message`, so that line is put together again from its fields: each of them is checked thereby.
fn written_line(source: &Value) -> Option<String> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let message = source["event"]["original"].as_str().or(source["message"].as_str())?;
    let Some(host) = source["host"]["hostname"].as_str() else {
        return Some(message.to_owned());
    };
    // 2026-03-01T00:00:01.000Z
    let time = source["@timestamp"].as_str()?;
    let month = MONTHS.get(time.get(5..7)?.parse::<usize>().ok()?.checked_sub(1)?)?;
    let day: u32 = time.get(8..10)?.parse().ok()?;
    let pid = source["process"]["pid"].as_u64().map(|pid| format!("[{pid}]")).unwrap_or_default();
    // A tag that is none (a process id of 0, say) stays part of the text.
    let tag =
        source["process"]["name"].as_str().map(|name| format!("{name}{pid}: ")).unwrap_or_default();
    Some(format!("{month} {day:>2} {} {host} {tag}{message}", time.get(11..19)?))
}

/// What differs between the lines that were written and those that were found; empty when nothing does.
pub fn difference(written: &HashMap<String, u32>, found: &HashMap<String, u32>) -> Vec<String> {
    let count = |lines: &HashMap<String, u32>, line: &String| lines.get(line).copied().unwrap_or(0);
    let mut differences: Vec<_> = written
        .keys()
        .chain(found.keys().filter(|line| !written.contains_key(*line)))
        .map(|line| (line, count(written, line), count(found, line)))
        .filter(|(_, written, found)| written != found)
        .map(|(line, written, found)| format!("written {written}, found {found}: {line}"))
        .collect();
    differences.sort();
    differences
}

/// A directory for one test; kept and named when the test fails, for what it holds explains the failure.
#[derive(Debug)]
pub struct TestDir(Option<tempfile::TempDir>);

impl TestDir {
    pub fn new() -> Self {
        Self(Some(tempfile::tempdir().expect("create a directory for the test")))
    }

    pub fn path(&self) -> PathBuf {
        self.0.as_ref().expect("taken only when dropped").path().to_owned()
    }
}

impl Default for TestDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}
