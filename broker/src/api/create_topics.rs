//! CreateTopics, versions 2 to 7. Answered once every partition has a leader.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use elkfk_wire::kafka::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};

use super::describe_configs::topic_entries;
use super::{Answer, Context, Request, code};
use crate::cluster::{ADMIN_WAIT_MAX, AdminError, NewTopic, WantedReplicas};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: CreateTopicsRequest<'_> = request.decode()?;
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for topic in &message.topics {
        if !seen.insert(&*topic.name) {
            repeated.insert(&*topic.name);
        }
    }
    let wait =
        Duration::from_millis(message.timeout_ms.max(0).unsigned_abs().into()).min(ADMIN_WAIT_MAX);
    let mut results = Vec::with_capacity(message.topics.len());
    for topic in &message.topics {
        let created = match repeated.contains(&*topic.name) {
            true => Err(AdminError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name.")),
            false => create(&context, topic, message.validate_only, wait).await,
        };
        let name = topic.name.clone();
        results.push(match created {
            Ok(result) => CreatableTopicResult { name, ..result },
            Err(error) => CreatableTopicResult {
                name,
                error_code: code(error.code),
                error_message: error.message.map(Cow::Owned),
                ..Default::default()
            },
        });
    }
    request.answer(&CreateTopicsResponse { throttle_time_ms: 0, topics: results })
}

async fn create(
    context: &Context,
    topic: &CreatableTopic<'_>,
    validate_only: bool,
    wait: Duration,
) -> Result<CreatableTopicResult<'static>, AdminError> {
    let broker = &context.broker;
    if !broker.is_controller(&broker.cluster.image()) {
        return Err(ErrorCode::NOT_CONTROLLER.into());
    }
    let wanted = wanted(topic)?;
    let created = broker.cluster.create_topic(&wanted, validate_only).await?;
    let partitions = created.replicas.len();
    if !validate_only && !broker.cluster.await_leaders(&wanted.name, partitions, wait).await {
        return Err(ErrorCode::REQUEST_TIMED_OUT.into());
    }
    let configs = topic_entries(&broker.config, &wanted.config).into_iter().map(|entry| {
        CreatableTopicConfigs {
            name: entry.name.into(),
            value: Some(entry.value.into()),
            read_only: false,
            config_source: entry.source,
            is_sensitive: false,
        }
    });
    Ok(CreatableTopicResult {
        topic_id: created.id,
        num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        replication_factor: created
            .replicas
            .first()
            .map_or(-1, |it| i16::try_from(it.len()).unwrap_or(i16::MAX)),
        configs: Some(configs.collect()),
        ..Default::default()
    })
}

fn wanted(topic: &CreatableTopic<'_>) -> Result<NewTopic, AdminError> {
    let is_assigned = !topic.assignments.is_empty();
    if is_assigned && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        let why = "Both numPartitions or replicationFactor and replicasAssignments were set. \
                   Both cannot be used at the same time.";
        return Err(AdminError::new(ErrorCode::INVALID_REQUEST, why));
    }
    let nulls: Vec<&str> = topic
        .configs
        .iter()
        .filter(|config| config.value.is_none())
        .map(|config| &*config.name)
        .collect();
    if !nulls.is_empty() {
        let why = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(AdminError::new(ErrorCode::INVALID_CONFIG, why));
    }
    let replicas = match is_assigned {
        true => {
            let assignments = topic.assignments.iter();
            WantedReplicas::Assigned(
                assignments.map(|it| (it.partition_index, it.broker_ids.clone())).collect(),
            )
        }
        false => WantedReplicas::Spread {
            partitions: (topic.num_partitions != -1).then_some(topic.num_partitions),
            factor: (topic.replication_factor != -1).then_some(topic.replication_factor),
        },
    };
    let config: BTreeMap<String, String> = topic
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_deref()?.to_owned())))
        .collect();
    Ok(NewTopic { name: topic.name.to_string(), replicas, config })
}
