//! How near unread records are to being deleted. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long a topic keeps its records, and how much room the partition takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Records that are older may be deleted; `None`: their age is no reason.
    pub ms: Option<i64>,
    /// Beyond so many bytes of a partition its oldest records may be deleted; `None`: size is no reason.
    pub bytes: Option<i64>,
    /// What the partition takes on disk, where size is a reason and the brokers tell.
    pub size_bytes: Option<u64>,
}

impl Retention {
    /// The settings of a topic that it is made of.
    pub(super) const SETTINGS: [&'static str; 3] =
        ["cleanup.policy", "retention.ms", "retention.bytes"];

    /// Of a topic's settings; `None` where they do not say.
    pub(super) fn of(settings: &BTreeMap<String, String>) -> Option<Self> {
        let policy = settings.get("cleanup.policy")?;
        if !policy.split(',').any(|one| one.trim() == "delete") {
            // Compaction keeps the last record of each key: nothing is deleted for its age or size.
            return Some(Self::default());
        }
        let bound = |name: &str| settings.get(name)?.parse::<i64>().ok().filter(|most| *most >= 0);
        Some(Self { ms: bound("retention.ms"), bytes: bound("retention.bytes"), size_bytes: None })
    }

    /// The share of its retention that the oldest unread record has used, of age and size the larger: from
    /// 1 on it may be deleted. `lag` of the `kept` records are unread; their share of the partition's bytes
    /// is taken for theirs of its records. `None` where what bounds it is not known.
    pub(super) fn used(&self, lag: i64, kept: i64, lag_seconds: Option<f64>) -> Option<f64> {
        if lag <= 0 || (self.ms, self.bytes) == (None, None) {
            return Some(0.0);
        }
        let by_age = self.ms.zip(lag_seconds).map(|(ms, s)| s * 1000.0 / ms.max(1) as f64);
        let by_size = self.bytes.zip(self.size_bytes).filter(|_| kept > 0).map(|(most, size)| {
            (lag as f64 / kept as f64).min(1.0) * size as f64 / most.max(1) as f64
        });
        by_age.map_or(by_size, |age| Some(age.max(by_size.unwrap_or(age))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &[(&str, &str)]) -> Option<Retention> {
        Retention::of(&settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn it_is_read_as_kafka_means_it() {
        let both = [("cleanup.policy", "compact,delete"), ("retention.ms", "60000")];
        assert_eq!(of(&both).unwrap().ms, Some(60_000));
        let for_ever =
            [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
        assert_eq!(of(&for_ever), Some(Retention::default()));
        let compacted = [("cleanup.policy", "compact"), ("retention.ms", "60000")];
        assert_eq!(of(&compacted), Some(Retention::default()));
        assert_eq!(of(&[("retention.ms", "60000")]), None, "a broker that does not say all");
    }

    #[test]
    fn the_nearer_of_age_and_size_counts() {
        let retention = |ms, bytes, size_bytes| Retention { ms, bytes, size_bytes };
        let hour = Some(3_600_000);
        // A small topic that nobody reads is not near to loss for being unread as a whole.
        assert_eq!(retention(hour, None, None).used(5, 5, Some(36.0)), Some(0.01));
        assert_eq!(retention(hour, Some(1_000), Some(800)).used(50, 100, Some(36.0)), Some(0.4));
        assert_eq!(retention(hour, Some(1_000), Some(800)).used(50, 100, Some(3_600.0)), Some(1.0));
        // Beyond it the record is there only because its segment is.
        assert_eq!(retention(hour, None, None).used(1, 9, Some(7_200.0)), Some(2.0));
        assert_eq!(retention(None, None, None).used(5, 5, None), Some(0.0));
        assert_eq!(retention(hour, None, None).used(0, 5, Some(0.0)), Some(0.0));
        // Of one bound nothing is known: the other counts. Of none: nothing is said.
        assert_eq!(retention(hour, Some(1_000), None).used(1, 2, Some(1_800.0)), Some(0.5));
        assert_eq!(retention(hour, Some(1_000), Some(1_000)).used(1, 2, None), Some(0.5));
        assert_eq!(retention(hour, None, None).used(1, 2, None), None);
        assert_eq!(retention(None, Some(1_000), None).used(1, 2, Some(9.0)), None);
        assert_eq!(retention(Some(0), None, None).used(1, 2, Some(0.5)), Some(500.0));
    }
}
