//! Brokers, topics and who leads what.

use std::time::Duration;

use elkfk_wire::kafka::messages::{
    DescribeClusterRequest, DescribeClusterResponse, MetadataRequest, MetadataResponse,
    metadata_request::MetadataRequestTopic,
};
use elkfk_wire::kafka::{ErrorCode, Uuid};

use crate::client::{Client, whole};
use crate::connection::Connection;
use crate::error::ClientError;

/// Brokers hear of a change within milliseconds; one that has not by then may never.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
const SETTLE_EVERY: Duration = Duration::from_millis(20);

/// A broker and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl Broker {
    /// `host:port`, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What one broker knows of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Unknown to brokers before 0.10.1.
    pub id: Option<String>,
    /// Broker id; none while one is being elected.
    pub controller: Option<i32>,
    pub brokers: Vec<Broker>,
    /// Those asked for, in the broker's order.
    pub topics: Vec<Topic>,
}

impl Cluster {
    pub fn broker(&self, id: i32) -> Option<&Broker> {
        self.brokers.iter().find(|broker| broker.id == id)
    }

    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Why the rest is empty, if it is.
    pub error: ErrorCode,
    pub name: String,
    /// [`Uuid::ZERO`] from brokers before 2.8.
    pub id: Uuid,
    pub is_internal: bool,
    /// By index, ascending.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// Whether it exists and each of its partitions has a leader.
    pub fn is_served(&self) -> bool {
        let errors = self.partitions.iter().map(|partition| partition.error);
        errors.chain([self.error]).all(|error| error == ErrorCode::NONE)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// `LEADER_NOT_AVAILABLE` while there is no leader.
    pub error: ErrorCode,
    pub index: i32,
    /// Broker id; none while there is no leader.
    pub leader: Option<i32>,
    /// -1 from brokers before 2.1.
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline: Vec<i32>,
}

impl Client {
    /// The cluster with all its topics, or with those named. Never creates a topic.
    ///
    /// A topic that does not exist comes back with its error.
    ///
    /// # Errors
    ///
    /// If no broker answers.
    pub async fn metadata(&self, topics: Option<&[&str]>) -> Result<Cluster, ClientError> {
        let connection = self.any().await?;
        self.ask_metadata(&connection, topics, false).await
    }

    /// Asks for a topic as producers and consumers do, upon which the broker may create it.
    ///
    /// `LEADER_NOT_AVAILABLE` means that it just did.
    ///
    /// # Errors
    ///
    /// If no broker answers.
    pub async fn touch_topic(&self, name: &str) -> Result<ErrorCode, ClientError> {
        let connection = self.any().await?;
        let cluster = self.ask_metadata(&connection, Some(&[name]), true).await?;
        Ok(cluster.topics.first().map_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, |t| t.error))
    }

    /// Waits until every broker that can be asked shows a topic as `is_settled` wants it. The
    /// controller answers before the others have heard of what it decided, and whoever asks next may
    /// ask one of those.
    ///
    /// Gives up after five seconds without a word: what was decided stands all the same.
    pub async fn settle_topic(&self, name: &str, is_settled: impl Fn(&Topic) -> bool) {
        let wait = async {
            let Ok(cluster) = self.brokers().await else { return };
            let mut waited_for: Vec<i32> = cluster.brokers.iter().map(|broker| broker.id).collect();
            loop {
                let mut unsettled = Vec::new();
                for node in waited_for {
                    // One that hangs must not use up the time of the others.
                    let asked = tokio::time::timeout(SETTLE_LIMIT / 5, self.topic_on(node, name));
                    if let Ok(Some(topic)) = asked.await
                        && !is_settled(&topic)
                    {
                        unsettled.push(node);
                    }
                }
                if unsettled.is_empty() {
                    return;
                }
                waited_for = unsettled;
                tokio::time::sleep(SETTLE_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(SETTLE_LIMIT, wait).await;
    }

    /// A topic as one broker shows it; `None` if it cannot be asked.
    async fn topic_on(&self, node: i32, name: &str) -> Option<Topic> {
        let connection = self.node(node).await.ok()?;
        let cluster = self.ask_metadata(&connection, Some(&[name]), false).await.ok()?;
        cluster.topics.into_iter().next()
    }

    async fn ask_metadata(
        &self,
        connection: &Connection,
        topics: Option<&[&str]>,
        may_create: bool,
    ) -> Result<Cluster, ClientError> {
        let version = connection.version::<MetadataRequest<'_>>()?;
        let wanted = topics.map(|names| {
            let wanted = |name: &&str| MetadataRequestTopic {
                name: Some((*name).to_owned().into()),
                ..MetadataRequestTopic::default()
            };
            names.iter().map(wanted).collect::<Vec<_>>()
        });
        let request = MetadataRequest {
            // Version 0 has no null: there an empty list asks for all.
            topics: if version == 0 { Some(wanted.unwrap_or_default()) } else { wanted },
            // Older versions cannot forbid it.
            allow_auto_topic_creation: may_create || version < 4,
            ..MetadataRequest::default()
        };
        let reply = connection.send(&request, version).await?;
        let response: MetadataResponse<'_> = reply.read()?;
        let cluster = cluster(&response);
        self.learn(&cluster.brokers, cluster.controller);
        Ok(cluster)
    }

    /// The cluster without its topics.
    ///
    /// # Errors
    ///
    /// If no broker answers.
    pub async fn brokers(&self) -> Result<Cluster, ClientError> {
        self.metadata(Some(&[])).await
    }

    /// The cluster as the API made for the question answers it; without topics.
    ///
    /// # Errors
    ///
    /// If no broker answers, or it is older than 2.8.
    pub async fn describe_cluster(&self) -> Result<Cluster, ClientError> {
        let connection = self.any().await?;
        let version = connection.version::<DescribeClusterRequest>()?;
        let reply = connection.send(&DescribeClusterRequest::default(), version).await?;
        let response: DescribeClusterResponse<'_> = reply.read()?;
        whole("describe the cluster", response.error_code, response.error_message.as_deref())?;
        let brokers = response.brokers.iter().map(|broker| Broker {
            id: broker.broker_id,
            host: broker.host.to_string(),
            port: broker.port,
            rack: broker.rack.as_deref().map(str::to_owned),
        });
        Ok(Cluster {
            id: Some(response.cluster_id.to_string()),
            controller: known_node(response.controller_id),
            brokers: brokers.collect(),
            topics: Vec::new(),
        })
    }
}

fn known_node(id: i32) -> Option<i32> {
    (id >= 0).then_some(id)
}

fn cluster(response: &MetadataResponse<'_>) -> Cluster {
    let brokers = response.brokers.iter().map(|broker| Broker {
        id: broker.node_id,
        host: broker.host.to_string(),
        port: broker.port,
        rack: broker.rack.as_deref().map(str::to_owned),
    });
    let topics = response.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| Partition {
            error: ErrorCode(partition.error_code),
            index: partition.partition_index,
            leader: known_node(partition.leader_id),
            leader_epoch: partition.leader_epoch,
            replicas: partition.replica_nodes.clone(),
            isr: partition.isr_nodes.clone(),
            offline: partition.offline_replicas.clone(),
        });
        let mut partitions: Vec<Partition> = partitions.collect();
        partitions.sort_by_key(|partition| partition.index);
        Topic {
            error: ErrorCode(topic.error_code),
            name: topic.name.as_deref().unwrap_or_default().to_owned(),
            id: topic.topic_id,
            is_internal: topic.is_internal,
            partitions,
        }
    });
    Cluster {
        id: response.cluster_id.as_deref().map(str::to_owned),
        controller: known_node(response.controller_id),
        brokers: brokers.collect(),
        topics: topics.collect(),
    }
}
