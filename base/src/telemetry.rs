//! Where the program's own log goes, and the registry of its metrics.

use std::io::IsTerminal;

use prometheus::TextEncoder;
use tracing_subscriber::EnvFilter;

/// Sends the program's log to standard error: text on a terminal or by default, JSON with
/// `ELKFK_LOG_FORMAT=json`. `ELKFK_LOG` filters it as `RUST_LOG` would, `default_filter` where unset.
pub fn init(default_filter: &str) {
    let filter =
        EnvFilter::try_from_env("ELKFK_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as in tests that share a process, changes nothing.
    let _ = if std::env::var("ELKFK_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
}

/// All metrics of this process in Prometheus' text format.
pub fn metrics_text() -> String {
    TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap_or_default()
}
