//! The topic of decisions: what was decided, in order, for whoever decides next and for people.
//!
//! One partition, 30 days, a record for each event: key `group/topic`, value the event as JSON, time that
//! of the event.

use std::time::Duration;

use elkfk_broker_client::{
    Client, ClientError, FetchedRecord, NewTopic, OffsetAt, Refused, Topic, TopicPartition,
};
use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::{
    ProduceRequest, ProduceResponse,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use elkfk_wire::kafka::records::{BatchBuilder, Compression};

use crate::ladder::Event;

/// The topic's usual name.
pub const DECISIONS_TOPIC: &str = "elkfk-autoscaler";
const RETENTION_MS: i64 = 30 * 24 * 3_600_000;
/// Asked for at once.
const FETCH_BYTES: i32 = 1 << 20;
/// Larger values are no events.
const EVENT_BYTES_MAX: usize = 256 << 10;
/// In one batch, well below a broker's smallest usual `message.max.bytes`.
const BATCH_BYTES_MAX: usize = 512 << 10;
const ATTEMPTS: u32 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Kafka's limit of a topic's name.
const NAME_CHARS_MAX: usize = 249;

/// What is wrong with the name of a topic, and how to mend it.
pub(crate) fn name_mistake(topic: &str) -> Option<String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let why = match topic {
        "" => "is empty".to_owned(),
        "." | ".." => "is no name".to_owned(),
        long if long.len() > NAME_CHARS_MAX => format!("has more than {NAME_CHARS_MAX} characters"),
        topic => format!("has {:?}", topic.chars().find(|c| !is_legal(*c))?),
    };
    Some(format!(
        "--decisions-topic {topic:?} {why}: no topic can have that name; letters, digits, '.', '_' and '-' may stand in it"
    ))
}

/// The events of one cluster.
#[derive(Debug, Clone)]
pub struct Decisions {
    client: Client,
    topic: String,
}

/// Events read, and where to go on.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<Event>,
    pub next_offset: i64,
    /// The end when it was read; at it there is nothing more for now.
    pub end: i64,
    /// Records that are no events.
    pub foreign: usize,
}

impl Page {
    pub fn is_last(&self) -> bool {
        self.next_offset >= self.end
    }
}

impl Decisions {
    pub fn new(client: Client, topic: impl Into<String>) -> Self {
        Self { client, topic: topic.into() }
    }

    fn place(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), 0)
    }

    /// Creates the topic where it does not exist.
    pub(crate) async fn ensure(&self) -> Result<(), ClientError> {
        if self.exists().await? {
            return Ok(());
        }
        let topic = NewTopic {
            name: self.topic.clone(),
            partitions: Some(1),
            configs: vec![
                ("retention.ms".to_owned(), RETENTION_MS.to_string()),
                ("cleanup.policy".to_owned(), "delete".to_owned()),
            ],
            ..NewTopic::default()
        };
        match self.client.create_topic(&topic, false).await? {
            Err(refused) if refused.code != ErrorCode::TOPIC_ALREADY_EXISTS => {
                return Err(self.refused("create topic", refused));
            }
            _ => {}
        }
        let has_leader = |topic: &Topic| topic.is_served() && !topic.partitions.is_empty();
        self.client.settle_topic(&self.topic, has_leader).await;
        Ok(())
    }

    /// Whether anything was ever decided here.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be asked.
    pub async fn exists(&self) -> Result<bool, ClientError> {
        let cluster = self.client.metadata(Some(&[&self.topic])).await?;
        Ok(cluster.topic(&self.topic).is_some_and(|topic| !topic.partitions.is_empty()))
    }

    /// Writes events, in order. Returns once every in-sync replica has them.
    ///
    /// An answer that is lost can leave an event there twice; who reads it twice knows no more by it.
    pub(crate) async fn write(&self, events: &[Event]) -> Result<(), ClientError> {
        let mut batch = BatchBuilder::new(Compression::Zstd);
        for event in events {
            let (group, topic) = event.of();
            let key = format!("{group}/{topic}");
            let value = serde_json::to_vec(event).unwrap_or_default();
            batch.push(event.at_ms(), Some(key.as_bytes()), Some(&value), &[]);
            if batch.plain_bytes() > BATCH_BYTES_MAX {
                self.produce(&batch).await?;
                batch = BatchBuilder::new(Compression::Zstd);
            }
        }
        if batch.is_empty() { Ok(()) } else { self.produce(&batch).await }
    }

    async fn produce(&self, batch: &BatchBuilder) -> Result<(), ClientError> {
        let records = batch.build().map_err(|error| {
            let message = Some(error.to_string());
            self.refused("write to", Refused { code: ErrorCode::INVALID_RECORD, message })
        })?;
        let mut attempt = 1;
        loop {
            match self.produce_once(&records).await {
                Err(error) if error.is_retriable() && attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                done => return done,
            }
        }
    }

    async fn produce_once(&self, records: &[u8]) -> Result<(), ClientError> {
        let refuse = |code: ErrorCode, message: Option<String>| {
            self.refused("write to", Refused { code, message })
        };
        let cluster = self.client.metadata(Some(&[&self.topic])).await?;
        let partition = cluster.topic(&self.topic).and_then(|topic| topic.partitions.first());
        let leader = partition
            .and_then(|partition| partition.leader)
            .ok_or_else(|| refuse(ErrorCode::LEADER_NOT_AVAILABLE, None))?;
        let connection = self.client.node(leader).await?;
        let version = connection.version::<ProduceRequest<'_>>()?;
        let timeout_ms = i32::try_from(self.client.config().timeout.as_millis());
        let request = ProduceRequest {
            transactional_id: None,
            // Every in-sync replica.
            acks: -1,
            timeout_ms: timeout_ms.unwrap_or(i32::MAX),
            topic_data: vec![TopicProduceData {
                name: self.topic.as_str().into(),
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(records.into()),
                }],
            }],
        };
        let reply = connection.send(&request, version).await?;
        let response: ProduceResponse<'_> = reply.read()?;
        let answer = response.responses.first().and_then(|t| t.partition_responses.first());
        let answer = answer.ok_or_else(|| refuse(ErrorCode::UNKNOWN_SERVER_ERROR, None))?;
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => Ok(()),
            code => Err(refuse(code, answer.error_message.as_deref().map(str::to_owned))),
        }
    }

    /// The offset of the first event that is not older than `since_ms`; the end, if all are.
    ///
    /// # Errors
    ///
    /// If the partition's leader cannot be asked.
    pub async fn offset_since(&self, since_ms: i64) -> Result<i64, ClientError> {
        let place = [self.place()];
        for at in [OffsetAt::Timestamp(since_ms.max(0)), OffsetAt::End] {
            let mut answers = self.client.list_offsets(&place, at).await?;
            let answer = answers.remove(&place[0]).transpose();
            let listed = answer.map_err(|refused| self.refused("find the end of", refused))?;
            if let Some(offset) = listed.and_then(|listed| listed.offset) {
                return Ok(offset);
            }
        }
        let refused = Refused { code: ErrorCode::LEADER_NOT_AVAILABLE, message: None };
        Err(self.refused("find the end of", refused))
    }

    fn refused(&self, what: &str, refused: Refused) -> ClientError {
        ClientError::Refused { what: format!("{what} {}", self.topic), refused }
    }

    /// Events from `offset` on, or from the first that is kept; waits up to `wait` where there are none yet.
    ///
    /// # Errors
    ///
    /// If the partition's leader cannot be asked.
    pub async fn read(&self, offset: i64, wait: Duration) -> Result<Page, ClientError> {
        let place = self.place();
        let fetched = match self.client.fetch_records(&place, offset, FETCH_BYTES, wait).await {
            // Deleted by retention meanwhile, or the topic was made anew.
            Err(error) if error.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                let mut starts =
                    self.client.list_offsets(std::slice::from_ref(&place), OffsetAt::Start).await?;
                let start = starts.remove(&place).and_then(Result::ok).and_then(|at| at.offset);
                self.client.fetch_records(&place, start.unwrap_or(0), FETCH_BYTES, wait).await?
            }
            fetched => fetched?,
        };
        let mut page = Page {
            next_offset: fetched.next_offset,
            end: fetched.high_watermark,
            ..Page::default()
        };
        for record in &fetched.records {
            match event(record) {
                Some(event) => page.events.push(event),
                None => page.foreign += 1,
            }
        }
        Ok(page)
    }
}

fn event(record: &FetchedRecord) -> Option<Event> {
    let value = record.value.as_ref().filter(|value| value.len() <= EVENT_BYTES_MAX)?;
    serde_json::from_slice(value).ok()
}
