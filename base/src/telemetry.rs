//! Where the program's own log goes, and the registry of its metrics.

use std::io::{IsTerminal, Write};

use prometheus::TextEncoder;
use tracing_subscriber::EnvFilter;

/// Sends the program's log to standard error: text on a terminal or by default, JSON with
/// `ELKFK_LOG_FORMAT=json`. `ELKFK_LOG` filters it as `RUST_LOG` would, `default_filter` where unset.
/// What is wrong with an `ELKFK_LOG` is said there too; the log then goes on with `default_filter`.
pub fn init(default_filter: &str) {
    let (filter, result) = filter(std::env::var("ELKFK_LOG").ok().as_deref(), default_filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Where standard error is closed, to complain there about it would end the thread that logs.
        .log_internal_errors(false);
    // A second call, as in tests that share a process, changes nothing.
    let _ = if std::env::var("ELKFK_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    if let Err(wrong) = result {
        let _ = writeln!(std::io::stderr(), "warning: {wrong}");
    }
}

fn filter(given: Option<&str>, default_filter: &str) -> (EnvFilter, Result<(), String>) {
    let default = || EnvFilter::new(default_filter);
    match given.map(str::trim).filter(|given| !given.is_empty()) {
        None => (default(), Ok(())),
        Some(given) => match EnvFilter::try_new(given) {
            Ok(filter) => (filter, Ok(())),
            Err(error) => {
                let text = format!(
                    "ELKFK_LOG={given}: {error}; the level stays {default_filter} (give error, warn, info, debug or trace, or name=level,…)"
                );
                (default(), Err(text))
            }
        },
    }
}

/// All metrics of this process in Prometheus' text format.
pub fn metrics_text() -> String {
    TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let read = |given| filter(given, "warn");
        assert_eq!(read(Some("debug")).0.to_string(), "debug");
        assert!(read(Some("elkfk_broker=trace,info")).1.is_ok());
        for unset in [None, Some(""), Some(" ")] {
            let (filter, result) = read(unset);
            assert_eq!((filter.to_string(), result), ("warn".into(), Ok(())));
        }
        let (filter, result) = read(Some("elkfk=loud"));
        assert_eq!(filter.to_string(), "warn");
        assert!(result.unwrap_err().starts_with("ELKFK_LOG=elkfk=loud: "));
    }
}
