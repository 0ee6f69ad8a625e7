//! AlterConfigs, versions 0 to 2, and IncrementalAlterConfigs, versions 0 and 1: settings of topics.
//!
//! Differs: no setting of a broker changes while it runs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::{
    alter_configs_request, alter_configs_response, incremental_alter_configs_request,
    incremental_alter_configs_response,
};

use super::describe_configs::{BROKER, TOPIC};
use super::{Answer, Context, Request, code};
use crate::cluster::AdminError;
use crate::config::{Kind, TopicConfigError, find_topic_key, topic_setting};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// One change: name, operation, value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

/// AlterConfigs: what is not named goes back to its default.
pub(super) async fn replace(context: Arc<Context>, request: Request) -> Answer {
    use alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};
    let message: alter_configs_request::AlterConfigsRequest<'_> = request.decode()?;
    let mut responses = Vec::with_capacity(message.resources.len());
    for resource in &message.resources {
        let changes: Vec<Change<'_>> =
            resource.configs.iter().map(|it| (&*it.name, SET, it.value.as_deref())).collect();
        let (kind, name) = (resource.resource_type, &*resource.resource_name);
        let error = alter(&context, kind, name, &changes, false, message.validate_only).await.err();
        responses.push(AlterConfigsResourceResponse {
            error_code: error.as_ref().map_or(0, |error| code(error.code)),
            error_message: error.and_then(|error| error.message).map(Cow::Owned),
            resource_type: kind,
            resource_name: resource.resource_name.clone(),
        });
    }
    request.answer(&AlterConfigsResponse { throttle_time_ms: 0, responses })
}

/// IncrementalAlterConfigs: what is not named stays as it is.
pub(super) async fn increment(context: Arc<Context>, request: Request) -> Answer {
    use incremental_alter_configs_response::{
        AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
    };
    let message: incremental_alter_configs_request::IncrementalAlterConfigsRequest<'_> =
        request.decode()?;
    let mut responses = Vec::with_capacity(message.resources.len());
    for resource in &message.resources {
        let changes: Vec<Change<'_>> = resource
            .configs
            .iter()
            .map(|it| (&*it.name, it.config_operation, it.value.as_deref()))
            .collect();
        let (kind, name) = (resource.resource_type, &*resource.resource_name);
        let error = alter(&context, kind, name, &changes, true, message.validate_only).await.err();
        responses.push(AlterConfigsResourceResponse {
            error_code: error.as_ref().map_or(0, |error| code(error.code)),
            error_message: error.and_then(|error| error.message).map(Cow::Owned),
            resource_type: kind,
            resource_name: resource.resource_name.clone(),
        });
    }
    request.answer(&IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses })
}

async fn alter(
    context: &Context,
    kind: i8,
    name: &str,
    changes: &[Change<'_>],
    keeps_others: bool,
    validate_only: bool,
) -> Result<(), AdminError> {
    let broker = &context.broker;
    match kind {
        TOPIC => {}
        BROKER => {
            let names: Vec<&str> = changes.iter().map(|(name, ..)| *name).collect();
            let why = format!("Cannot update these configs dynamically: Set({})", names.join(", "));
            return Err(AdminError::new(ErrorCode::INVALID_REQUEST, why));
        }
        other => {
            let why = format!("Unsupported resource type: {other}");
            return Err(AdminError::new(ErrorCode::INVALID_REQUEST, why));
        }
    }
    let image = broker.cluster.image();
    let Some(topic) = image.topics.get(name) else {
        return Err(AdminError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ""));
    };
    let mut settings = if keeps_others { topic.config.clone() } else { BTreeMap::new() };
    for (key, operation, value) in changes {
        apply(context, &mut settings, key, *operation, *value)?;
    }
    broker.cluster.set_topic_config(name, &settings, validate_only).await
}

fn apply(
    context: &Context,
    settings: &mut BTreeMap<String, String>,
    key: &str,
    operation: i8,
    value: Option<&str>,
) -> Result<(), AdminError> {
    let Some(known) = find_topic_key(key) else {
        return Err(TopicConfigError::UnknownName(key.to_owned()).into());
    };
    if operation == DELETE {
        settings.remove(key);
        return Ok(());
    }
    let Some(value) = value else {
        let why = format!("Null value not supported for topic configs: {key}");
        return Err(AdminError::new(ErrorCode::INVALID_REQUEST, why));
    };
    if operation == SET {
        settings.insert(key.to_owned(), value.to_owned());
        return Ok(());
    }
    if known.kind != Kind::List {
        let why = format!("Config value append is not allowed for config key: {key}");
        return Err(AdminError::new(ErrorCode::INVALID_CONFIG, why));
    }
    let current = topic_setting(&context.broker.config, settings, key);
    let mut parts: Vec<&str> = current.split(',').filter(|part| !part.is_empty()).collect();
    match operation {
        APPEND => {
            for part in value.split(',') {
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        SUBTRACT => parts.retain(|part| !value.split(',').any(|gone| gone == *part)),
        other => {
            let why = format!("Unknown operation {other}");
            return Err(AdminError::new(ErrorCode::INVALID_REQUEST, why));
        }
    }
    settings.insert(key.to_owned(), parts.join(","));
    Ok(())
}
