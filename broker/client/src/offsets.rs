//! Where partitions begin and end, and moving their beginning.

use std::collections::BTreeMap;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use tokio::time::Instant;

use crate::TopicPartition;
use crate::client::{Client, RETRY_AFTER};
use crate::error::{ClientError, Refused};
use crate::metadata::Topic;

/// Which offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first that can be read.
    Start,
    /// After the last that can be read: the high watermark.
    End,
    /// Of the record with the largest timestamp. Brokers from 3.0 on.
    MaxTimestamp,
    /// The first whose timestamp is not before this, in milliseconds since 1970.
    Timestamp(i64),
}

impl OffsetAt {
    /// As it travels.
    fn number(self) -> i64 {
        match self {
            Self::End => -1,
            Self::Start => -2,
            Self::MaxTimestamp => -3,
            Self::Timestamp(ms) => ms,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// None where no record is as late as asked for.
    pub offset: Option<i64>,
    /// Of that record, in milliseconds; none for start and end.
    pub timestamp_ms: Option<i64>,
    pub leader_epoch: i32,
}

/// Per partition its offset, or why there is none.
pub type ListedOffsets = BTreeMap<TopicPartition, Result<ListedOffset, Refused>>;

impl Client {
    /// One offset of each partition. Every partition asked for is in the answer; those whose leader does not
    /// answer are in it with `NETWORK_EXCEPTION` and its name.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be asked; what failed for single partitions is in the answer.
    pub async fn list_offsets(
        &self,
        partitions: &[TopicPartition],
        at: OffsetAt,
    ) -> Result<ListedOffsets, ClientError> {
        let at: Vec<_> = partitions.iter().map(|place| (place.clone(), at)).collect();
        self.list_offsets_at(&at).await
    }

    /// As [`Client::list_offsets`], with a question for each partition.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be asked; what failed for single partitions is in the answer.
    pub async fn list_offsets_at(
        &self,
        questions: &[(TopicPartition, OffsetAt)],
    ) -> Result<ListedOffsets, ClientError> {
        let deadline = Instant::now() + self.config().timeout;
        let mut open: BTreeMap<TopicPartition, OffsetAt> = questions.iter().cloned().collect();
        let mut answers = BTreeMap::new();
        loop {
            let asked = self.retry(async || self.ask_offsets(&open).await).await?;
            answers.extend(asked);
            open.retain(|place, _| match answers.get(place) {
                None => true,
                Some(answer) => answer.as_ref().is_err_and(|refused| is_transient(refused.code)),
            });
            if open.is_empty() || Instant::now() + RETRY_AFTER >= deadline {
                break;
            }
            self.forget_roles();
            tokio::time::sleep(RETRY_AFTER).await;
        }
        for place in open.into_keys() {
            // A broker that leaves out what it was asked for.
            let refused = Refused { code: ErrorCode::UNKNOWN_SERVER_ERROR, message: None };
            answers.entry(place).or_insert(Err(refused));
        }
        Ok(answers)
    }

    /// Asks each leader once.
    async fn ask_offsets(
        &self,
        open: &BTreeMap<TopicPartition, OffsetAt>,
    ) -> Result<ListedOffsets, ClientError> {
        let (by_leader, leaderless) = self.by_leader(open.keys()).await?;
        let mut answers = ListedOffsets::new();
        answers.extend(leaderless.into_iter().map(|(place, refused)| (place, Err(refused))));
        for (leader, places) in by_leader {
            match self.ask_leader(leader, &places, open).await {
                Ok(listed) => answers.extend(listed),
                // The other leaders' answers are worth having without this one's.
                Err(error) => {
                    let refused = no_answer(leader, &error);
                    answers.extend(places.into_iter().map(|place| (place, Err(refused.clone()))));
                }
            }
        }
        Ok(answers)
    }

    async fn ask_leader(
        &self,
        leader: i32,
        places: &[TopicPartition],
        open: &BTreeMap<TopicPartition, OffsetAt>,
    ) -> Result<ListedOffsets, ClientError> {
        let connection = self.node(leader).await?;
        let version = connection.version::<ListOffsetsRequest<'_>>()?;
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for place in places {
            let partition = ListOffsetsPartition {
                partition_index: place.partition,
                timestamp: open[place].number(),
                ..ListOffsetsPartition::default()
            };
            topics.entry(&place.topic).or_default().push(partition);
        }
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| ListOffsetsTopic { name: name.into(), partitions })
            .collect();
        let request = ListOffsetsRequest { replica_id: -1, isolation_level: 0, topics };
        let reply = connection.send(&request, version).await?;
        let response: ListOffsetsResponse<'_> = reply.read()?;
        let mut answers = ListedOffsets::new();
        for topic in &response.topics {
            for p in &topic.partitions {
                let place = TopicPartition::new(&*topic.name, p.partition_index);
                let known = |n: i64| (n >= 0).then_some(n);
                let listed = ListedOffset {
                    offset: known(p.offset),
                    timestamp_ms: known(p.timestamp),
                    leader_epoch: p.leader_epoch,
                };
                let answer = Refused::check(p.error_code, None).map(|()| listed);
                answers.insert(place, answer);
            }
        }
        Ok(answers)
    }

    /// Moves the start of partitions forward: what is before the offset can no longer be read.
    ///
    /// Returns the new start. An offset of -1 stands for the end.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be asked; refusals are in the answer.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, Result<i64, Refused>>, ClientError> {
        self.retry(async || {
            let (by_leader, leaderless) = self.by_leader(before.keys()).await?;
            let mut answers: BTreeMap<_, _> =
                leaderless.into_iter().map(|(place, refused)| (place, Err(refused))).collect();
            for (leader, places) in by_leader {
                let connection = self.node(leader).await?;
                let version = connection.version::<DeleteRecordsRequest<'_>>()?;
                let mut topics: BTreeMap<&str, Vec<DeleteRecordsPartition>> = BTreeMap::new();
                for place in &places {
                    let offset = before[place];
                    let partition_index = place.partition;
                    let partition = DeleteRecordsPartition { partition_index, offset };
                    topics.entry(&place.topic).or_default().push(partition);
                }
                let topics = topics
                    .into_iter()
                    .map(|(name, partitions)| DeleteRecordsTopic { name: name.into(), partitions });
                let timeout_ms = self.timeout_ms();
                let request = DeleteRecordsRequest { topics: topics.collect(), timeout_ms };
                let reply = connection.send(&request, version).await?;
                let response: DeleteRecordsResponse<'_> = reply.read()?;
                for topic in &response.topics {
                    for p in &topic.partitions {
                        let place = TopicPartition::new(&*topic.name, p.partition_index);
                        let answer = Refused::check(p.error_code, None).map(|()| p.low_watermark);
                        answers.insert(place, answer);
                    }
                }
            }
            Ok(answers)
        })
        .await
    }

    /// Sorts partitions by the broker that leads them; those without one come with the reason.
    pub(crate) async fn by_leader<'p>(
        &self,
        partitions: impl Iterator<Item = &'p TopicPartition>,
    ) -> Result<ByLeader, ClientError> {
        let places: Vec<&TopicPartition> = partitions.collect();
        let mut names: Vec<&str> = places.iter().map(|place| place.topic.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let cluster = self.metadata(Some(&names)).await?;
        let topics: BTreeMap<&str, &Topic> =
            cluster.topics.iter().map(|topic| (topic.name.as_str(), topic)).collect();
        let mut leaders: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        let mut leaderless = Vec::new();
        for place in places {
            let topic = topics.get(place.topic.as_str()).copied();
            // They are in the order of their indices, and may be ten thousand.
            let partition = topic.and_then(|t| {
                let at = t.partitions.binary_search_by_key(&place.partition, |p| p.index).ok()?;
                t.partitions.get(at)
            });
            match (topic, partition.and_then(|p| p.leader)) {
                (_, Some(leader)) => leaders.entry(leader).or_default().push(place.clone()),
                (topic, None) => {
                    let code = match (topic, partition) {
                        (_, Some(_)) => ErrorCode::LEADER_NOT_AVAILABLE,
                        (Some(topic), None) if !topic.error.is_none() => topic.error,
                        _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    };
                    leaderless.push((place.clone(), Refused { code, message: None }));
                }
            }
        }
        Ok((leaders, leaderless))
    }
}

/// Partitions by the id of their leader, and those that have none.
pub(crate) type ByLeader = (BTreeMap<i32, Vec<TopicPartition>>, Vec<(TopicPartition, Refused)>);

fn no_answer(broker: i32, error: &ClientError) -> Refused {
    let message = Some(format!("broker {broker} does not answer: {}", error.in_one_line()));
    match error {
        ClientError::Refused { refused, .. } => Refused { code: refused.code, message },
        _ => Refused { code: ErrorCode::NETWORK_EXCEPTION, message },
    }
}

/// Whether a fresh look at the metadata may find another leader. A partition that does not exist
/// is an answer, though Kafka's clients try again.
fn is_transient(code: ErrorCode) -> bool {
    code.is_retriable()
        && code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        && code != ErrorCode::LEADER_NOT_AVAILABLE
}
