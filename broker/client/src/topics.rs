//! Creating, growing and deleting topics.

use std::collections::BTreeMap;

use elkfk_wire::kafka::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreateableTopicConfig},
    delete_topics_request::DeleteTopicState,
};

use crate::client::Client;
use crate::error::{ClientError, Refused};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// None: the broker's `num.partitions`. Ignored where replicas are assigned.
    pub partitions: Option<i32>,
    /// None: the broker's `default.replication.factor`. Ignored where replicas are assigned.
    pub replication_factor: Option<i16>,
    /// Per partition the brokers, the preferred leader first; empty: the controller chooses.
    pub replicas: Vec<Vec<i32>>,
    pub configs: Vec<(String, String)>,
}

impl Client {
    /// Creates a topic, or only checks whether it could be.
    ///
    /// # Errors
    ///
    /// `Ok(Err(_))` if the controller refuses, `Err` if it cannot be asked.
    pub async fn create_topic(
        &self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<Result<(), Refused>, ClientError> {
        let is_assigned = !topic.replicas.is_empty();
        let assignments = topic.replicas.iter().zip(0..).map(|(brokers, partition_index)| {
            CreatableReplicaAssignment { partition_index, broker_ids: brokers.clone() }
        });
        let configs = topic.configs.iter().map(|(name, value)| CreateableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.as_str().into(),
                num_partitions: if is_assigned { -1 } else { topic.partitions.unwrap_or(-1) },
                replication_factor: match topic.replication_factor {
                    Some(factor) if !is_assigned => factor,
                    _ => -1,
                },
                assignments: assignments.collect(),
                configs: configs.collect(),
            }],
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        self.retry(async || {
            let connection = self.controller().await?;
            let version = connection.version::<CreateTopicsRequest<'_>>()?;
            let reply = connection.send(&request, version).await?;
            let response: CreateTopicsResponse<'_> = reply.read()?;
            let one = response.topics.first();
            let one = one.map(|t| (t.error_code, t.error_message.as_deref()));
            settle(format!("create topic {}", topic.name), one)
        })
        .await
    }

    /// Asks the controller to delete topics, by name. It answers once they are marked; their
    /// data goes later.
    ///
    /// # Errors
    ///
    /// If the controller cannot be asked; refusals are in the answer.
    pub async fn delete_topics(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, Result<(), Refused>>, ClientError> {
        let mut results = BTreeMap::new();
        for name in names {
            results.insert((*name).to_owned(), self.delete_topic(name).await?);
        }
        Ok(results)
    }

    async fn delete_topic(&self, name: &str) -> Result<Result<(), Refused>, ClientError> {
        self.retry(async || {
            let connection = self.controller().await?;
            let version = connection.version::<DeleteTopicsRequest<'_>>()?;
            let mut request =
                DeleteTopicsRequest { timeout_ms: self.timeout_ms(), ..Default::default() };
            if version >= 6 {
                let topic = DeleteTopicState { name: Some(name.into()), ..Default::default() };
                request.topics = vec![topic];
            } else {
                request.topic_names = vec![name.into()];
            }
            let reply = connection.send(&request, version).await?;
            let response: DeleteTopicsResponse<'_> = reply.read()?;
            let one = response.responses.first();
            let one = one.map(|t| (t.error_code, t.error_message.as_deref()));
            settle(format!("delete topic {name}"), one)
        })
        .await
    }

    /// Grows a topic to `total` partitions; `added` assigns the new ones to brokers.
    ///
    /// # Errors
    ///
    /// `Ok(Err(_))` if the controller refuses, `Err` if it cannot be asked.
    pub async fn create_partitions(
        &self,
        topic: &str,
        total: i32,
        added: Option<&[Vec<i32>]>,
    ) -> Result<Result<(), Refused>, ClientError> {
        let assignments = added.map(|added| {
            let assign =
                |brokers: &Vec<i32>| CreatePartitionsAssignment { broker_ids: brokers.clone() };
            added.iter().map(assign).collect()
        });
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic { name: topic.into(), count: total, assignments }],
            timeout_ms: self.timeout_ms(),
            validate_only: false,
        };
        self.retry(async || {
            let connection = self.controller().await?;
            let version = connection.version::<CreatePartitionsRequest<'_>>()?;
            let reply = connection.send(&request, version).await?;
            let response: CreatePartitionsResponse<'_> = reply.read()?;
            let one = response.results.first();
            let one = one.map(|t| (t.error_code, t.error_message.as_deref()));
            settle(format!("grow topic {topic}"), one)
        })
        .await
    }

    pub(crate) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.config().timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

/// What the controller said of the one topic asked about; that it moved is for [`Client::retry`].
fn settle(
    what: String,
    answer: Option<(i16, Option<&str>)>,
) -> Result<Result<(), Refused>, ClientError> {
    use elkfk_wire::kafka::ErrorCode;
    let (code, message) = answer.unwrap_or((ErrorCode::UNKNOWN_SERVER_ERROR.0, None));
    match Refused::check(code, message) {
        // An unknown topic is retriable in Kafka's list, as it may be about to exist; here it is
        // the answer.
        Err(refused)
            if refused.code.is_retriable()
                && refused.code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION =>
        {
            Err(ClientError::Refused { what, refused })
        }
        settled => Ok(settled),
    }
}
