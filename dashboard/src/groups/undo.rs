//! What can be undone of resets: where groups stood before, for ten minutes, also over a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use elkfk_base::durable;
use elkfk_broker_client::TopicPartition;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;

use crate::{Shared, hold};

pub(super) const UNDO_MS: i64 = 600_000;
/// Groups whose reset can be undone, and partitions of all of them: some 10 MB, on disk half of it.
const UNDOS_MAX: usize = 100;
const UNDO_PARTITIONS_MAX: usize = 100_000;
/// A file of ours with names of the longest kind is smaller.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Where a group stood before it was put elsewhere. `None`: it had no commit.
#[derive(Debug, Default, PartialEq)]
struct Undo {
    until_ms: i64,
    text: String,
    before: BTreeMap<TopicPartition, Option<i64>>,
}

/// The same on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    until_ms: i64,
    text: String,
    /// Topic → partitions and where each stood.
    before: BTreeMap<String, Vec<(i32, Option<i64>)>>,
}

#[derive(Debug, Default)]
pub(crate) struct Undos {
    of: BTreeMap<String, Undo>,
    /// `None`: kept in memory only.
    path: Option<PathBuf>,
    /// Held while the file is written, so that the newest is the last.
    writing: Arc<Mutex<()>>,
}

/// Reads what an earlier run kept.
pub(crate) fn open(data: Option<&Path>, now_ms: i64) -> Undos {
    let path = data.map(|data| data.join("undos.json"));
    let mut undos = Undos::default();
    if let Some(path) = &path {
        let read = || -> std::io::Result<BTreeMap<String, Kept>> {
            if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
                return Err(std::io::Error::other("it is too large"));
            }
            Ok(serde_json::from_slice(&std::fs::read(path)?)?)
        };
        match read() {
            Ok(kept) => {
                undos.of = kept.into_iter().map(|(group, kept)| (group, kept.into())).collect()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(path = %path.display(), %error, "resets of before cannot be undone, for they cannot be read");
            }
        }
    }
    undos.forget_old(now_ms);
    undos.bound();
    undos.path = path;
    undos
}

/// Writes down what can be undone, where there is a disk for it.
///
/// # Errors
/// A sentence for people: it is kept in memory then.
pub(super) async fn save(shared: &Arc<Shared>) -> Result<(), String> {
    let shared = shared.clone();
    let write = move || -> std::io::Result<()> {
        let writing = hold(&shared.undos).writing.clone();
        let _writing = hold(&writing);
        let (path, json) = {
            let undos = hold(&shared.undos);
            let Some(path) = undos.path.clone() else { return Ok(()) };
            (path, serde_json::to_vec(&undos.kept())?)
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        durable::replace(&path, &json)
    };
    let written = tokio::task::spawn_blocking(write).await;
    let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    written.map_err(|error| {
        warn!(%error, "what can be undone of a reset cannot be written; it is kept in memory only");
        format!("It can be undone until the dashboard is started again: it cannot be kept on disk ({error}).")
    })
}

impl From<Kept> for Undo {
    fn from(kept: Kept) -> Self {
        let places = kept.before.into_iter().flat_map(|(topic, partitions)| {
            let place = move |partition| TopicPartition::new(topic.clone(), partition);
            partitions.into_iter().map(move |(partition, at)| (place(partition), at))
        });
        Self { until_ms: kept.until_ms, text: kept.text, before: places.collect() }
    }
}

impl From<&Undo> for Kept {
    fn from(undo: &Undo) -> Self {
        let mut before: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (place, at) in &undo.before {
            before.entry(place.topic.clone()).or_default().push((place.partition, *at));
        }
        Self { until_ms: undo.until_ms, text: undo.text.clone(), before }
    }
}

impl Undos {
    fn kept(&self) -> BTreeMap<&str, Kept> {
        self.of.iter().map(|(group, undo)| (group.as_str(), undo.into())).collect()
    }

    fn forget_old(&mut self, now_ms: i64) {
        // One of the future is of a clock that was set back since: no undo lasts longer than that.
        self.of.retain(|_, undo| (1..=UNDO_MS).contains(&(undo.until_ms - now_ms)));
    }

    pub(crate) fn offer(&mut self, group: &str, now_ms: i64) -> Value {
        self.forget_old(now_ms);
        self.of
            .get(group)
            .map_or(Value::Null, |undo| json!({"until_ms": undo.until_ms, "text": undo.text}))
    }

    /// Where the group stood before what can still be undone.
    pub(super) fn before(
        &mut self,
        group: &str,
        now_ms: i64,
    ) -> Option<&BTreeMap<TopicPartition, Option<i64>>> {
        self.forget_old(now_ms);
        self.of.get(group).map(|undo| &undo.before)
    }

    /// Remembers where partitions stood, unless an earlier reset that can still be undone has already:
    /// the way back is to where the group was before all of them.
    pub(super) fn keep(
        &mut self,
        group: &str,
        before: BTreeMap<TopicPartition, Option<i64>>,
        now_ms: i64,
    ) {
        self.forget_old(now_ms);
        let undo = self.of.entry(group.to_owned()).or_default();
        for (place, from) in before {
            undo.before.entry(place).or_insert(from);
        }
        undo.until_ms = now_ms + UNDO_MS;
        undo.text = format!("{} partitions of {group} were reset", undo.before.len());
        self.bound();
    }

    /// What is still to be undone of a group; nothing: there is no way back any more.
    pub(super) fn leave(&mut self, group: &str, left: BTreeMap<TopicPartition, Option<i64>>) {
        match self.of.get_mut(group) {
            Some(undo) if !left.is_empty() => undo.before = left,
            _ => drop(self.of.remove(group)),
        }
    }

    /// The oldest go first.
    fn bound(&mut self) {
        let is_full = |of: &BTreeMap<String, Undo>| {
            of.len() > UNDOS_MAX
                || of.values().map(|undo| undo.before.len()).sum::<usize>() > UNDO_PARTITIONS_MAX
        };
        while self.of.len() > 1 && is_full(&self.of) {
            let oldest = self.of.iter().min_by_key(|(_, undo)| undo.until_ms);
            let Some(oldest) = oldest.map(|(group, _)| group.clone()) else { return };
            self.of.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undo_is_offered_for_ten_minutes_and_they_are_bounded() {
        let mut undos = Undos::default();
        undos.keep("sink", BTreeMap::new(), 0);
        assert_eq!(undos.offer("sink", UNDO_MS - 1)["until_ms"], UNDO_MS);
        assert_eq!(undos.offer("sink", UNDO_MS), Value::Null);
        for n in 0..1_000 {
            undos.keep(&format!("group-{n}"), BTreeMap::new(), n);
        }
        assert_eq!(undos.of.len(), UNDOS_MAX);
        assert!(undos.of.contains_key("group-999"));
    }

    fn at(partition: i32, offset: Option<i64>) -> (TopicPartition, Option<i64>) {
        (TopicPartition::new("logs", partition), offset)
    }

    #[test]
    fn several_resets_are_undone_to_where_the_group_was_before_all() {
        let mut undos = Undos::default();
        undos.keep("sink", [at(0, Some(10)), at(1, Some(20))].into(), 0);
        undos.keep("sink", [at(1, Some(99)), at(2, Some(30))].into(), 1_000);
        let undo = &undos.of["sink"];
        assert_eq!(undo.before, [at(0, Some(10)), at(1, Some(20)), at(2, Some(30))].into());
        assert_eq!(
            (undo.until_ms, undo.text.as_str()),
            (1_000 + UNDO_MS, "3 partitions of sink were reset")
        );
        assert_eq!(undos.offer("sink", 1_000 + UNDO_MS), Value::Null);
    }

    #[test]
    fn they_come_back_from_disk_and_damage_is_no_reason_to_stop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("undos.json");
        let mut undos = open(Some(directory.path()), 0);
        undos.keep("sink", [at(0, Some(10)), at(1, None)].into(), 5);
        durable::replace(&path, &serde_json::to_vec(&undos.kept()).unwrap()).unwrap();
        assert_eq!(open(Some(directory.path()), 6).of, undos.of);
        // Over by now; and of a clock that was set back by an hour.
        for now_ms in [5 + UNDO_MS, -3_600_000] {
            assert!(open(Some(directory.path()), now_ms).of.is_empty());
        }
        for damage in ["", "{\"sink\": {", "[]", "{\"sink\": {\"until_ms\": 1}}"] {
            std::fs::write(&path, damage).unwrap();
            assert!(open(Some(directory.path()), 6).of.is_empty(), "{damage}");
        }
    }
}
