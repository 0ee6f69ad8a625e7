//! The small text files of a log directory, in Kafka's formats.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use elkfk_wire::kafka::records::Offset;

/// Why a small file of a log directory cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("version {found:?} is not 0")]
    Version { found: String },
    #[error("it announces {announced:?} entries and holds {found}")]
    Count { announced: String, found: usize },
    #[error("line {line} is malformed: {text:?}")]
    Line { line: usize, text: String },
    #[error("{key} is missing")]
    Missing { key: &'static str },
}

/// The numbered lines after version and count.
pub(super) fn lines(text: &str) -> Result<Vec<(usize, &str)>, CheckpointError> {
    let mut lines = text.lines();
    match lines.next().map(str::trim) {
        Some("0") => {}
        found => {
            return Err(CheckpointError::Version { found: found.unwrap_or_default().to_owned() });
        }
    }
    let announced = lines.next().unwrap_or_default().trim();
    let entries: Vec<_> =
        (3..).zip(lines.map(str::trim)).filter(|(_, text)| !text.is_empty()).collect();
    if announced.parse() != Ok(entries.len()) {
        return Err(CheckpointError::Count {
            announced: announced.to_owned(),
            found: entries.len(),
        });
    }
    Ok(entries)
}

/// An offset for each partition: recovery points, log starts or high watermarks.
pub(super) type OffsetCheckpoint = BTreeMap<(String, i32), Offset>;

/// The text of `*-offset-checkpoint`: version, count, one `TOPIC PARTITION OFFSET` a line.
pub(super) fn encode_offsets(offsets: &OffsetCheckpoint) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        text.push_str(&format!("{topic} {partition} {offset}\n"));
    }
    text
}

/// Reads what [`encode_offsets`] or Kafka wrote.
pub(super) fn decode_offsets(text: &str) -> Result<OffsetCheckpoint, CheckpointError> {
    let mut offsets = OffsetCheckpoint::new();
    for (line, text) in lines(text)? {
        let mut fields = text.split(' ');
        let entry = (|| {
            let topic = fields.next()?.to_owned();
            let partition = fields.next()?.parse().ok()?;
            let offset = Offset(fields.next()?.parse().ok()?);
            fields.next().is_none().then_some(((topic, partition), offset))
        })();
        let (key, offset) = entry.ok_or(CheckpointError::Line { line, text: text.to_owned() })?;
        offsets.insert(key, offset);
    }
    Ok(offsets)
}

/// The id of a topic, 16 bytes (KIP-516).
pub type TopicId = [u8; 16];

/// The text of `partition.metadata`. Kafka writes no newline at its end.
pub(super) fn encode_partition_metadata(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {}", URL_SAFE_NO_PAD.encode(topic_id))
}

/// The topic id in a `partition.metadata`.
pub(super) fn decode_partition_metadata(text: &str) -> Result<TopicId, CheckpointError> {
    let mut topic_id = None;
    for (line, text) in (1..).zip(text.lines()) {
        match text.split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("version", "0")) => {}
            Some(("version", found)) => {
                return Err(CheckpointError::Version { found: found.to_owned() });
            }
            Some(("topic_id", value)) => {
                let bytes = URL_SAFE_NO_PAD.decode(value).ok().and_then(|id| id.try_into().ok());
                topic_id =
                    Some(bytes.ok_or(CheckpointError::Line { line, text: text.to_owned() })?);
            }
            _ => return Err(CheckpointError::Line { line, text: text.to_owned() }),
        }
    }
    topic_id.ok_or(CheckpointError::Missing { key: "topic_id" })
}

/// Whose log directory this is: `meta.properties`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaProperties {
    pub broker_id: i32,
    /// Absent where a broker before Kafka 0.10.1 wrote the file.
    pub cluster_id: Option<String>,
}

impl MetaProperties {
    /// The text of the file, without the date that Java's `Properties` adds as a comment.
    pub fn encode(&self) -> String {
        let mut text = format!("#\nbroker.id={}\nversion=0\n", self.broker_id);
        if let Some(cluster_id) = &self.cluster_id {
            text.push_str(&format!("cluster.id={cluster_id}\n"));
        }
        text
    }

    /// Reads what [`MetaProperties::encode`] or Kafka wrote.
    ///
    /// # Errors
    /// Where it is no file of version 0; version 1 belongs to KRaft.
    pub fn decode(text: &str) -> Result<Self, CheckpointError> {
        let (mut broker_id, mut cluster_id) = (None, None);
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with(['#', '!']) {
                continue;
            }
            let malformed = || CheckpointError::Line { line, text: text.to_owned() };
            let (key, value) = text.split_once(['=', ':']).ok_or_else(malformed)?;
            match (key.trim(), value.trim()) {
                ("version", "0") => {}
                ("version", found) => {
                    return Err(CheckpointError::Version { found: found.to_owned() });
                }
                ("broker.id", id) => broker_id = Some(id.parse().map_err(|_| malformed())?),
                ("cluster.id", id) => cluster_id = Some(id.to_owned()),
                _ => {}
            }
        }
        let broker_id = broker_id.ok_or(CheckpointError::Missing { key: "broker.id" })?;
        Ok(Self { broker_id, cluster_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_checkpoints_are_kafkas() {
        let text = "0\n2\n__consumer_offsets 49 17\nlogs 0 1200\n";
        let offsets = decode_offsets(text).unwrap();
        assert_eq!(offsets[&("logs".to_owned(), 0)], Offset(1200));
        assert_eq!(encode_offsets(&offsets), text);
        for bad in ["", "0\n", "0\n1\nlogs 0\n", "0\n1\nlogs 0 1 2\n", "2\n0\n", "0\n3\na 0 0\n"] {
            assert!(decode_offsets(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn partition_metadata_is_kafkas() {
        let text = "version: 0\ntopic_id: hSCr7Eb8Rqy_LbQj5hVjZQ";
        let id = decode_partition_metadata(text).unwrap();
        assert_eq!(encode_partition_metadata(id), text);
        for bad in ["", "version: 1\ntopic_id: hSCr7Eb8Rqy_LbQj5hVjZQ", "topic_id: short"] {
            assert!(decode_partition_metadata(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn meta_properties_are_kafkas() {
        let text = "#\n#Mon Nov 23 22:40:36 UTC 2026\ncluster.id=M-6uJpNVQmO9xOxsbQHxjg\nbroker.id=3\nversion=0\n";
        let found = MetaProperties::decode(text).unwrap();
        assert_eq!(found.broker_id, 3);
        assert_eq!(found.cluster_id.as_deref(), Some("M-6uJpNVQmO9xOxsbQHxjg"));
        assert_eq!(MetaProperties::decode(&found.encode()), Ok(found));
        assert!(MetaProperties::decode("version=1\nnode.id=1\n").is_err());
        assert!(MetaProperties::decode("version=0\n").is_err());
    }
}
