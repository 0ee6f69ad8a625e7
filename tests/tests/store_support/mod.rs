//! A store to test against, in this process or in one that can be killed, and HTTP to it.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use elkfk_store::Config;
use elkfk_tests::process::Process;
use serde_json::Value;

/// A store in this process, on a port and in a directory of its own.
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    running: Option<elkfk_store::Running>,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Store {
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: directory.path().join("store"),
            ..Config::default()
        };
        change(&mut config);
        let runtime = tokio::runtime::Runtime::new().expect("start a runtime");
        let running = runtime.block_on(elkfk_store::start(config)).expect("start a store");
        Self {
            address: running.local_addr(),
            running: Some(running),
            runtime,
            _directory: directory,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

/// An answer: status, headers, body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) product: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Sends a request; `headers` are name and value. Fails where the connection does.
pub(crate) fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(120)))
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut request =
        ureq::http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    if !body.is_empty()
        && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_vec()).expect("a request as asked for");
    let mut response = agent.run(request)?;
    let mut bytes = Vec::new();
    response.body_mut().as_reader().read_to_end(&mut bytes).map_err(ureq::Error::Io)?;
    let product = response.headers().get("x-elastic-product").and_then(|value| value.to_str().ok());
    Ok(Answer {
        status: response.status().as_u16(),
        product: product.map(str::to_owned),
        body: bytes,
    })
}

/// A store in a child process that can be killed: this test binary again, told to serve.
pub(crate) fn start_killable(directory: &Path) -> (Process, SocketAddr) {
    let log = directory.join("server.log");
    let before = ready_lines(&log).len();
    let mut command = Command::new(std::env::current_exe().expect("a running program has a file"));
    command
        .args(["--exact", "serves_when_told_to", "--nocapture", "--test-threads=1"])
        .env(SERVE_IN, directory.join("store"));
    let mut process = Process::start("store", &mut command, &log).expect("start a store");
    process
        .wait_until(Duration::from_secs(60), |_| ready_lines(&log).len() > before)
        .expect("the store says where it listens");
    let address = ready_lines(&log)[before].parse().expect("an address");
    (process, address)
}

const SERVE_IN: &str = "ELKFK_TEST_STORE_DIRECTORY";

fn ready_lines(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| line.split("ready: ").nth(1)).map(str::to_owned).collect()
}

/// What the child process does; in an ordinary run, nothing.
pub(crate) fn serve_if_told() {
    let Some(directory) = std::env::var_os(SERVE_IN) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("start a runtime");
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data_dir: directory.into(),
        ..Config::default()
    };
    let running = runtime.block_on(elkfk_store::start(config)).expect("start a store");
    println!("ready: {}", running.local_addr());
    runtime.block_on(std::future::pending::<()>());
}
