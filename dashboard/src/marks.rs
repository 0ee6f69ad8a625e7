//! What happened and when: the marks on every plot. Pure: found by comparing what was seen before with
//! what is seen now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use elkfk_broker_client::lag::{Snapshot, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::Facts;

/// Some 300 bytes each.
const MARKS_MAX: usize = 2_000;
/// Of one look: a cluster in which all groups move at once is told by its first ones.
const AT_ONCE_MAX: usize = 50;
/// Remembered groups and topics.
const KNOWN_MAX: usize = 20_000;
const ANSWER_MAX: usize = 500;
const TEXT_CHARS_MAX: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Expansion,
    /// More or fewer consumers or workers.
    Scaling,
    Rebalance,
    Leader,
    Reset,
    Restart,
    Alert,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) at_ms: i64,
    pub(crate) kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    pub(crate) text: String,
}

impl Mark {
    pub(crate) fn new(at_ms: i64, kind: Kind, text: impl Into<String>) -> Self {
        let text: String = text.into();
        let text = text.chars().take(TEXT_CHARS_MAX).collect();
        Self { at_ms, kind, group: None, topic: None, text }
    }

    pub(crate) fn of_group(self, group: &str) -> Self {
        Self { group: Some(group.to_owned()), ..self }
    }

    pub(crate) fn of_topic(self, topic: &str) -> Self {
        Self { topic: Some(topic.to_owned()), ..self }
    }
}

/// A group as it was last seen.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    members: usize,
    /// Of who reads what.
    assignment: u64,
    is_rewound: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Marks {
    marks: VecDeque<Mark>,
    /// Not on disk yet; as bounded as the marks.
    unsaved: Vec<Vec<u8>>,
    groups: BTreeMap<String, Seen>,
    /// Topic → leaders by partition.
    topics: BTreeMap<String, Vec<Option<i32>>>,
    brokers: BTreeSet<i32>,
    decisions_until_ms: i64,
    /// Groups and topics of the decisions at that time.
    decided_then: BTreeSet<(String, String)>,
}

impl Marks {
    pub(crate) fn add(&mut self, mark: Mark) {
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        if let Ok(json) = serde_json::to_vec(&mark)
            && self.unsaved.len() < MARKS_MAX
        {
            self.unsaved.push(json);
        }
        // Marks come nearly in order; those of the autoscaler may be of a little earlier.
        let at = self.marks.iter().rposition(|one| one.at_ms <= mark.at_ms).map_or(0, |at| at + 1);
        self.marks.insert(at, mark);
    }

    /// Marks of an earlier run.
    pub(crate) fn restore(&mut self, jsons: &[Vec<u8>], now_ms: i64) {
        let newest = jsons.len().saturating_sub(MARKS_MAX);
        for mark in jsons[newest..].iter().filter_map(|json| serde_json::from_slice(json).ok()) {
            self.add(mark);
        }
        self.unsaved.clear();
        self.decisions_until_ms = self.marks.back().map_or(0, |mark| mark.at_ms.saturating_add(1));
        let text = "the dashboard was started again";
        self.add(Mark::new(now_ms, Kind::Restart, text));
    }

    pub(crate) fn take_unsaved(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.unsaved)
    }

    pub(crate) fn answers_again(&mut self, now_ms: i64, silence_s: i64) {
        let text = format!("the cluster answers again, after {silence_s} s");
        self.add(Mark::new(now_ms, Kind::Restart, text));
    }

    /// Finds what changed in groups.
    pub(crate) fn see_groups(&mut self, snapshot: &Snapshot) {
        let mut found = Vec::new();
        for group in snapshot.groups.iter().filter(|group| group.why.is_none()) {
            let mut hasher = DefaultHasher::new();
            for topic in &group.topics {
                topic.topic.hash(&mut hasher);
                for partition in topic.partitions.iter().filter(|one| one.member.is_some()) {
                    (partition.partition, &partition.member).hash(&mut hasher);
                }
            }
            let is_rewound = group.figures.state == State::Rewound
                || group.topics.iter().any(|topic| topic.figures.state == State::Rewound);
            let seen = Seen { members: group.members, assignment: hasher.finish(), is_rewound };
            let before = self.groups.get(&group.group);
            let mark =
                |kind, text: String| Mark::new(snapshot.now_ms, kind, text).of_group(&group.group);
            match before {
                Some(before) if before.members != seen.members => {
                    let (from, to) = (before.members, seen.members);
                    let text = format!("{}: {from} → {to} members", group.group);
                    found.push(mark(Kind::Rebalance, text));
                }
                Some(before) if before.assignment != seen.assignment && seen.members > 0 => {
                    let text = format!("{}: partitions change hands", group.group);
                    found.push(mark(Kind::Rebalance, text));
                }
                _ => {}
            }
            if is_rewound && before.is_some_and(|before| !before.is_rewound) {
                let text = format!("{}: committed offsets went back", group.group);
                found.push(mark(Kind::Reset, text));
            }
            if before != Some(&seen) && (before.is_some() || self.groups.len() < KNOWN_MAX) {
                self.groups.insert(group.group.clone(), seen);
            }
        }
        let listed: BTreeSet<&str> =
            snapshot.groups.iter().map(|group| group.group.as_str()).collect();
        self.groups.retain(|group, _| listed.contains(group.as_str()));
        found.into_iter().take(AT_ONCE_MAX).for_each(|mark| self.add(mark));
    }

    /// Finds what changed in topics and brokers.
    pub(crate) fn see_cluster(&mut self, facts: &Facts) {
        let mut found = Vec::new();
        let now_ms = facts.at_ms;
        let brokers: BTreeSet<i32> = facts.brokers.iter().map(|broker| broker.id).collect();
        if !self.brokers.is_empty() {
            for gone in self.brokers.difference(&brokers) {
                found.push(Mark::new(now_ms, Kind::Restart, format!("broker {gone} is gone")));
            }
            for back in brokers.difference(&self.brokers) {
                found.push(Mark::new(now_ms, Kind::Restart, format!("broker {back} joined")));
            }
        }
        self.brokers = brokers;
        for topic in &facts.topics {
            let leaders: Vec<_> = topic.partitions.iter().map(|one| one.leader).collect();
            if let Some(before) = self.topics.get(&topic.name) {
                let mark = |kind, text| Mark::new(now_ms, kind, text).of_topic(&topic.name);
                if leaders.len() > before.len() {
                    let (name, from, to) = (&topic.name, before.len(), leaders.len());
                    let text = format!("{name}: {from} → {to} partitions");
                    found.push(mark(Kind::Expansion, text));
                }
                let moved: Vec<String> = before
                    .iter()
                    .zip(&leaders)
                    .enumerate()
                    .filter(|(_, (before, now))| before != now)
                    .map(|(partition, _)| partition.to_string())
                    .collect();
                if !moved.is_empty() {
                    let few = moved.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
                    let more = if moved.len() > 5 { ", …" } else { "" };
                    let text = format!("{}: another leader of partition {few}{more}", topic.name);
                    found.push(mark(Kind::Leader, text));
                }
            }
            if self.topics.get(&topic.name) != Some(&leaders)
                && (self.topics.len() < KNOWN_MAX || self.topics.contains_key(&topic.name))
            {
                self.topics.insert(topic.name.clone(), leaders);
            }
        }
        found.into_iter().take(AT_ONCE_MAX).for_each(|mark| self.add(mark));
    }

    /// Takes in an event of the autoscaler; only what it did is marked, and once.
    pub(crate) fn see_decision(&mut self, event: &Value) {
        let (Some(at_ms), Some(action)) = (event["at_ms"].as_i64(), event["action"].as_object())
        else {
            return;
        };
        if event["event"] != "decision" || at_ms < self.decisions_until_ms {
            return;
        }
        let name = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        if at_ms > self.decisions_until_ms {
            self.decisions_until_ms = at_ms;
            self.decided_then.clear();
        }
        // One look of the autoscaler decides on many topics.
        if self.decided_then.len() >= ANSWER_MAX
            || !self.decided_then.insert((name("group"), name("topic")))
        {
            return;
        }
        let number = |field: &str| action.get(field).and_then(Value::as_i64).unwrap_or_default();
        let what = action.get("do").and_then(Value::as_str).unwrap_or("change");
        let text = format!("autoscaler: {what} {} → {}", number("from"), number("to"));
        let kind = if what == "partitions" { Kind::Expansion } else { Kind::Scaling };
        let mark = Mark::new(at_ms, kind, text);
        self.add(mark.of_group(&name("group")).of_topic(&name("topic")));
    }

    /// The newest of a time, oldest first.
    pub(crate) fn between(&self, from_ms: i64, to_ms: i64) -> Vec<&Mark> {
        let mut marks: Vec<&Mark> = self
            .marks
            .iter()
            .rev()
            .filter(|mark| (from_ms..=to_ms).contains(&mark.at_ms))
            .take(ANSWER_MAX)
            .collect();
        marks.reverse();
        marks
    }
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{Figures, GroupLag, PartitionLag, TopicLag};
    use serde_json::json;

    use super::*;
    use crate::cluster::{PartitionFacts, TopicFacts};

    fn snapshot(now_ms: i64, members: usize, member: &str, state: State) -> Snapshot {
        let figures = Figures { state, ..Figures::default() };
        let partition = PartitionLag {
            partition: 0,
            member: (members > 0).then(|| member.to_owned()),
            committed: None,
            start: None,
            end: None,
            figures: figures.clone(),
            moved_ms: None,
            retention: None,
            why: None,
        };
        let topic = TopicLag {
            topic: "logs".into(),
            figures: figures.clone(),
            partitions: vec![partition],
        };
        let group = GroupLag {
            group: "sink".into(),
            state: "Stable".into(),
            members,
            figures,
            topics: vec![topic],
            why: None,
        };
        Snapshot { now_ms, groups: vec![group] }
    }

    fn texts(marks: &Marks) -> Vec<&str> {
        marks.between(0, i64::MAX).iter().map(|mark| mark.text.as_str()).collect()
    }

    #[test]
    fn changes_in_groups_are_marked_once() {
        let mut marks = Marks::default();
        for (second, members, member, state) in [
            (1, 1, "a", State::Ok),
            (2, 1, "a", State::Ok),
            (3, 2, "a", State::Ok),
            (4, 2, "b", State::Ok),
            (5, 2, "b", State::Rewound),
            (6, 2, "b", State::Rewound),
        ] {
            marks.see_groups(&snapshot(second * 1000, members, member, state));
        }
        assert_eq!(
            texts(&marks),
            [
                "sink: 1 → 2 members",
                "sink: partitions change hands",
                "sink: committed offsets went back"
            ]
        );
        assert_eq!(marks.between(3_500, 4_000).len(), 1);
    }

    fn facts(at_ms: i64, leaders: &[i32]) -> Facts {
        let partition = |(index, leader): (i32, &i32)| PartitionFacts {
            index,
            leader: Some(*leader),
            ..PartitionFacts::default()
        };
        let topic = TopicFacts {
            name: "logs".into(),
            partitions: (0..).zip(leaders).map(partition).collect(),
            ..TopicFacts::default()
        };
        Facts { at_ms, topics: vec![topic], ..Facts::default() }
    }

    #[test]
    fn growth_and_new_leaders_are_marked() {
        let mut marks = Marks::default();
        marks.see_cluster(&facts(1, &[0, 0]));
        marks.see_cluster(&facts(2, &[0, 0]));
        marks.see_cluster(&facts(3, &[0, 1, 1]));
        assert_eq!(
            texts(&marks),
            ["logs: 2 → 3 partitions", "logs: another leader of partition 1"]
        );
    }

    #[test]
    fn what_the_autoscaler_did_is_marked_and_what_it_left_is_not() {
        let mut marks = Marks::default();
        let event = json!({"event": "decision", "at_ms": 5, "group": "sink", "topic": "logs",
            "action": {"do": "consumers", "from": 1, "to": 2}});
        marks.see_decision(&event);
        marks.see_decision(&event);
        marks.see_decision(&json!({"event": "decision", "at_ms": 6, "rule": "not-hot"}));
        marks.see_decision(&json!("odd"));
        // In the same look at another topic.
        marks.see_decision(
            &json!({"event": "decision", "at_ms": 5, "group": "sink", "topic": "paid",
            "action": {"do": "partitions", "from": 2, "to": 4}}),
        );
        assert_eq!(texts(&marks), ["autoscaler: consumers 1 → 2", "autoscaler: partitions 2 → 4"]);
        let kinds: Vec<_> = marks.marks.iter().map(|mark| mark.kind).collect();
        assert_eq!(kinds, [Kind::Scaling, Kind::Expansion]);
    }

    #[test]
    fn marks_come_back_after_a_restart_and_are_bounded() {
        let mut marks = Marks::default();
        for at_ms in 0..3 * MARKS_MAX as i64 {
            marks.add(Mark::new(at_ms, Kind::Alert, "x".repeat(5_000)));
        }
        let saved = marks.take_unsaved();
        assert_eq!((marks.marks.len(), saved.len()), (MARKS_MAX, MARKS_MAX));
        let mut again = Marks::default();
        again.restore(&saved[..2], i64::MAX);
        assert_eq!(texts(&again).len(), 3);
        assert_eq!(again.take_unsaved().len(), 1);
        let answer = serde_json::to_string(&marks.between(0, i64::MAX)).unwrap();
        assert!(answer.len() < 300_000, "{}", answer.len());
    }
}
