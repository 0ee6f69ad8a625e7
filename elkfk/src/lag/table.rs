//! A snapshot as a table.

use elkfk_broker_client::lag::{Drain, Figures, Snapshot};

const HEAD: [&str; 11] = [
    "GROUP",
    "TOPIC",
    "PARTITION",
    "STATE",
    "LAG",
    "BEHIND",
    "IN/S",
    "OUT/S",
    "DRAINED IN",
    "RETENTION USED",
    "LOST",
];
/// Columns whose values are aligned to the right.
const NUMBERS: std::ops::Range<usize> = 4..11;
const PARTITION: usize = 2;

/// Worst first: what is furthest behind; each partition, or each topic of a group.
pub(super) fn of(snapshot: &Snapshot, has_partitions: bool) -> String {
    let mut rows: Vec<(f64, Vec<String>)> = Vec::new();
    for group in &snapshot.groups {
        for topic in &group.topics {
            let mut add = |partition: String, figures: &Figures, why: Option<&String>| {
                let mut cells = vec![group.group.clone(), topic.topic.clone(), partition];
                cells.extend(cells_of(figures, why));
                rows.push((figures.lag_seconds.unwrap_or(-1.0), cells));
            };
            if has_partitions {
                for partition in &topic.partitions {
                    let why = partition.why.as_ref();
                    add(partition.partition.to_string(), &partition.figures, why);
                }
            } else {
                let why = topic.partitions.iter().find_map(|partition| partition.why.as_ref());
                add(topic.partitions.len().to_string(), &topic.figures, why);
            }
        }
        if group.topics.is_empty() {
            let why = group.why.as_ref();
            let mut cells = vec![group.group.clone(), "-".into(), "-".into()];
            cells.extend(cells_of(&group.figures, why));
            if why.is_none() {
                cells[3] = "reads nothing".into();
            }
            rows.push((-2.0, cells));
        }
    }
    if rows.is_empty() {
        return "No group has members or committed offsets.\n".into();
    }
    if !has_partitions {
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    let mut head = HEAD.map(str::to_owned).to_vec();
    if !has_partitions {
        head[PARTITION] = "PARTITIONS".into();
    }
    aligned(std::iter::once(head).chain(rows.into_iter().map(|(_, cells)| cells)).collect())
}

fn cells_of(figures: &Figures, why: Option<&String>) -> [String; 8] {
    let dash = || "-".to_owned();
    let state = match why {
        Some(why) => format!("{}: {why}", figures.state.name()),
        None => figures.state.name().to_owned(),
    };
    [
        state,
        figures.lag.map_or_else(dash, |lag| lag.to_string()),
        figures.lag_seconds.map_or_else(dash, duration),
        figures.in_rate.map_or_else(dash, rate),
        figures.out_rate.map_or_else(dash, rate),
        match figures.drain {
            None => dash(),
            Some(Drain::Never) => "never".into(),
            Some(Drain::Seconds(seconds)) => duration(seconds),
        },
        figures.retention_used.map_or_else(dash, |share| format!("{:.0} %", share * 100.0)),
        figures.lost.to_string(),
    ]
}

/// Seconds as a person says them.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0 if seconds > 0.05 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

fn rate(per_second: f64) -> String {
    match per_second {
        ..10.0 => format!("{per_second:.1}"),
        _ => format!("{per_second:.0}"),
    }
}

fn aligned(rows: Vec<Vec<String>>) -> String {
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(n, (cell, width))| {
            if NUMBERS.contains(&n) || n == PARTITION {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{GroupSample, PartitionSample, Retention, Sample, Tracker};

    use super::*;

    #[test]
    fn worst_topic_comes_first_and_unknown_says_why() {
        let partition = |topic: &str, committed, end, ms| PartitionSample {
            topic: topic.into(),
            committed,
            ends: Some((0, end)),
            committed_record_ms: ms,
            retention: Some(Retention { ms: Some(200_000), ..Retention::default() }),
            ..PartitionSample::default()
        };
        let refused = PartitionSample {
            topic: "gone".into(),
            why_unknown: Some("UNKNOWN_TOPIC_OR_PARTITION".into()),
            ..PartitionSample::default()
        };
        let group = |committed: i64, end: i64| GroupSample {
            group: "sink".into(),
            state: "Stable".into(),
            members: 1,
            partitions: vec![
                partition("calm", Some(5), 5, None),
                refused.clone(),
                partition("logs", Some(committed), end, Some(0)),
            ],
            why_unknown: None,
        };
        let mut tracker = Tracker::default();
        tracker.step(Sample { now_ms: 90_000, groups: vec![group(100, 400)] });
        let empty = GroupSample { group: "idle".into(), state: "Empty".into(), ..group(0, 0) };
        let empty = GroupSample { partitions: vec![], members: 0, ..empty };
        let snapshot =
            tracker.step(Sample { now_ms: 100_000, groups: vec![empty, group(250, 450)] });
        let expected = "\
GROUP  TOPIC  PARTITIONS  STATE                                LAG        BEHIND  IN/S  OUT/S  DRAINED IN  RETENTION USED  LOST
sink   logs            1  behind                               200  1 min 40 s   5.0     15        20 s            50 %     0
sink   calm            1  ok                                     0         0 s   0.0    0.0         0 s             0 %     0
sink   gone            1  unknown: UNKNOWN_TOPIC_OR_PARTITION    -           -     -      -           -               -     0
idle   -               -  reads nothing                          -           -     -      -           -               -     0
";
        let squeezed = |text: &str| {
            let lines =
                text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&of(&snapshot, false)), squeezed(expected));
    }

    #[test]
    fn durations_are_said_in_two_units() {
        let said = [0.0, 0.4, 59.4, 61.0, 3_700.0, 100_000.0].map(duration);
        assert_eq!(said, ["0 s", "0.4 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 3 h"]);
    }
}
