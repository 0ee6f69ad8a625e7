//! Refusals as Kafka's Java classes print them.

use elkfk_broker_client::{ClientError, Refused};
use elkfk_wire::kafka::ErrorCode;

/// An exception of Kafka's: its class and its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) class: String,
    /// None prints as nothing after the class.
    pub(crate) message: Option<String>,
}

impl Exception {
    pub(crate) fn new(class: &str, message: impl Into<String>) -> Self {
        Self { class: class.to_owned(), message: Some(message.into()) }
    }

    pub(crate) fn illegal_argument(message: impl Into<String>) -> Self {
        Self::new("java.lang.IllegalArgumentException", message)
    }

    /// One of `org.apache.kafka.common.errors`.
    pub(crate) fn kafka(class: &str, message: impl Into<String>) -> Self {
        Self::new(&format!("org.apache.kafka.common.errors.{class}"), message)
    }

    /// The message alone, `null` where there is none.
    pub(crate) fn message(&self) -> &str {
        self.message.as_deref().unwrap_or("null")
    }
}

/// `class: message`, as `Throwable.toString`.
impl std::fmt::Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.class),
            None => f.write_str(&self.class),
        }
    }
}

impl From<&Refused> for Exception {
    fn from(refused: &Refused) -> Self {
        let message =
            refused.message.clone().or_else(|| default_message(refused.code).map(str::to_owned));
        Self {
            class: format!("org.apache.kafka.common.errors.{}", class(refused.code)),
            message: Some(message.unwrap_or_else(|| refused.code.to_string())),
        }
    }
}

impl From<ClientError> for Exception {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused { refused, .. } => refused.into(),
            ClientError::Version { .. } => {
                Self::kafka("UnsupportedVersionException", error.to_string())
            }
            _ => Self::kafka("TimeoutException", error.to_string()),
        }
    }
}

/// The class that Kafka's client throws for a code.
pub(crate) fn class(code: ErrorCode) -> String {
    let irregular = match code {
        ErrorCode::UNKNOWN_SERVER_ERROR => "UnknownServerException",
        ErrorCode::CORRUPT_MESSAGE => "CorruptRecordException",
        ErrorCode::REQUEST_TIMED_OUT => "TimeoutException",
        ErrorCode::MESSAGE_TOO_LARGE => "RecordTooLargeException",
        ErrorCode::STALE_CONTROLLER_EPOCH => "ControllerMovedException",
        ErrorCode::NETWORK_EXCEPTION => "NetworkException",
        ErrorCode::INVALID_TOPIC_EXCEPTION => "InvalidTopicException",
        ErrorCode::RECORD_LIST_TOO_LARGE => "RecordBatchTooLargeException",
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => "TopicAuthorizationException",
        ErrorCode::GROUP_AUTHORIZATION_FAILED => "GroupAuthorizationException",
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED => "ClusterAuthorizationException",
        ErrorCode::TOPIC_ALREADY_EXISTS => "TopicExistsException",
        ErrorCode::INVALID_CONFIG => "InvalidConfigurationException",
        ErrorCode::KAFKA_STORAGE_ERROR => "KafkaStorageException",
        ErrorCode::NON_EMPTY_GROUP => "GroupNotEmptyException",
        _ => "",
    };
    if !irregular.is_empty() {
        return irregular.to_owned();
    }
    let words = code.name().unwrap_or("UNKNOWN_SERVER").split('_');
    let camel = words.map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase()));
    camel.collect::<String>() + "Exception"
}

/// What the client says where the broker sends a code without words: the codes that the tools meet.
fn default_message(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UNKNOWN_SERVER_ERROR => {
            "The server experienced an unexpected error when processing the request."
        }
        ErrorCode::OFFSET_OUT_OF_RANGE => {
            "The requested offset is not within the range of offsets maintained by the server."
        }
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => "This server does not host this topic-partition.",
        ErrorCode::LEADER_NOT_AVAILABLE => {
            "There is no leader for this topic-partition as we are in the middle of a leadership election."
        }
        ErrorCode::REQUEST_TIMED_OUT => "The request timed out.",
        ErrorCode::INVALID_TOPIC_EXCEPTION => {
            "The request attempted to perform an operation on an invalid topic."
        }
        ErrorCode::NOT_CONTROLLER => "This is not the correct controller for this cluster.",
        ErrorCode::COORDINATOR_NOT_AVAILABLE => "The coordinator is not available.",
        ErrorCode::INVALID_GROUP_ID => "The configured groupId is invalid.",
        ErrorCode::NON_EMPTY_GROUP => "The group is not empty.",
        ErrorCode::GROUP_ID_NOT_FOUND => "The group id does not exist.",
        ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC => {
            "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it."
        }
        ErrorCode::TOPIC_DELETION_DISABLED => "Topic deletion is disabled.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_kafkas_names() {
        assert_eq!(class(ErrorCode::TOPIC_ALREADY_EXISTS), "TopicExistsException");
        assert_eq!(
            class(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            "UnknownTopicOrPartitionException"
        );
        assert_eq!(class(ErrorCode::INVALID_PARTITIONS), "InvalidPartitionsException");
        assert_eq!(class(ErrorCode(999)), "UnknownServerException");
    }
}
