//! DeleteTopics, versions 1 to 6: by name, from version 6 by id too. Answered once they are gone.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::messages::delete_topics_request::DeleteTopicsRequest;
use elkfk_wire::kafka::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};
use elkfk_wire::kafka::{ErrorCode, Uuid};

use super::{Answer, Context, Request, code};
use crate::cluster::{ADMIN_WAIT_MAX, AdminError};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: DeleteTopicsRequest<'_> = request.decode()?;
    let wait =
        Duration::from_millis(message.timeout_ms.max(0).unsigned_abs().into()).min(ADMIN_WAIT_MAX);
    let wanted: Vec<(Option<String>, Uuid)> = match request.version >= 6 {
        true => {
            let topics = message.topics.iter();
            topics.map(|topic| (topic.name.as_deref().map(str::to_owned), topic.topic_id)).collect()
        }
        false => {
            message.topic_names.iter().map(|name| (Some(name.to_string()), Uuid::ZERO)).collect()
        }
    };
    let mut responses = Vec::with_capacity(wanted.len());
    for (name, id) in wanted {
        let (name, topic_id, deleted) = delete(&context, name, id, wait).await;
        let error = deleted.err();
        responses.push(DeletableTopicResult {
            name: name.map(Cow::Owned),
            topic_id,
            error_code: error.as_ref().map_or(0, |error| code(error.code)),
            error_message: error.and_then(|error| error.message).map(Cow::Owned),
        });
    }
    request.answer(&DeleteTopicsResponse { throttle_time_ms: 0, responses })
}

async fn delete(
    context: &Context,
    name: Option<String>,
    id: Uuid,
    wait: Duration,
) -> (Option<String>, Uuid, Result<(), AdminError>) {
    let broker = &context.broker;
    let image = broker.cluster.image();
    if !broker.is_controller(&image) {
        return (name, id, Err(ErrorCode::NOT_CONTROLLER.into()));
    }
    let found = match &name {
        Some(name) => Some(name.clone()),
        None => image.names.get(&id).cloned(),
    };
    let Some(found) = found else {
        return (None, id, Err(ErrorCode::UNKNOWN_TOPIC_ID.into()));
    };
    let id = image.topics.get(&found).map_or(id, |topic| topic.id);
    let deleted = broker.cluster.delete_topic(&found, wait).await;
    (Some(found), id, deleted)
}
