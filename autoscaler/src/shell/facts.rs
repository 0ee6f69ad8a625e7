//! What is known of a topic beside its offsets: settings, keys, and the file that writes most.
//!
//! Asked now and then, as it seldom changes. Records are looked at where they are newest, a few of each
//! partition.

use std::collections::HashMap;
use std::time::Duration;

use elkfk_broker_client::{
    Client, ClientError, FetchedRecord, LogDir, Resource, Topic, TopicPartition,
};
use elkfk_wire::source_id;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::debug;

use crate::ladder::HotFile;

/// Records looked at in a partition, and the bytes asked for; one batch comes whole, whatever its size.
const RECORDS_MAX: usize = 100;
const FETCH_BYTES: i32 = 128 << 10;
/// Partitions looked at in a topic: those with the most arrival.
const PARTITIONS_MAX: usize = 16;
/// For all of them; what does not come in time is not looked at.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// A larger event is not parsed for its path.
const EVENT_BYTES_MAX: usize = 64 << 10;
const PATH_CHARS_MAX: usize = 512;
/// A foreign key seen this long ago still counts: producers may write now and then.
const FOREIGN_FOR: Duration = Duration::from_secs(3600);
/// What could not be asked again for so long is not known any more.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Of one topic.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    asked: Option<Instant>,
    known: Option<Instant>,
    pub retention_ms: Option<i64>,
    pub is_compacted: bool,
    foreign_key: Option<Instant>,
    pub hottest_file: Option<HotFile>,
    pub disk_used_share: Option<f64>,
    /// Ends of the partitions at the last look, for what arrived since.
    ends: Vec<i64>,
}

impl Facts {
    pub(crate) fn has_foreign_keys(&self) -> bool {
        self.foreign_key.is_some_and(|at| at.elapsed() < FOREIGN_FOR)
    }

    /// Whether enough is known to decide by it.
    pub(crate) fn are_known(&self) -> bool {
        self.known.is_some_and(|at| at.elapsed() < KNOWN_FOR)
    }

    /// Asks again where the last answer is older than `every`. `ends` are log start and end by partition.
    pub(crate) async fn refresh(
        &mut self,
        client: &Client,
        topic: &Topic,
        ends: &[(i64, i64)],
        every: Duration,
    ) -> Result<(), ClientError> {
        if self.asked.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        self.ask_settings(client, &topic.name).await?;
        self.disk_used_share = disk_used_share(client, topic).await;
        self.look_at_records(client, &topic.name, ends).await?;
        self.known = Some(Instant::now());
        Ok(())
    }

    async fn ask_settings(&mut self, client: &Client, topic: &str) -> Result<(), ClientError> {
        let resource = Resource::topic(topic);
        let answers = client.describe_configs(std::slice::from_ref(&resource)).await?;
        let what = || format!("describe topic {topic}");
        for answer in answers {
            let entries =
                answer.configs.map_err(|refused| ClientError::Refused { what: what(), refused })?;
            let value = |name: &str| {
                entries.iter().find(|entry| entry.name == name).and_then(|e| e.value.as_deref())
            };
            // -1 stands for "for ever".
            let retention_ms = value("retention.ms").and_then(|text| text.parse().ok());
            self.retention_ms = retention_ms.filter(|ms| *ms >= 0);
            let policies = value("cleanup.policy").unwrap_or("delete");
            self.is_compacted = policies.split(',').any(|policy| policy.trim() == "compact");
        }
        Ok(())
    }

    async fn look_at_records(
        &mut self,
        client: &Client,
        topic: &str,
        ends: &[(i64, i64)],
    ) -> Result<(), ClientError> {
        let mut partitions: Vec<(usize, f64)> = ends
            .iter()
            .enumerate()
            .map(|(at, (start, end))| {
                let before = self.ends.get(at).copied().unwrap_or(*start);
                (at, end.saturating_sub(before).max(0) as f64)
            })
            .collect();
        self.ends = ends.iter().map(|(_, end)| *end).collect();
        partitions.retain(|(at, arrived)| *arrived > 0.0 && ends[*at].0 < ends[*at].1);
        partitions.sort_by(|a, b| b.1.total_cmp(&a.1));
        let everything: f64 = partitions.iter().map(|(_, arrived)| arrived).sum();
        if everything == 0.0 {
            // Nothing new says nothing new.
            self.hottest_file = None;
            return Ok(());
        }
        partitions.truncate(PARTITIONS_MAX);
        let until = Instant::now() + LOOK_LIMIT;
        let mut looked = Vec::new();
        for (at, arrived) in partitions {
            let (start, end) = ends[at];
            let from = start.max(end.saturating_sub(RECORDS_MAX as i64));
            let place = TopicPartition::new(topic, at as i32);
            let fetch = client.fetch_records(&place, from, FETCH_BYTES, Duration::ZERO);
            match tokio::time::timeout_at(until, fetch).await {
                Ok(Ok(mut fetched)) => {
                    fetched.records.truncate(RECORDS_MAX);
                    looked.push((arrived, fetched.records));
                }
                // Deleted meanwhile, say; the others tell enough.
                Ok(Err(error)) => debug!(%place, %error, "newest records not seen"),
                Err(_) => break,
            }
        }
        if looked.is_empty() {
            return Err(ClientError::Timeout { address: topic.to_owned(), after: LOOK_LIMIT });
        }
        if looked.iter().any(|(_, records)| records.iter().any(is_foreign)) {
            self.foreign_key = Some(Instant::now());
        }
        self.hottest_file = hottest_file(&looked, everything);
        Ok(())
    }
}

/// Whether a record has a key that elkfk's shipper did not write.
fn is_foreign(record: &FetchedRecord) -> bool {
    record.key.is_some() && !record.headers.iter().any(|(name, _)| name == source_id::HEADER)
}

/// The file with the largest share of what arrived, by the records looked at in each partition and how
/// much arrived there.
fn hottest_file(looked: &[(f64, Vec<FetchedRecord>)], everything: f64) -> Option<HotFile> {
    let mut by_path: HashMap<String, f64> = HashMap::new();
    for (arrived, records) in looked {
        let each = arrived / (records.len().max(1) as f64);
        for record in records {
            if let Some(path) = path(record) {
                *by_path.entry(path).or_insert(0.0) += each;
            }
        }
    }
    let (path, arrived) = by_path.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(HotFile { path, share: (arrived / everything).clamp(0.0, 1.0) })
}

/// `log.file.path` of an event as Filebeat writes it.
fn path(record: &FetchedRecord) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        log: Log,
    }
    #[derive(Deserialize)]
    struct Log {
        file: File,
    }
    #[derive(Deserialize)]
    struct File {
        path: String,
    }
    let value = record.value.as_ref().filter(|value| value.len() <= EVENT_BYTES_MAX)?;
    let event: Event = serde_json::from_slice(value).ok()?;
    Some(event.log.file.path.chars().take(PATH_CHARS_MAX).collect())
}

/// Of the fullest disk that holds a replica of the topic. None: brokers before 3.3 do not tell.
async fn disk_used_share(client: &Client, topic: &Topic) -> Option<f64> {
    let indices = topic.partitions.iter().map(|partition| partition.index);
    let places: Vec<_> =
        indices.map(|index| TopicPartition::new(topic.name.clone(), index)).collect();
    let places: Vec<&TopicPartition> = places.iter().collect();
    let asked = tokio::time::timeout(LOOK_LIMIT, client.log_sizes_of(&places));
    let sizes = match asked.await {
        Ok(Ok(sizes)) => sizes,
        Ok(Err(error)) => {
            debug!(topic = %topic.name, %error, "disk not known");
            return None;
        }
        Err(_) => return None,
    };
    let holding = sizes.directories.iter().filter(|directory| directory.replicas > 0);
    holding.filter_map(LogDir::used_share).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str) -> FetchedRecord {
        FetchedRecord {
            offset: 0,
            timestamp_ms: 0,
            key: Some(b"k".to_vec()),
            value: Some(
                format!(r#"{{"message":"m","log":{{"file":{{"path":"{path}"}}}}}}"#).into(),
            ),
            headers: vec![],
        }
    }

    #[test]
    fn the_hottest_file_is_weighed_by_what_arrived() {
        // Few records of a partition that gets much outweigh many of one that gets little.
        let looked = [
            (900.0, vec![record("/a"), record("/a"), record("/b")]),
            (100.0, (0..50).map(|_| record("/c")).collect()),
        ];
        let hottest = hottest_file(&looked, 1000.0).unwrap();
        assert_eq!((hottest.path.as_str(), (hottest.share * 100.0).round()), ("/a", 60.0));
        assert_eq!(hottest_file(&[], 0.0), None);
        let other = FetchedRecord { value: Some(b"plain".to_vec()), ..record("/a") };
        assert_eq!(hottest_file(&[(1.0, vec![other])], 1.0), None);
    }

    #[test]
    fn a_key_is_foreign_without_a_source_id() {
        let foreign = record("/a");
        let mut own = record("/a");
        own.headers.push((source_id::HEADER.to_owned(), Some(vec![0; 20])));
        let unkeyed = FetchedRecord { key: None, ..record("/a") };
        assert!(is_foreign(&foreign) && !is_foreign(&own) && !is_foreign(&unkeyed));
    }
}
