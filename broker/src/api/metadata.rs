//! Metadata, versions 0 to 12: brokers, topics and who leads their partitions.
//!
//! Without `advertised.listeners` this broker is listed under the address the client came to.
//! Topics that do not exist are created where `auto.create.topics.enable` and
//! `elkfk.auto.create.topics.pattern` let that happen; the client is told to ask again, as in Kafka.

use std::borrow::Cow;
use std::sync::Arc;

use elkfk_wire::kafka::messages::metadata_request::MetadataRequest;
use elkfk_wire::kafka::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use elkfk_wire::kafka::{ErrorCode, Uuid};

use super::{Answer, Context, Request, code};
use crate::cluster::{Image, Topic, is_internal};

/// Without ACLs everyone may do everything: the bits of all operations on a resource.
pub(super) const CLUSTER_OPERATIONS: i32 = 8096;
pub(super) const TOPIC_OPERATIONS: i32 = 3576;
pub(super) const GROUP_OPERATIONS: i32 = 328;
pub(super) const NOT_ASKED: i32 = i32::MIN;

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: MetadataRequest<'_> = request.decode()?;
    let mut image = context.broker.cluster.image();
    let operations = match message.include_topic_authorized_operations {
        true => TOPIC_OPERATIONS,
        false => NOT_ASKED,
    };
    let is_all = match &message.topics {
        None => true,
        Some(topics) => request.version == 0 && topics.is_empty(),
    };
    let mut answered: Vec<(ErrorCode, Option<String>, Uuid)> = Vec::new();
    if is_all {
        answered.extend(
            image
                .topics
                .iter()
                .map(|(name, topic)| (ErrorCode::NONE, Some(name.clone()), topic.id)),
        );
    }
    for wanted in message.topics.iter().flatten() {
        let Some(name) = &wanted.name else {
            answered.push(match image.names.get(&wanted.topic_id) {
                Some(name) => (ErrorCode::NONE, Some(name.clone()), wanted.topic_id),
                None => (ErrorCode::UNKNOWN_TOPIC_ID, None, wanted.topic_id),
            });
            continue;
        };
        let error = match image.topics.contains_key(&**name) {
            true => ErrorCode::NONE,
            false => {
                let is_allowed = request.version < 4 || message.allow_auto_topic_creation;
                let code = missing(&context, name, is_allowed).await;
                image = context.broker.cluster.image();
                code
            }
        };
        let id = image.topics.get(&**name).map_or(Uuid::ZERO, |topic| topic.id);
        answered.push((error, Some(name.to_string()), id));
    }
    let topics = answered.iter().map(|(error, name, id)| {
        let topic =
            name.as_ref().and_then(|name| image.topics.get(name)).filter(|_| error.is_none());
        MetadataResponseTopic {
            error_code: code(*error),
            name: match name {
                Some(name) => Some(Cow::Borrowed(name.as_str())),
                // Before version 12 the name cannot be null.
                None => (request.version < 12).then_some(Cow::Borrowed("")),
            },
            topic_id: *id,
            is_internal: name.as_deref().is_some_and(is_internal),
            partitions: topic.map(|topic| partitions(&image, topic)).unwrap_or_default(),
            topic_authorized_operations: operations,
        }
    });
    let topics = topics.collect();
    let endpoints = context.brokers(&image);
    let brokers = endpoints.iter().map(|(id, host, port, rack)| MetadataResponseBroker {
        node_id: *id,
        host: host.as_str().into(),
        port: *port,
        rack: rack.as_deref().map(Cow::Borrowed),
    });
    request.answer(&MetadataResponse {
        throttle_time_ms: 0,
        brokers: brokers.collect(),
        cluster_id: Some(context.broker.cluster.cluster_id.as_str().into()),
        controller_id: image.controller,
        topics,
        cluster_authorized_operations: match message.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => NOT_ASKED,
        },
    })
}

/// The topic is not there: creates it where that is wanted, and says what to tell the client.
async fn missing(context: &Context, name: &str, is_allowed: bool) -> ErrorCode {
    let cluster = &context.broker.cluster;
    if !is_allowed || !(cluster.config.auto_create_topics || is_internal(name)) {
        return match crate::cluster::check_name(name) {
            Ok(()) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            Err(error) => error.code,
        };
    }
    match cluster.auto_create(name).await {
        Ok(()) => ErrorCode::LEADER_NOT_AVAILABLE,
        Err(error) => error.code,
    }
}

fn partitions(image: &Image, topic: &Topic) -> Vec<MetadataResponsePartition> {
    let is_alive = |id: &&i32| image.brokers.contains_key(id);
    let partitions = topic.partitions.iter().enumerate();
    partitions
        .map(|(number, state)| {
            let is_led = image.brokers.contains_key(&state.leader);
            MetadataResponsePartition {
                error_code: code(if is_led {
                    ErrorCode::NONE
                } else {
                    ErrorCode::LEADER_NOT_AVAILABLE
                }),
                partition_index: i32::try_from(number).unwrap_or(i32::MAX),
                leader_id: if is_led { state.leader } else { -1 },
                leader_epoch: state.leader_epoch,
                replica_nodes: state.replicas.clone(),
                isr_nodes: state.isr.clone(),
                offline_replicas: state
                    .replicas
                    .iter()
                    .filter(|id| !is_alive(id))
                    .copied()
                    .collect(),
            }
        })
        .collect()
}

impl Context {
    /// Id, host, port and rack of every live broker, as this client should reach it.
    pub(super) fn brokers(&self, image: &Image) -> Vec<(i32, String, i32, Option<String>)> {
        let brokers = image.brokers.iter();
        brokers
            .map(|(id, broker)| {
                let (host, port) = match *id == self.broker.id() {
                    true => self.own_endpoint(),
                    false => (broker.host.clone(), broker.port),
                };
                (*id, host, port, broker.rack.clone())
            })
            .collect()
    }

    /// What this client is told about this broker: the advertised listener of the name it came
    /// through, else the address it came to.
    pub(super) fn own_endpoint(&self) -> (String, i32) {
        let advertised = &self.broker.config.advertised_listeners;
        match advertised.iter().find(|listener| listener.name == self.listener) {
            Some(listener) => (listener.host.clone(), listener.port.into()),
            None => (self.local.ip().to_canonical().to_string(), self.local.port().into()),
        }
    }
}
