//! Files that a simulation is given: traces, and recordings of a cluster.

use anyhow::{Context, Result, anyhow, ensure};
use elkfk_autoscaler::simulate::{self, Trace};

/// Larger files are refused rather than held in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// One trace, or what was recorded of each group and topic.
pub(super) fn read(name: &str) -> Result<Vec<Trace>> {
    let bytes = std::fs::metadata(name).with_context(|| format!("read {name}"))?.len();
    ensure!(bytes <= FILE_BYTES_MAX, "{name}: {bytes} bytes are more than {FILE_BYTES_MAX}");
    let text = std::fs::read_to_string(name).with_context(|| format!("read {name}"))?;
    if is_recording(&text) {
        return simulate::recorded(name, &text).map_err(|wrong| anyhow!(wrong));
    }
    let trace = serde_json::from_str(&text)
        .with_context(|| format!("{name}: not a trace as docs/autoscaler.md describes it"))?;
    Ok(vec![trace])
}

/// Whether the first line is a document of its own that has to do with a group.
fn is_recording(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(first).is_ok_and(|line| line["group"].is_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_told_from_a_trace() {
        assert!(is_recording("\n{\"at_ms\": 1, \"group\": \"g\"}\n{}"));
        assert!(!is_recording("{\"name\": \"monday\"}"));
        assert!(!is_recording("{\n\"name\": \"monday\"\n}"));
        assert!(!is_recording(""));
    }
}
