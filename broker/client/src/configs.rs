//! Settings of topics and brokers.

use std::collections::BTreeMap;

use elkfk_wire::kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use crate::client::Client;
use crate::error::{ClientError, Refused};

/// What has settings; the numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
}

/// A topic by name, a broker by id; the empty name stands for the default of all brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceType,
    pub name: String,
}

impl Resource {
    pub fn topic(name: impl Into<String>) -> Self {
        Self { kind: ResourceType::Topic, name: name.into() }
    }

    pub fn broker(id: i32) -> Self {
        Self { kind: ResourceType::Broker, name: id.to_string() }
    }
}

/// The settings of one resource, or why they were not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceConfigs {
    pub resource: String,
    pub configs: Result<Vec<ConfigEntry>, Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// None where it is sensitive or not set.
    pub value: Option<String>,
    /// Kafka's number: 1 topic, 2 broker, 3 default of brokers, 4 file, 5 default.
    pub source: i8,
    pub is_read_only: bool,
    pub is_sensitive: bool,
    /// The values that compete, the winning one first.
    pub synonyms: Vec<ConfigSynonym>,
}

impl ConfigEntry {
    /// Kafka's name of a source.
    pub fn source_name(source: i8) -> &'static str {
        match source {
            1 => "DYNAMIC_TOPIC_CONFIG",
            2 => "DYNAMIC_BROKER_CONFIG",
            3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            4 => "STATIC_BROKER_CONFIG",
            5 => "DEFAULT_CONFIG",
            6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
            _ => "UNKNOWN",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: i8,
}

/// One change of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOp {
    Set(String, String),
    Delete(String),
    Append(String, String),
    Subtract(String, String),
}

/// Topics in one question for their settings; the answer has some 50 bytes for each setting.
const TOPICS_AT_ONCE: usize = 1_000;

impl Client {
    /// The settings `names` of topics, by topic and name. What may not be read, or has no value, is left
    /// out.
    ///
    /// # Errors
    ///
    /// If no broker can be asked.
    pub async fn topic_settings(
        &self,
        topics: &[&str],
        names: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, ClientError> {
        let connection = self.any().await?;
        let version = connection.version::<DescribeConfigsRequest<'_>>()?;
        let mut settings = BTreeMap::new();
        for some in topics.chunks(TOPICS_AT_ONCE) {
            let resources = some.iter().map(|topic| DescribeConfigsResource {
                resource_type: ResourceType::Topic as i8,
                resource_name: (*topic).into(),
                configuration_keys: Some(names.iter().map(|name| (*name).into()).collect()),
            });
            let request = DescribeConfigsRequest {
                resources: resources.collect(),
                include_synonyms: false,
                include_documentation: false,
            };
            let reply = connection.send(&request, version).await?;
            let response: DescribeConfigsResponse<'_> = reply.read()?;
            for result in response.results.iter().filter(|result| result.error_code == 0) {
                let values = result.configs.iter().filter_map(|config| {
                    Some((config.name.to_string(), config.value.as_deref()?.to_owned()))
                });
                settings.insert(result.resource_name.to_string(), values.collect());
            }
        }
        Ok(settings)
    }

    /// All settings of a topic or a broker, with where each comes from.
    ///
    /// # Errors
    ///
    /// If no broker can be asked; a refusal is in the answer.
    pub async fn describe_configs(
        &self,
        resources: &[Resource],
    ) -> Result<Vec<ResourceConfigs>, ClientError> {
        let mut answers = Vec::new();
        for resource in resources {
            answers.push(self.describe_configs_of(resource).await?);
        }
        Ok(answers)
    }

    async fn describe_configs_of(
        &self,
        resource: &Resource,
    ) -> Result<ResourceConfigs, ClientError> {
        let connection = self.connection_for(resource).await?;
        let version = connection.version::<DescribeConfigsRequest<'_>>()?;
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.kind as i8,
                resource_name: resource.name.as_str().into(),
                configuration_keys: None,
            }],
            include_synonyms: true,
            include_documentation: false,
        };
        let reply = connection.send(&request, version).await?;
        let response: DescribeConfigsResponse<'_> = reply.read()?;
        let Some(result) = response.results.first() else {
            return Err(ClientError::refused(format!("describe {}", resource.name), -1));
        };
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        let entries = result.configs.iter().map(|config| ConfigEntry {
            name: config.name.to_string(),
            value: text(&config.value),
            source: config.config_source,
            is_read_only: config.read_only,
            is_sensitive: config.is_sensitive,
            synonyms: config
                .synonyms
                .iter()
                .map(|synonym| ConfigSynonym {
                    name: synonym.name.to_string(),
                    value: text(&synonym.value),
                    source: synonym.source,
                })
                .collect(),
        });
        let configs = Refused::check(result.error_code, result.error_message.as_deref())
            .map(|()| entries.collect());
        Ok(ResourceConfigs { resource: resource.name.clone(), configs })
    }

    /// Changes some settings and leaves the others alone.
    ///
    /// # Errors
    ///
    /// `Ok(Err(_))` if the broker refuses, `Err` if it cannot be asked.
    pub async fn alter_configs(
        &self,
        resource: &Resource,
        ops: &[ConfigOp],
    ) -> Result<Result<(), Refused>, ClientError> {
        let connection = match resource.kind {
            ResourceType::Topic => self.controller().await?,
            _ => self.connection_for(resource).await?,
        };
        let version = connection.version::<IncrementalAlterConfigsRequest<'_>>()?;
        let configs = ops.iter().map(|op| {
            let (name, config_operation, value) = match op {
                ConfigOp::Set(name, value) => (name, 0, Some(value)),
                ConfigOp::Delete(name) => (name, 1, None),
                ConfigOp::Append(name, value) => (name, 2, Some(value)),
                ConfigOp::Subtract(name, value) => (name, 3, Some(value)),
            };
            AlterableConfig {
                name: name.as_str().into(),
                config_operation,
                value: value.map(|value| value.as_str().into()),
            }
        });
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.kind as i8,
                resource_name: resource.name.as_str().into(),
                configs: configs.collect(),
            }],
            validate_only: false,
        };
        let reply = connection.send(&request, version).await?;
        let response: IncrementalAlterConfigsResponse<'_> = reply.read()?;
        let Some(result) = response.responses.first() else {
            return Err(ClientError::refused(format!("alter {}", resource.name), -1));
        };
        Ok(Refused::check(result.error_code, result.error_message.as_deref()))
    }

    /// A broker answers for itself, anyone for topics.
    async fn connection_for(
        &self,
        resource: &Resource,
    ) -> Result<std::sync::Arc<crate::Connection>, ClientError> {
        match (resource.kind, resource.name.parse()) {
            (ResourceType::Broker | ResourceType::BrokerLogger, Ok(id)) => self.node(id).await,
            _ => self.any().await,
        }
    }
}
