//! Retention is only spoken of: shortening it throws away exactly what has not been read.

use super::event::{Advice, Alarm};
use super::guard::{Guard, Guards};
use super::observation::Observation;
use super::parameters::{DISK_FULL, RETENTION_NEAR};

/// What is offered lies this much above what the slowest group needs, by share and at least.
const MARGIN_SHARE: f64 = 0.10;
const MARGIN_MS: i64 = 3_600_000;

/// None also where a record has no timestamp, which Kafka writes as -1.
fn age(now_ms: i64, record_ms: Option<i64>) -> Option<i64> {
    Some(now_ms.saturating_sub(record_ms.filter(|ms| *ms >= 0)?))
}

/// The age of the oldest record that the slowest group has yet to read. None: not known everywhere.
fn slowest_age_ms(now_ms: i64, observation: &Observation) -> Option<i64> {
    let mut age_ms = 0;
    for partition in &observation.partitions {
        // A group that never committed may want all of it.
        let committed = partition.slowest_committed?.max(partition.log_start);
        if committed < partition.end {
            age_ms = age_ms.max(age(now_ms, partition.slowest_record_ms)?);
        }
    }
    Some(age_ms)
}

/// The shortest retention that deletes nothing unread, where the disk is short and that helps.
pub(super) fn advice(now_ms: i64, observation: &Observation, guards: Guards) -> Option<Advice> {
    let retention = &observation.retention;
    if retention.disk_used_share? < DISK_FULL {
        return None;
    }
    let age_ms = match guards.stands(Guard::RetentionFloor) {
        true => slowest_age_ms(now_ms, observation)?,
        false => 0,
    };
    let margin_ms = ((age_ms as f64 * MARGIN_SHARE) as i64).max(MARGIN_MS);
    let retention_ms = age_ms.saturating_add(margin_ms);
    let slowest_group = retention.slowest_group.clone()?;
    (retention.retention_ms.is_none_or(|now| retention_ms < now))
        .then_some(Advice::Retention { retention_ms, slowest_group })
}

/// Whether the slowest group is about to lose records to the retention.
pub(super) fn alarm(now_ms: i64, observation: &Observation) -> Option<Alarm> {
    let retention_ms = observation.retention.retention_ms? as f64;
    let age_ms = observation.partitions.iter().filter_map(|partition| {
        let is_behind = partition.slowest_committed? < partition.end;
        age(now_ms, partition.slowest_record_ms.filter(|_| is_behind))
    });
    let group = observation.retention.slowest_group.clone()?;
    (age_ms.max()? as f64 > RETENTION_NEAR * retention_ms).then_some(Alarm::Retention { group })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::observation::{Partition, Retention};

    const NOW_MS: i64 = 1_000_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    fn observation(ages_h: &[Option<i64>], retention_h: i64, disk: f64) -> Observation {
        let partition = |age_h: &Option<i64>| Partition {
            end: 100,
            slowest_committed: Some(50),
            slowest_record_ms: age_h.map(|age| NOW_MS - age * HOUR_MS),
            ..Partition::default()
        };
        Observation {
            partitions: ages_h.iter().map(partition).collect(),
            retention: Retention {
                retention_ms: Some(retention_h * HOUR_MS),
                disk_used_share: Some(disk),
                slowest_group: Some("audit".into()),
            },
            ..Observation::default()
        }
    }

    #[track_caller]
    fn check(ages_h: &[Option<i64>], retention_h: i64, disk: f64, offered_h: Option<i64>) {
        let offered = advice(NOW_MS, &observation(ages_h, retention_h, disk), Guards::default());
        let wanted = offered_h.map(|hours| Advice::Retention {
            retention_ms: hours * HOUR_MS,
            slowest_group: "audit".into(),
        });
        assert_eq!(offered, wanted);
    }

    #[test]
    fn retention_is_offered_only_above_the_slowest_commit() {
        check(&[Some(2), Some(20)], 168, 0.9, Some(22));
        check(&[Some(2), Some(3)], 168, 0.9, Some(4));
        // No pressure, nothing to gain, or not known: nothing is offered.
        check(&[Some(2), Some(20)], 168, 0.5, None);
        check(&[Some(2), Some(20)], 22, 0.9, None);
        check(&[Some(2), None], 168, 0.9, None);
        let mut never_committed = observation(&[Some(2)], 168, 0.9);
        never_committed.partitions[0].slowest_committed = None;
        assert_eq!(advice(NOW_MS, &never_committed, Guards::default()), None);
    }

    #[test]
    fn a_reader_near_the_end_of_retention_is_an_alarm() {
        assert_eq!(alarm(NOW_MS, &observation(&[Some(100)], 168, 0.1)), None);
        let near = alarm(NOW_MS, &observation(&[Some(2), Some(140)], 168, 0.1));
        assert_eq!(near, Some(Alarm::Retention { group: "audit".into() }));
    }
}
