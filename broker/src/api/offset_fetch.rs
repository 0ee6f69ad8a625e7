//! OffsetFetch, versions 1 to 8: how far a group has read; from version 8 of several groups.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::offset_fetch_request::OffsetFetchRequest;
use elkfk_wire::kafka::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::{Answer, Context, Request, code};
use crate::group::offsets::Committed;

/// A topic with its partitions and what was committed for each.
type Topics = Vec<(String, Vec<(i32, Option<Committed>)>)>;

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: OffsetFetchRequest<'_> = request.decode()?;
    if request.version >= 8 {
        let groups = message.groups.iter().map(|group| {
            let wanted = group.topics.as_ref().map(|topics| {
                let topics = topics.iter();
                topics
                    .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
                    .collect::<Vec<_>>()
            });
            let (error, topics) = look(&context, &group.group_id, wanted);
            OffsetFetchResponseGroup {
                group_id: group.group_id.clone(),
                topics: topics.into_iter().map(in_group).collect(),
                error_code: code(error),
            }
        });
        let groups = groups.collect();
        return request.answer(&OffsetFetchResponse { groups, ..Default::default() });
    }
    let wanted = message.topics.as_ref().map(|topics| {
        topics
            .iter()
            .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
            .collect::<Vec<_>>()
    });
    let (error, topics) = match (look(&context, &message.group_id, wanted.clone()), request.version)
    {
        // Version 1 has no place for the group's error but its partitions.
        ((error, _), 1) if !error.is_none() => (error, unknown(wanted.unwrap_or_default())),
        (found, _) => found,
    };
    let partition_error = if request.version == 1 { error } else { ErrorCode::NONE };
    let topics = topics.into_iter().map(|(name, partitions)| OffsetFetchResponseTopic {
        name: name.into(),
        partitions: partitions
            .into_iter()
            .map(|(partition_index, committed)| {
                let (committed_offset, committed_leader_epoch, metadata) = fields(committed);
                OffsetFetchResponsePartition {
                    partition_index,
                    committed_offset,
                    committed_leader_epoch,
                    metadata: Some(metadata.into()),
                    error_code: code(partition_error),
                }
            })
            .collect(),
    });
    let topics = topics.collect();
    request.answer(&OffsetFetchResponse { topics, error_code: code(error), ..Default::default() })
}

fn unknown(wanted: Vec<(String, Vec<i32>)>) -> Topics {
    let topics = wanted.into_iter();
    topics
        .map(|(name, partitions)| (name, partitions.into_iter().map(|it| (it, None)).collect()))
        .collect()
}

/// No `wanted` asks for all that the group committed.
fn look(
    context: &Context,
    group: &str,
    wanted: Option<Vec<(String, Vec<i32>)>>,
) -> (ErrorCode, Topics) {
    let found = context.broker.groups.look(group, |groups| {
        let offsets = groups.get(group).map(|group| &group.offsets);
        match &wanted {
            None => offsets
                .into_iter()
                .flat_map(|offsets| offsets.topics())
                .map(|(topic, partitions)| {
                    let partitions = partitions.map(|(number, it)| (number, Some(it.clone())));
                    (topic.to_owned(), partitions.collect())
                })
                .collect(),
            Some(wanted) => wanted
                .iter()
                .map(|(topic, partitions)| {
                    let find = |number: &i32| {
                        offsets.and_then(|offsets| offsets.get(topic, *number)).cloned()
                    };
                    (
                        topic.clone(),
                        partitions.iter().map(|number| (*number, find(number))).collect(),
                    )
                })
                .collect(),
        }
    });
    match found {
        Ok(topics) => (ErrorCode::NONE, topics),
        Err(error) => (error, Vec::new()),
    }
}

fn fields(committed: Option<Committed>) -> (i64, i32, String) {
    committed.map_or((-1, -1, String::new()), |it| (it.offset, it.leader_epoch, it.metadata))
}

fn in_group(
    (name, partitions): (String, Vec<(i32, Option<Committed>)>),
) -> OffsetFetchResponseTopics<'static> {
    let partitions = partitions.into_iter().map(|(partition_index, committed)| {
        let (committed_offset, committed_leader_epoch, metadata) = fields(committed);
        OffsetFetchResponsePartitions {
            partition_index,
            committed_offset,
            committed_leader_epoch,
            metadata: Some(metadata.into()),
            error_code: 0,
        }
    });
    OffsetFetchResponseTopics { name: name.into(), partitions: partitions.collect() }
}
