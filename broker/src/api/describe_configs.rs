//! DescribeConfigs, versions 1 to 4: settings of topics and of this broker, and where each comes from.
//!
//! Differs: there is no documentation, and no loggers to be described.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use elkfk_wire::kafka::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};

use super::{Answer, Context, Request, code};
use crate::cluster::AdminError;
use crate::config::{Config, DYNAMIC, KEYS, Kind, TOPIC_KEYS, find_key, topic_setting};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// One setting of a topic.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) value: String,
    pub(super) source: i8,
    /// Name, value and source, the one in force first.
    synonyms: Vec<(&'static str, String, i8)>,
}

/// All settings of a topic, in the order in which Kafka lists them.
pub(super) fn topic_entries(config: &Config, settings: &BTreeMap<String, String>) -> Vec<Entry> {
    let entries = TOPIC_KEYS.iter().map(|key| {
        let mut synonyms = Vec::new();
        if let Some(value) = settings.get(key.name) {
            synonyms.push((key.name, value.clone(), DYNAMIC_TOPIC));
        }
        if let Some(value) = config.given(key.server_key) {
            synonyms.push((key.server_key, value.to_owned(), STATIC_BROKER));
        }
        if let Some(value) = find_key(key.server_key).and_then(|key| key.default) {
            synonyms.push((key.server_key, value.to_owned(), DEFAULT));
        }
        Entry {
            name: key.name,
            kind: key.kind,
            value: topic_setting(config, settings, key.name),
            source: synonyms.first().map_or(DEFAULT, |(_, _, source)| *source),
            synonyms,
        }
    });
    entries.collect()
}

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: DescribeConfigsRequest<'_> = request.decode()?;
    let results = message.resources.iter().map(|resource| {
        let described = describe(&context, resource, message.include_synonyms);
        let (error, configs) = match described {
            Ok(configs) => (None, configs),
            Err(error) => (Some(error), Vec::new()),
        };
        DescribeConfigsResult {
            error_code: error.as_ref().map_or(0, |error| code(error.code)),
            error_message: error.and_then(|error| error.message).map(Cow::Owned),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs,
        }
    });
    let results = results.collect();
    request.answer(&DescribeConfigsResponse { throttle_time_ms: 0, results })
}

fn describe(
    context: &Context,
    resource: &DescribeConfigsResource<'_>,
    with_synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult<'static>>, AdminError> {
    let is_wanted = |name: &str| {
        let keys = resource.configuration_keys.as_ref();
        keys.is_none_or(|keys| keys.iter().any(|key| *key == name))
    };
    let broker = &context.broker;
    match resource.resource_type {
        TOPIC => {
            crate::cluster::check_name(&resource.resource_name)?;
            let image = broker.cluster.image();
            let Some(topic) = image.topics.get(&*resource.resource_name) else {
                return Err(AdminError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ""));
            };
            let entries = topic_entries(&broker.config, &topic.config).into_iter();
            Ok(entries
                .filter(|entry| is_wanted(entry.name))
                .map(|entry| result(entry, with_synonyms))
                .collect())
        }
        // The defaults of the whole cluster: none can be set yet.
        BROKER if resource.resource_name.is_empty() => Ok(Vec::new()),
        BROKER if resource.resource_name == broker.id().to_string() => {
            Ok(broker_entries(&broker.config, with_synonyms)
                .into_iter()
                .filter(|it| is_wanted(&it.name))
                .collect())
        }
        BROKER => Err(AdminError::new(
            ErrorCode::INVALID_REQUEST,
            format!(
                "Unexpected broker id, expected {}, but received {}",
                broker.id(),
                resource.resource_name
            ),
        )),
        other => Err(AdminError::new(
            ErrorCode::INVALID_REQUEST,
            format!("Unsupported resource type: {other}"),
        )),
    }
}

fn result(entry: Entry, with_synonyms: bool) -> DescribeConfigsResourceResult<'static> {
    let synonyms = entry.synonyms.into_iter().filter(|_| with_synonyms);
    DescribeConfigsResourceResult {
        name: entry.name.into(),
        value: Some(entry.value.into()),
        read_only: false,
        config_source: entry.source,
        is_sensitive: false,
        synonyms: synonyms
            .map(|(name, value, source)| DescribeConfigsSynonym {
                name: name.into(),
                value: Some(value.into()),
                source,
            })
            .collect(),
        config_type: kind(entry.kind),
        documentation: None,
    }
}

fn broker_entries(
    config: &Config,
    with_synonyms: bool,
) -> Vec<DescribeConfigsResourceResult<'static>> {
    let entries = KEYS.iter().map(|key| {
        let is_sensitive = key.kind == Kind::Password;
        let shown = |value: &str| (!is_sensitive).then(|| Cow::Owned(value.to_owned()));
        let mut synonyms = Vec::new();
        if let Some(value) = config.given(key.name) {
            synonyms.push(DescribeConfigsSynonym {
                name: key.name.into(),
                value: shown(value),
                source: STATIC_BROKER,
            });
        }
        if let Some(value) = key.default {
            synonyms.push(DescribeConfigsSynonym {
                name: key.name.into(),
                value: shown(value),
                source: DEFAULT,
            });
        }
        DescribeConfigsResourceResult {
            name: key.name.into(),
            value: config.value(key.name).and_then(shown),
            read_only: !DYNAMIC.contains(&key.name),
            config_source: synonyms.first().map_or(DEFAULT, |synonym| synonym.source),
            is_sensitive,
            synonyms: if with_synonyms { synonyms } else { Vec::new() },
            config_type: kind(key.kind),
            documentation: None,
        }
    });
    entries.collect()
}

fn kind(kind: Kind) -> i8 {
    match kind {
        Kind::Bool => 1,
        Kind::Text => 2,
        Kind::Int => 3,
        Kind::Short => 4,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
        Kind::Class => 8,
        Kind::Password => 9,
    }
}
