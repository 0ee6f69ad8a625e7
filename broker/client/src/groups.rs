//! Consumer groups: who is in them and how far they have read.

use std::collections::BTreeMap;

use elkfk_wire::kafka::messages::{
    ConsumerProtocolAssignment, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::OffsetFetchRequestGroup,
};
use elkfk_wire::kafka::{ErrorCode, Message, Reader};
use tokio::time::Instant;

use crate::TopicPartition;
use crate::client::{Client, RETRY_AFTER, whole};
use crate::error::{ClientError, Refused};
use crate::metadata::Broker;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    pub group: String,
    /// `consumer`, or empty for a group that only commits offsets.
    pub protocol_type: String,
    /// `Stable`, `Empty`, …; empty from brokers before 2.6.
    pub state: String,
}

/// The groups of a cluster, as far as its brokers tell.
#[derive(Debug, Default)]
pub struct ListedGroups {
    /// By name.
    pub groups: Vec<ListedGroup>,
    /// Brokers that did not answer, and why: the groups that they coordinate may be missing.
    pub unanswered: Vec<(i32, ClientError)>,
}

impl ListedGroups {
    /// What is missing, in one line; none where every broker has answered.
    pub fn gap(&self) -> Option<String> {
        let brokers = self.unanswered.iter();
        let told: Vec<String> = brokers
            .map(|(broker, why)| format!("broker {broker}: {}", why.in_one_line()))
            .collect();
        (!told.is_empty())
            .then(|| format!("groups may be missing, no answer from {}", told.join("; ")))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: String,
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Dead`: it does not exist.
    pub state: String,
    pub protocol_type: String,
    /// The assignor: `range`, `cooperative-sticky`, …; empty without members.
    pub protocol: String,
    pub members: Vec<Member>,
    pub coordinator: Broker,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    /// As the broker writes it: `/127.0.0.1`.
    pub host: String,
    pub assignment: Assignment,
}

/// Partitions by topic, both ascending.
pub type Assignment = BTreeMap<String, Vec<i32>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: i64,
    /// Of the record before; -1 if unknown.
    pub leader_epoch: i32,
    pub metadata: String,
}

impl Client {
    /// Every group of the cluster, by name. Brokers that do not answer for the time allowed are named.
    ///
    /// # Errors
    ///
    /// If no broker can be asked.
    pub async fn list_groups(&self) -> Result<ListedGroups, ClientError> {
        let deadline = Instant::now() + self.config().timeout;
        let mut listed = loop {
            let mut listed = ListedGroups::default();
            let brokers = self.brokers().await?.brokers;
            for broker in &brokers {
                match self.groups_of(broker.id).await {
                    Ok(groups) => listed.groups.extend(groups),
                    Err(error) => listed.unanswered.push((broker.id, error)),
                }
            }
            let may_help = listed.unanswered.iter().any(|(_, error)| error.is_retriable());
            if !may_help || Instant::now() + RETRY_AFTER >= deadline {
                if listed.unanswered.len() == brokers.len()
                    && let Some((_, error)) = listed.unanswered.pop()
                {
                    return Err(error);
                }
                break listed;
            }
            // A broker that is gone is soon no longer in the cluster.
            self.forget_roles();
            tokio::time::sleep(RETRY_AFTER).await;
        };
        listed.groups.sort_by(|a, b| a.group.cmp(&b.group));
        listed.groups.dedup_by(|a, b| a.group == b.group);
        Ok(listed)
    }

    async fn groups_of(&self, broker: i32) -> Result<Vec<ListedGroup>, ClientError> {
        let connection = self.node(broker).await?;
        let version = connection.version::<ListGroupsRequest<'_>>()?;
        let reply = connection.send(&ListGroupsRequest::default(), version).await?;
        let response: ListGroupsResponse<'_> = reply.read()?;
        whole("list groups", response.error_code, None)?;
        let groups = response.groups.iter().map(|group| ListedGroup {
            group: group.group_id.to_string(),
            protocol_type: group.protocol_type.to_string(),
            state: group.group_state.to_string(),
        });
        Ok(groups.collect())
    }

    /// Members of a group and what they are assigned.
    ///
    /// # Errors
    ///
    /// If its coordinator cannot be asked. A group that does not exist is `Dead`, without members.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, ClientError> {
        let what = || format!("describe group {group}");
        self.retry(async || {
            let coordinator = self.find_coordinator(group).await?;
            let build = |_| DescribeGroupsRequest {
                groups: vec![group.into()],
                ..DescribeGroupsRequest::default()
            };
            let reply = self.ask_coordinator(group, build).await?;
            let response: DescribeGroupsResponse<'_> = reply.read()?;
            let Some(described) = response.groups.first() else {
                return Err(ClientError::refused(what(), -1));
            };
            whole(&what(), described.error_code, None)?;
            let members = described.members.iter().map(|member| Member {
                id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_deref().map(str::to_owned),
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                assignment: assignment(&member.member_assignment),
            });
            Ok(GroupDescription {
                group: group.to_owned(),
                state: described.group_state.to_string(),
                protocol_type: described.protocol_type.to_string(),
                protocol: described.protocol_data.to_string(),
                members: members.collect(),
                coordinator,
            })
        })
        .await
    }

    /// Deletes a group that has no members.
    ///
    /// # Errors
    ///
    /// `Ok(Err(_))` if the coordinator refuses, `Err` if it cannot be asked.
    pub async fn delete_group(&self, group: &str) -> Result<Result<(), Refused>, ClientError> {
        let what = format!("delete group {group}");
        self.retry(async || {
            let build = |_| DeleteGroupsRequest { groups_names: vec![group.into()] };
            let reply = self.ask_coordinator(group, build).await?;
            let response: DeleteGroupsResponse<'_> = reply.read()?;
            let code = response.results.first().map_or(-1, |result| result.error_code);
            coordinated(&what, code)
        })
        .await
    }

    /// How far a group has read, per partition that it has committed.
    ///
    /// # Errors
    ///
    /// If its coordinator cannot be asked or refuses. A group that does not exist has none.
    pub async fn committed_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
        let what = format!("fetch offsets of group {group}");
        self.retry(async || {
            let build = |version| {
                let mut request = OffsetFetchRequest::default();
                if version >= 8 {
                    let group = OffsetFetchRequestGroup { group_id: group.into(), topics: None };
                    request.groups = vec![group];
                } else {
                    request.group_id = group.into();
                }
                request
            };
            let reply = self.ask_coordinator(group, build).await?;
            let response: OffsetFetchResponse<'_> = reply.read()?;
            whole(&what, response.error_code, None)?;
            let mut committed = BTreeMap::new();
            let mut add = |topic: &str, partition, offset, leader_epoch, metadata: Option<&str>| {
                let place = TopicPartition::new(topic, partition);
                let metadata = metadata.unwrap_or_default().to_owned();
                // -1 stands for "nothing committed".
                if offset >= 0 {
                    committed.insert(place, Committed { offset, leader_epoch, metadata });
                }
            };
            for topic in &response.topics {
                for p in &topic.partitions {
                    whole(&what, p.error_code, None)?;
                    let epoch = p.committed_leader_epoch;
                    let metadata = p.metadata.as_deref();
                    add(&topic.name, p.partition_index, p.committed_offset, epoch, metadata);
                }
            }
            for answer in &response.groups {
                whole(&what, answer.error_code, None)?;
                for topic in &answer.topics {
                    for p in &topic.partitions {
                        whole(&what, p.error_code, None)?;
                        let epoch = p.committed_leader_epoch;
                        let metadata = p.metadata.as_deref();
                        add(&topic.name, p.partition_index, p.committed_offset, epoch, metadata);
                    }
                }
            }
            Ok(committed)
        })
        .await
    }

    /// Sets how far a group has read. The group must have no members.
    ///
    /// # Errors
    ///
    /// If its coordinator cannot be asked; refusals are in the answer.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), Refused>>, ClientError> {
        self.retry(async || {
            let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition<'_>>> = BTreeMap::new();
            for (place, offset) in offsets {
                let partition = OffsetCommitRequestPartition {
                    partition_index: place.partition,
                    committed_offset: *offset,
                    committed_metadata: Some("".into()),
                    ..OffsetCommitRequestPartition::default()
                };
                topics.entry(&place.topic).or_default().push(partition);
            }
            let topics = topics.into_iter().map(|(name, partitions)| OffsetCommitRequestTopic {
                name: name.into(),
                partitions,
            });
            let topics = topics.collect();
            let build = |_| OffsetCommitRequest {
                group_id: group.into(),
                topics,
                ..OffsetCommitRequest::default()
            };
            let reply = self.ask_coordinator(group, build).await?;
            let response: OffsetCommitResponse<'_> = reply.read()?;
            let mut results = BTreeMap::new();
            for topic in &response.topics {
                for p in &topic.partitions {
                    let result =
                        coordinated(&format!("commit offsets of group {group}"), p.error_code)?;
                    results.insert(TopicPartition::new(&*topic.name, p.partition_index), result);
                }
            }
            Ok(results)
        })
        .await
    }

    /// Forgets how far a group has read some partitions.
    ///
    /// # Errors
    ///
    /// `Ok(Err(_))` if the whole is refused, `Err` if the coordinator cannot be asked; refusals of
    /// single partitions are in the answer.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Result<BTreeMap<TopicPartition, Result<(), Refused>>, Refused>, ClientError> {
        let what = format!("delete offsets of group {group}");
        self.retry(async || {
            let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
            for place in partitions {
                let partition = OffsetDeleteRequestPartition { partition_index: place.partition };
                topics.entry(&place.topic).or_default().push(partition);
            }
            let topics = topics.into_iter().map(|(name, partitions)| OffsetDeleteRequestTopic {
                name: name.into(),
                partitions,
            });
            let topics = topics.collect();
            let build = |_| OffsetDeleteRequest { group_id: group.into(), topics };
            let reply = self.ask_coordinator(group, build).await?;
            let response: OffsetDeleteResponse<'_> = reply.read()?;
            if let Err(refused) = coordinated(&what, response.error_code)? {
                return Ok(Err(refused));
            }
            let mut results = BTreeMap::new();
            for topic in &response.topics {
                for p in &topic.partitions {
                    let result = Refused::check(p.error_code, None);
                    results.insert(TopicPartition::new(&*topic.name, p.partition_index), result);
                }
            }
            Ok(Ok(results))
        })
        .await
    }
}

/// That the coordinator moved or is loading is for [`Client::retry`]; the rest is the answer.
fn coordinated(what: &str, code: i16) -> Result<Result<(), Refused>, ClientError> {
    match ErrorCode(code) {
        ErrorCode::NOT_COORDINATOR
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => Err(ClientError::refused(what, code)),
        _ => Ok(Refused::check(code, None)),
    }
}

/// Reads what the leader of a consumer group handed to a member.
///
/// Other kinds of groups put anything there; theirs is shown as empty.
fn assignment(bytes: &[u8]) -> Assignment {
    let mut r = Reader::new(bytes);
    let Ok(version) = r.i16() else { return Assignment::new() };
    // Later versions only append fields.
    let version = version.clamp(0, *ConsumerProtocolAssignment::VERSIONS.end());
    let Ok(decoded) = ConsumerProtocolAssignment::decode(&mut r, version) else {
        return Assignment::new();
    };
    let mut assignment = Assignment::new();
    for topic in &decoded.assigned_partitions {
        assignment.entry(topic.topic.to_string()).or_default().extend(&topic.partitions);
    }
    for partitions in assignment.values_mut() {
        partitions.sort_unstable();
    }
    assignment
}
