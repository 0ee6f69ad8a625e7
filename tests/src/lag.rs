//! The lag of a group as we say it and as Kafka's own tool says it, to be compared.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::peers;

/// (topic, partition) → committed offset, end and lag; what is not known is `-`.
pub type Figures = BTreeMap<(String, i64), [String; 3]>;

/// Of topics with their partitions, as `elkfk lag --json` and the dashboard write them.
///
/// # Panics
/// Where a topic or a partition has no name.
pub fn ours<'a>(topics: impl IntoIterator<Item = &'a Value>) -> Figures {
    let text = |value: &Value| value.as_i64().map_or("-".to_owned(), |number| number.to_string());
    let mut figures = Figures::new();
    for topic in topics {
        let name = topic["topic"].as_str().expect("a topic has a name");
        for partition in topic["partitions"].as_array().into_iter().flatten() {
            let index = partition["partition"].as_i64().expect("a partition has a number");
            let of_it = ["committed", "end", "lag"].map(|field| text(&partition[field]));
            figures.insert((name.to_owned(), index), of_it);
        }
    }
    figures
}

/// The same from the real `kafka-consumer-groups --describe`.
///
/// # Errors
/// Where it does not run, or knows nothing of the group.
pub fn kafkas(bootstrap: &str, group: &str) -> Result<Figures> {
    let args = ["--bootstrap-server", bootstrap, "--describe", "--group", group];
    let output = peers::kafka_tool("kafka-consumer-groups", &args, "")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut figures = Figures::new();
    for line in text.lines() {
        // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
        let cells: Vec<_> = line.split_whitespace().collect();
        if cells.first() == Some(&group) {
            let [_, topic, partition, committed, end, lag, ..] = cells[..] else { continue };
            let partition = partition.parse().with_context(|| line.to_owned())?;
            figures.insert((topic.to_owned(), partition), [committed, end, lag].map(str::to_owned));
        }
    }
    ensure!(!figures.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(figures)
}
