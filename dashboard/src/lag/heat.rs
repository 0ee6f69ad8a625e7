//! How far behind each partition was over the last half hour, to be seen at a glance. Pure state in
//! bounded memory: 240 bytes for each partition of a group.

use std::collections::BTreeMap;

use elkfk_broker_client::lag::Snapshot;
use serde_json::{Value, json};

const SLOT_MS: i64 = 15_000;
const SLOTS: usize = 120;
/// What all slots are.
pub(crate) const MINUTES_MAX: i64 = SLOTS as i64 * SLOT_MS / 60_000;
/// Partitions of groups together: as many as are measured, 4.8 MB.
const ROWS_MAX: usize = 20_000;
/// Partitions of one answer: a taller strip is shown by its worst.
const ANSWER_ROWS_MAX: usize = 400;
const UNKNOWN: u16 = u16::MAX;

type Row = Box<[u16; SLOTS]>;

#[derive(Debug)]
pub(crate) struct Heat {
    /// (group, topic) → partition → seconds of lag by slot, the largest within it.
    of: BTreeMap<(String, String), BTreeMap<i32, Row>>,
    rows: usize,
    /// When each slot began; 0 before it was first used.
    begins_ms: [i64; SLOTS],
    slot: usize,
}

impl Default for Heat {
    fn default() -> Self {
        Self { of: BTreeMap::new(), rows: 0, begins_ms: [0; SLOTS], slot: 0 }
    }
}

impl Heat {
    pub(crate) fn push(&mut self, snapshot: &Snapshot) {
        let begin_ms = snapshot.now_ms - snapshot.now_ms.rem_euclid(SLOT_MS);
        if begin_ms > self.begins_ms[self.slot] {
            self.slot = (self.slot + 1) % SLOTS;
            self.begins_ms[self.slot] = begin_ms;
            let slot = self.slot;
            for strip in self.of.values_mut() {
                strip.values_mut().for_each(|row| row[slot] = UNKNOWN);
                // What was not measured for the whole half hour is gone.
                strip.retain(|_, row| row.iter().any(|seconds| *seconds != UNKNOWN));
            }
            self.of.retain(|_, strip| !strip.is_empty());
            self.rows = self.of.values().map(BTreeMap::len).sum();
        }
        for group in &snapshot.groups {
            for topic in &group.topics {
                let strip = self.of.entry((group.group.clone(), topic.topic.clone())).or_default();
                for partition in &topic.partitions {
                    let Some(seconds) = partition.figures.lag_seconds else { continue };
                    if !strip.contains_key(&partition.partition) {
                        if self.rows >= ROWS_MAX {
                            continue;
                        }
                        self.rows += 1;
                    }
                    let row = strip
                        .entry(partition.partition)
                        .or_insert_with(|| Box::new([UNKNOWN; SLOTS]));
                    let seconds = seconds.round().clamp(0.0, f64::from(UNKNOWN - 1)) as u16;
                    let cell = &mut row[self.slot];
                    *cell = if *cell == UNKNOWN { seconds } else { seconds.max(*cell) };
                }
            }
        }
    }

    /// The strip of one topic of a group over the last `minutes`, as the page draws it.
    pub(crate) fn strip(&self, group: &str, topic: &str, minutes: i64) -> Value {
        let newest_ms = self.begins_ms[self.slot];
        let from_ms = newest_ms - minutes.clamp(1, MINUTES_MAX) * 60_000;
        // Oldest first: the slot after the newest is the oldest.
        let slots: Vec<usize> = (1..=SLOTS)
            .map(|back| (self.slot + back) % SLOTS)
            .filter(|slot| self.begins_ms[*slot] > from_ms && self.begins_ms[*slot] > 0)
            .collect();
        let known = |row: &Row, slot: usize| Some(row[slot]).filter(|seconds| *seconds != UNKNOWN);
        let mut rows: Vec<(i32, &Row)> = self
            .of
            .get(&(group.to_owned(), topic.to_owned()))
            .into_iter()
            .flatten()
            .map(|(partition, row)| (*partition, row))
            .collect();
        let total = rows.len();
        if total > ANSWER_ROWS_MAX {
            let worst = |row: &Row| slots.iter().filter_map(|slot| known(row, *slot)).max();
            rows.sort_by_cached_key(|(_, row)| std::cmp::Reverse(worst(row)));
            rows.truncate(ANSWER_ROWS_MAX);
            rows.sort_by_key(|(partition, _)| *partition);
        }
        let cells = |row: &Row| slots.iter().map(|slot| known(row, *slot)).collect::<Vec<_>>();
        let (partitions, seconds): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|(partition, row)| (partition, cells(row))).unzip();
        let times: Vec<i64> = slots.iter().map(|slot| self.begins_ms[*slot]).collect();
        json!({
            "partitions": partitions,
            "partitions_total": total,
            "times_ms": times,
            "seconds": seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{Figures, GroupLag, PartitionLag, TopicLag};

    use super::*;

    fn snapshot(now_ms: i64, partitions: i32, seconds: impl Fn(i32) -> Option<f64>) -> Snapshot {
        let partitions = (0..partitions).map(|partition| PartitionLag {
            partition,
            member: None,
            committed: None,
            start: None,
            end: None,
            figures: Figures { lag_seconds: seconds(partition), ..Figures::default() },
            moved_ms: None,
            retention: None,
            why: None,
        });
        let topic = TopicLag {
            topic: "logs".into(),
            partitions: partitions.collect(),
            ..TopicLag::default()
        };
        let group = GroupLag {
            group: "sink".into(),
            state: "Stable".into(),
            members: 1,
            figures: Figures::default(),
            topics: vec![topic],
            why: None,
        };
        Snapshot { now_ms, groups: vec![group] }
    }

    #[test]
    fn a_slot_holds_the_worst_and_what_is_unknown_stays_so() {
        let mut heat = Heat::default();
        let begin = 1_700_000_010_000 / SLOT_MS * SLOT_MS;
        for second in 0..60 {
            let seconds = |partition| (partition == 0).then_some(f64::from(second as i32));
            heat.push(&snapshot(begin + second * 1000, 2, seconds));
        }
        let strip = heat.strip("sink", "logs", 30);
        assert_eq!(strip["partitions"].to_string(), "[0]");
        assert_eq!(strip["seconds"].to_string(), "[[14,29,44,59]]");
        assert_eq!(strip["times_ms"][0], begin);
        assert_eq!(heat.strip("sink", "other", 30)["partitions"].to_string(), "[]");
    }

    #[test]
    fn it_is_bounded_in_rows_and_time_and_shows_the_worst() {
        let mut heat = Heat::default();
        let mut many = snapshot(0, 20_500, |partition| Some(f64::from(partition)));
        for slot in 0..125 {
            many.now_ms = 1_700_000_000_000 + slot * SLOT_MS;
            heat.push(&many);
        }
        assert_eq!(heat.rows, ROWS_MAX);
        let strip = heat.strip("sink", "logs", 30);
        assert_eq!(strip["times_ms"].as_array().unwrap().len(), SLOTS);
        let partitions = strip["partitions"].as_array().unwrap();
        assert_eq!((partitions.len(), &partitions[0]), (ANSWER_ROWS_MAX, &19_600.into()));
        assert!(strip.to_string().len() < 300_000, "{}", strip.to_string().len());
        // Gone for half an hour.
        for slot in 300..500 {
            heat.push(&Snapshot { now_ms: 1_700_000_000_000 + slot * SLOT_MS, groups: vec![] });
        }
        assert_eq!((heat.rows, heat.of.len()), (0, 0));
    }
}
