//! Records on their way in, documents on their way out.
//!
//! A [`Batch`] holds what one read of a partition brought, a [`Chunk`] the documents that a worker
//! made of it for one index, already in the form of a bulk request. A [`Slice`] is a run of a
//! chunk's documents, the unit in which they are sent, acknowledged and sent again.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use elkfk_wire::source_id::SourceId;

use super::acks::{Acks, Epoch, Sequence, TopicPartition};
use super::budget::Credit;

/// Records of one partition in the order of their offsets. Kept until the last of them is
/// acknowledged, since a dead letter carries the original.
#[derive(Debug)]
pub struct Batch {
    /// Which input of the pipeline it came from: where its dead letters go.
    pub input: usize,
    pub partition: TopicPartition,
    pub epoch: Epoch,
    /// Sequence of the first record; the others follow it.
    pub first: Sequence,
    pub acks: Arc<Mutex<Acks>>,
    records: Vec<Record>,
    data: Vec<u8>,
    credits: Vec<Credit>,
}

/// One record, its bytes as ranges of the batch's data.
#[derive(Debug, Clone)]
struct Record {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
    source: Option<SourceId>,
    origin: Option<Range<u32>>,
}

/// A view of one record of a batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    batch: &'a Batch,
    record: &'a Record,
}

/// Header by which a replayed dead letter says where it first stood, as [`RecordView::write_place`]
/// has it.
pub const ORIGIN_HEADER: &str = "elkfk.origin";

/// The longest is a topic's name of 249 bytes and three numbers; Elasticsearch takes ids of 512.
const ORIGIN_BYTES_MAX: usize = 300;

/// Whether this can be the place of a record: the letters of a topic's name and `+`.
fn is_origin(value: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    (1..=ORIGIN_BYTES_MAX).contains(&value.len()) && value.iter().all(is_allowed)
}

/// What one record costs beside its own bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;

impl Batch {
    pub fn new(partition: TopicPartition, epoch: Epoch, acks: Arc<Mutex<Acks>>) -> Self {
        Self {
            input: 0,
            partition,
            epoch,
            first: 0,
            acks,
            records: Vec::new(),
            data: Vec::new(),
            credits: Vec::new(),
        }
    }

    /// Appends a record; `headers` in the order in which they stand on it, values may be null.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let key = key.map(|bytes| self.put(bytes));
        let value = value.map(|bytes| self.put(bytes));
        let start = self.data.len() as u32;
        let (mut source, mut origin) = (None, None);
        for (name, value) in headers {
            self.data.extend_from_slice(&(name.len() as u32).to_le_bytes());
            self.data.extend_from_slice(name.as_bytes());
            let length = value.map_or(-1, |value| value.len() as i32);
            self.data.extend_from_slice(&length.to_le_bytes());
            let range = self.put(value.unwrap_or_default());
            match name {
                elkfk_wire::source_id::HEADER => source = value.and_then(SourceId::from_bytes),
                // It goes into bulk requests as it is, and anybody may write to the topic.
                ORIGIN_HEADER => origin = value.filter(|value| is_origin(value)).map(|_| range),
                _ => {}
            }
        }
        let headers = start..self.data.len() as u32;
        self.records.push(Record { offset, timestamp_ms, key, value, headers, source, origin });
    }

    fn put(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        start..self.data.len() as u32
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Memory held, near enough.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.records.len() * RECORD_OVERHEAD_BYTES
    }

    pub fn hold(&mut self, credit: Credit) {
        self.credits.push(credit);
    }

    pub fn offsets(&self) -> impl Iterator<Item = i64> {
        self.records.iter().map(|record| record.offset)
    }

    /// How many milliseconds ago the records were written, summed over so many that have a time. One of
    /// the future counts as new: producers have clocks of their own.
    pub fn waited(&self, now_ms: i64) -> (u64, u64) {
        let times = self.records.iter().filter_map(|record| record.timestamp_ms);
        times.fold((0, 0), |(sum, count), ms| {
            (sum + now_ms.saturating_sub(ms).max(0) as u64, count + 1)
        })
    }

    pub fn get(&self, index: usize) -> RecordView<'_> {
        RecordView { batch: self, record: &self.records[index] }
    }

    pub fn iter(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.records.iter().map(|record| RecordView { batch: self, record })
    }

    /// Notes one delivery of each of these records, given by their index in the batch.
    pub fn acknowledge(&self, records: impl IntoIterator<Item = u32>) {
        let mut acks = self.acks.lock().expect("no holder of this lock panics");
        let sequences = records.into_iter().map(|record| self.first + u64::from(record));
        acks.acknowledge(self.epoch, sequences);
    }
}

impl<'a> RecordView<'a> {
    pub fn offset(self) -> i64 {
        self.record.offset
    }

    pub fn timestamp_ms(self) -> Option<i64> {
        self.record.timestamp_ms
    }

    pub fn key(self) -> Option<&'a [u8]> {
        self.record.key.clone().map(|range| self.bytes(range))
    }

    /// `None` for a tombstone.
    pub fn value(self) -> Option<&'a [u8]> {
        self.record.value.clone().map(|range| self.bytes(range))
    }

    pub fn headers(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let mut rest = self.bytes(self.record.headers.clone());
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (name, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let (length, after) = after.split_first_chunk::<4>()?;
            let length = i32::from_le_bytes(*length);
            let (value, after) = after.split_at_checked(length.max(0) as usize)?;
            rest = after;
            Some((std::str::from_utf8(name).ok()?, (length >= 0).then_some(value)))
        })
    }

    /// Writes the id that makes a second delivery of this record recognisable: the line's own
    /// where elkfk's shipper sent it, else the record's place in Kafka.
    pub fn write_id(self, into: &mut Vec<u8>) {
        if let Some(source) = self.record.source {
            into.extend_from_slice(&source.to_text());
        } else if let Some(origin) = self.record.origin.clone() {
            into.extend_from_slice(self.bytes(origin));
        } else {
            self.write_place(into);
        }
    }

    /// `topic+partition+offset+milliseconds`. A topic that is deleted and made again gives the same
    /// offsets to other records: their time tells them apart.
    pub fn write_place(self, into: &mut Vec<u8>) {
        use std::io::Write as _;
        let TopicPartition { topic, partition } = &self.batch.partition;
        write!(into, "{topic}+{partition}+{}", self.record.offset)
            .expect("writing to memory does not fail");
        if let Some(timestamp_ms) = self.record.timestamp_ms {
            write!(into, "+{timestamp_ms}").expect("writing to memory does not fail");
        }
    }

    /// Whether the record says that it stood elsewhere before.
    pub fn has_origin(self) -> bool {
        self.record.origin.is_some()
    }

    fn bytes(self, range: Range<u32>) -> &'a [u8] {
        &self.batch.data[range.start as usize..range.end as usize]
    }
}

/// Documents for one index.
pub struct Chunk {
    pub index: Arc<str>,
    /// An action line and a source line for each document.
    pub body: Bytes,
    pub documents: Vec<Placed>,
    pub batch: Arc<Batch>,
    pub credit: Option<Credit>,
}

/// Where a document ends in its chunk's body, and which record of the batch it came from.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    pub end: u32,
    pub record: u32,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("index", &self.index)
            .field("documents", &self.documents.len())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A run of a chunk's documents. Never empty.
#[derive(Debug, Clone)]
pub struct Slice {
    chunk: Arc<Chunk>,
    from: u32,
    to: u32,
    /// How often these documents themselves were put off.
    pub attempts: u32,
    /// Whether the one document was already changed to fit the mapping.
    pub is_salvaged: bool,
}

impl Slice {
    /// All documents of a chunk; `None` if it has none.
    pub fn all(chunk: Arc<Chunk>) -> Option<Self> {
        let to = chunk.documents.len() as u32;
        (to > 0).then_some(Self { chunk, from: 0, to, attempts: 0, is_salvaged: false })
    }

    pub fn index(&self) -> &Arc<str> {
        &self.chunk.index
    }

    pub fn batch(&self) -> &Arc<Batch> {
        &self.chunk.batch
    }

    pub fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// The bulk lines of these documents.
    pub fn body(&self) -> Bytes {
        self.chunk.body.slice(self.start(self.from)..self.start(self.to))
    }

    pub fn body_bytes(&self) -> usize {
        self.start(self.to) - self.start(self.from)
    }

    /// Which records of the batch these documents came from.
    pub fn records(&self) -> impl Iterator<Item = u32> {
        let documents = &self.chunk.documents[self.from as usize..self.to as usize];
        documents.iter().map(|document| document.record)
    }

    pub fn acknowledge(&self) {
        self.batch().acknowledge(self.records());
    }

    /// The documents of `range`, counted from the start of this slice.
    pub fn part(&self, range: Range<usize>) -> Self {
        debug_assert!(range.start < range.end && range.end <= self.len());
        let (from, to) = (self.from + range.start as u32, self.from + range.end as u32);
        Self { from, to, ..self.clone() }
    }

    /// The longest run from the start that fits into `limit` bytes, at least one document, and
    /// what is left.
    pub fn split(self, limit: usize) -> (Self, Option<Self>) {
        if self.body_bytes() <= limit {
            return (self, None);
        }
        let start = self.start(self.from);
        let documents = &self.chunk.documents[self.from as usize..self.to as usize];
        let fitting = documents.partition_point(|document| document.end as usize - start <= limit);
        let at = fitting.clamp(1, self.len());
        let rest = (at < self.len()).then(|| self.part(at..self.len()));
        (self.part(0..at), rest)
    }

    /// Byte position in the body at which the given document starts.
    fn start(&self, document: u32) -> usize {
        match document {
            0 => 0,
            _ => self.chunk.documents[document as usize - 1].end as usize,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A batch of `count` records of one partition, tracked, and a chunk of one document each.
    pub(crate) fn chunk_of(
        acks: &Arc<Mutex<Acks>>,
        epoch: Epoch,
        index: &str,
        count: usize,
    ) -> Arc<Chunk> {
        let partition = TopicPartition { topic: "logs".into(), partition: 0 };
        let mut batch = Batch::new(partition, epoch, acks.clone());
        for _ in 0..count {
            batch.push(0, None, None, Some(b"{}"), []);
        }
        let mut acks = acks.lock().unwrap();
        batch.first = acks.track(epoch, (0..count).map(|n| n as i64)).unwrap();
        let (mut body, mut documents) = (Vec::new(), Vec::new());
        for record in 0..count as u32 {
            let id = batch.first + u64::from(record);
            body.extend_from_slice(format!("{{\"create\":{{\"_id\":\"{id}\"}}}}\n").as_bytes());
            body.extend_from_slice(format!("{{\"message\":\"{id}\",\"n\":\"x\"}}\n").as_bytes());
            documents.push(Placed { end: body.len() as u32, record });
        }
        let batch = Arc::new(batch);
        Arc::new(Chunk { index: index.into(), body: body.into(), documents, batch, credit: None })
    }

    #[test]
    fn records_come_back_as_they_were_pushed() {
        let partition = TopicPartition { topic: "logs".into(), partition: 2 };
        let mut batch = Batch::new(partition, Epoch(1), Arc::default());
        let source = [7u8; 20];
        batch.push(
            5,
            Some(9),
            Some(b"k"),
            Some(b"v"),
            [("a", None), ("elkfk.source", Some(&source[..]))],
        );
        batch.push(6, None, None, None, []);
        batch.push(7, None, None, None, [(ORIGIN_HEADER, Some(&b"old+1+2"[..]))]);
        let first = batch.get(0);
        assert_eq!((first.offset(), first.timestamp_ms()), (5, Some(9)));
        assert_eq!((batch.waited(10), batch.waited(8)), ((1, 1), (0, 1)));
        assert_eq!((first.key(), first.value()), (Some(&b"k"[..]), Some(&b"v"[..])));
        let headers: Vec<_> = first.headers().collect();
        assert_eq!(headers, [("a", None), ("elkfk.source", Some(&source[..]))]);
        let id = |index: usize| {
            let mut id = Vec::new();
            batch.get(index).write_id(&mut id);
            String::from_utf8(id).unwrap()
        };
        assert_eq!(id(0), SourceId::from_bytes(&source).unwrap().to_string());
        assert_eq!(id(1), "logs+2+6");
        assert_eq!(id(2), "old+1+2");
        assert_eq!(batch.get(1).value(), None);
    }

    #[test]
    fn record_of_a_topic_made_again_has_another_id() {
        let partition = TopicPartition { topic: "logs".into(), partition: 2 };
        let id = |timestamp_ms| {
            let mut batch = Batch::new(partition.clone(), Epoch(1), Arc::default());
            batch.push(6, timestamp_ms, None, None, []);
            let mut id = Vec::new();
            batch.get(0).write_id(&mut id);
            String::from_utf8(id).unwrap()
        };
        assert_eq!(id(Some(1_772_323_200_000)), "logs+2+6+1772323200000");
        assert_ne!(id(Some(1_772_323_200_000)), id(Some(1_772_323_200_001)));
    }

    #[test]
    fn origin_that_could_leave_its_quotes_is_not_taken() {
        let partition = TopicPartition { topic: "logs".into(), partition: 2 };
        let long = "x".repeat(301);
        for origin in ["", "a\"}}\n{\"delete\":{", "a\\", "ü", "a b", &long] {
            let mut batch = Batch::new(partition.clone(), Epoch(1), Arc::default());
            batch.push(6, None, None, None, [(ORIGIN_HEADER, Some(origin.as_bytes()))]);
            let mut id = Vec::new();
            batch.get(0).write_id(&mut id);
            assert_eq!(String::from_utf8(id).unwrap(), "logs+2+6", "{origin}");
            assert!(!batch.get(0).has_origin());
        }
    }

    #[test]
    fn split_parts_hold_all_documents_and_fit() {
        let acks = Arc::new(Mutex::new(Acks::default()));
        let epoch =
            acks.lock().unwrap().assign(TopicPartition { topic: "logs".into(), partition: 0 });
        let chunk = chunk_of(&acks, epoch, "a", 20);
        for limit in [1, 50, 100, 333, 10_000] {
            let (mut rest, mut bodies, mut records) =
                (Slice::all(chunk.clone()), Vec::new(), Vec::new());
            while let Some(slice) = rest.take() {
                let (part, after) = slice.split(limit);
                assert!(part.body_bytes() <= limit || part.len() == 1);
                bodies.extend_from_slice(&part.body());
                records.extend(part.records());
                rest = after;
            }
            assert_eq!(bodies, chunk.body);
            assert_eq!(records, (0..20).collect::<Vec<_>>());
        }
    }
}
