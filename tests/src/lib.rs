//! What the tests of the whole path share: the ancestors as child processes, and our own binary.

pub mod boxes;
pub mod ensemble;
pub mod lag;
pub mod line;
pub mod network;
pub mod peers;
pub mod process;
pub mod raw;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// Those of Kafka's tools that are ours too, each under its own name.
pub const KAFKA_TOOLS: [&str; 8] = [
    "kafka-cluster",
    "kafka-configs",
    "kafka-console-consumer",
    "kafka-console-producer",
    "kafka-consumer-groups",
    "kafka-delete-records",
    "kafka-get-offsets",
    "kafka-topics",
];

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' crate stands in the workspace")
        .into()
}

/// Where `tests/setup` puts what only tests use: `ELKFK_TEST_TOOLS`, or `~/.cache/elkfk-test-tools`.
pub fn test_tools() -> PathBuf {
    std::env::var_os("ELKFK_TEST_TOOLS").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/elkfk-test-tools")
        },
        PathBuf::from,
    )
}

/// A port that was free a moment ago, for programs that cannot bind port 0 and say what they got.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port on loopback");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// `count` lines of the log generator as it writes them: `kind` is `nginx` or `syslog`.
///
/// `None` where the generator is absent, which is reported as a skip (a failure where peers are required).
pub fn gen_logs(test: &str, kind: &str, count: usize, seed: u64) -> Option<Vec<u8>> {
    let generator = std::env::var_os("ELKFK_GEN_LOGS")
        .map_or_else(|| workspace().join("../shared/data/gen-logs"), PathBuf::from);
    if !generator.exists() {
        peers::skip(test, "the log generator");
        return None;
    }
    let output = std::process::Command::new("python3")
        .arg(generator)
        .args([kind, &count.to_string(), &seed.to_string()])
        .output()
        .expect("run the log generator with python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// Where the tests of the page are, if a browser and what drives it are here; else `test` is reported as
/// skipped.
pub fn browser_tests(test: &str) -> Option<PathBuf> {
    let tests = workspace().join("dashboard/tests");
    let has_browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .iter()
        .any(|path| std::fs::exists(path).unwrap_or(false));
    let is_here = has_browser && tests.join("node_modules/playwright-core").exists();
    if !is_here {
        peers::skip(test, "chromium or playwright-core");
    }
    is_here.then_some(tests)
}
