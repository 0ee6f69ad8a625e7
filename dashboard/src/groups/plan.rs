//! Where a reset would put a group, row by row, before anything is written. Pure.

use std::collections::BTreeMap;

use elkfk_broker_client::{ListedOffsets, OffsetAt, TopicPartition};
use serde::{Deserialize, Serialize};

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum To {
    Earliest,
    Latest,
    /// This offset of every partition, or the nearest that there is.
    Offset {
        value: i64,
    },
    /// The first record that is not before this, in milliseconds since 1970.
    Timestamp {
        value: i64,
    },
    /// So many records forward, or back.
    Shift {
        value: i64,
    },
}

impl To {
    /// What the brokers must be asked for besides start and end.
    pub(super) fn question(self) -> Option<OffsetAt> {
        match self {
            Self::Timestamp { value } => Some(OffsetAt::Timestamp(value)),
            _ => None,
        }
    }
}

/// One partition before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// `None`: no commit.
    pub(super) from: Option<i64>,
    /// `None`: it is left as it is, and `why` says why; of an undo: the commit is removed.
    pub(super) to: Option<i64>,
    pub(super) delta: Option<i64>,
    pub(super) why: Option<String>,
}

impl Row {
    pub(super) fn new(place: &TopicPartition, from: Option<i64>, to: Option<i64>) -> Self {
        Self {
            topic: place.topic.clone(),
            partition: place.partition,
            from,
            to,
            delta: from.zip(to).map(|(from, to)| to.saturating_sub(from)),
            why: None,
        }
    }

    fn because(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    pub(super) fn place(&self) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), self.partition)
    }
}

/// What the cluster said of the partitions.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) committed: &'a BTreeMap<TopicPartition, i64>,
    pub(super) starts: &'a ListedOffsets,
    pub(super) ends: &'a ListedOffsets,
    /// Of [`To::question`]; empty where nothing was asked.
    pub(super) asked: &'a ListedOffsets,
}

pub(super) fn rows(places: &[TopicPartition], to: To, known: &Known<'_>) -> Vec<Row> {
    places.iter().map(|place| row(place, to, known)).collect()
}

fn row(place: &TopicPartition, to: To, known: &Known<'_>) -> Row {
    let from = known.committed.get(place).copied();
    let left = |why: String| Row::new(place, from, None).because(why);
    let listed = |offsets: &ListedOffsets| match offsets.get(place) {
        Some(Ok(listed)) => Ok(listed.offset),
        Some(Err(refused)) => Err(refused.to_string()),
        None => Err("the broker did not answer for it".to_owned()),
    };
    let bounds = listed(known.starts).and_then(|start| Ok((start, listed(known.ends)?)));
    let (start, end) = match bounds {
        Ok((Some(start), Some(end))) => (start, end),
        Ok(_) => return left("the broker named no offset".to_owned()),
        Err(why) => return left(why),
    };
    let wanted = match to {
        To::Earliest => start,
        To::Latest => end,
        To::Offset { value } => value,
        To::Shift { value } => match from {
            Some(from) => from.saturating_add(value),
            None => return left("no committed offset to shift from".to_owned()),
        },
        To::Timestamp { .. } => match listed(known.asked) {
            Ok(Some(offset)) => offset,
            Ok(None) => {
                let row = Row::new(place, from, Some(end));
                return row.because("no record is as late as that: the end");
            }
            Err(why) => return left(why),
        },
    };
    let to = wanted.clamp(start, end.max(start));
    let row = Row::new(place, from, Some(to));
    if to > wanted {
        row.because(format!("{wanted} is before the first record, {start}"))
    } else if to < wanted {
        row.because(format!("{wanted} is behind the end, {end}"))
    } else {
        row
    }
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::ListedOffset;

    use super::*;

    fn place(partition: i32) -> TopicPartition {
        TopicPartition::new("logs", partition)
    }

    fn listed(offsets: &[(i32, Option<i64>)]) -> ListedOffsets {
        let one = |offset| Ok(ListedOffset { offset, timestamp_ms: None, leader_epoch: 0 });
        offsets.iter().map(|(partition, offset)| (place(*partition), one(*offset))).collect()
    }

    /// Partition 0 is committed at 50 of 10..100, partition 1 has no commit, of 2 nothing is known.
    fn plan(to: To) -> Vec<(Option<i64>, Option<i64>, Option<String>)> {
        let committed = BTreeMap::from([(place(0), 50)]);
        let starts = listed(&[(0, Some(10)), (1, Some(0))]);
        let ends = listed(&[(0, Some(100)), (1, Some(5))]);
        let asked = listed(&[(0, Some(70)), (1, None)]);
        let known = Known { committed: &committed, starts: &starts, ends: &ends, asked: &asked };
        let rows = rows(&[place(0), place(1), place(2)], to, &known);
        rows.into_iter().map(|row| (row.to, row.delta, row.why)).collect()
    }

    #[test]
    fn each_way_lands_where_it_says_and_within_the_log() {
        let tos = |to| plan(to).into_iter().map(|(to, ..)| to).collect::<Vec<_>>();
        assert_eq!(tos(To::Earliest), [Some(10), Some(0), None]);
        assert_eq!(tos(To::Latest), [Some(100), Some(5), None]);
        assert_eq!(tos(To::Offset { value: 40 }), [Some(40), Some(5), None]);
        assert_eq!(tos(To::Shift { value: -45 }), [Some(10), None, None]);
        assert_eq!(tos(To::Shift { value: i64::MAX }), [Some(100), None, None]);
        assert_eq!(tos(To::Timestamp { value: 1 }), [Some(70), Some(5), None]);
    }

    #[test]
    fn what_is_bent_or_left_says_why() {
        let rows = plan(To::Shift { value: -45 });
        assert_eq!(rows[0].1, Some(-40));
        assert_eq!(rows[0].2.as_deref(), Some("5 is before the first record, 10"));
        assert_eq!(rows[1].2.as_deref(), Some("no committed offset to shift from"));
        assert_eq!(rows[2].2.as_deref(), Some("the broker did not answer for it"));
        assert_eq!(plan(To::Latest)[0].2, None);
    }

    #[test]
    fn the_wire_form_is_as_agreed() {
        let read = |text| serde_json::from_str::<To>(text).ok();
        assert_eq!(read(r#"{"kind":"earliest","value":null}"#), Some(To::Earliest));
        assert_eq!(read(r#"{"kind":"shift","value":-3}"#), Some(To::Shift { value: -3 }));
        assert_eq!(read(r#"{"kind":"shift"}"#), None);
        assert_eq!(read(r#"{"kind":"nowhere","value":1}"#), None);
    }
}
