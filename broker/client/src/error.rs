//! What goes wrong between a client and its brokers.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use elkfk_wire::kafka::frame::FrameError;
use elkfk_wire::kafka::{DecodeError, EncodeError, ErrorCode};

/// Why a call has no answer. The text holds the cause, so that it is not to be told a second time.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no broker answers at {bootstrap}: {cause}")]
    NoBroker { bootstrap: String, cause: Box<ClientError> },
    #[error("no address given to find the brokers by")]
    NoBootstrap,
    #[error("{address}: {cause}")]
    Io { address: String, cause: io::Error },
    #[error("{address}: the connection was closed")]
    Closed { address: String },
    #[error("{address}: no answer in {after:?}")]
    Timeout { address: String, after: Duration },
    /// What the broker said makes no frame: perhaps it speaks TLS, or is no Kafka.
    #[error("{address}: not a Kafka answer: {cause}")]
    Frame { address: String, cause: FrameError },
    #[error("{address}: answer to API {api_key}: {cause}")]
    Decode { address: String, api_key: i16, cause: DecodeError },
    #[error("write API {api_key}: {cause}")]
    Encode { api_key: i16, cause: EncodeError },
    #[error("{address} has no version of API {api_key} that is known here ({ours:?})")]
    Version { address: String, api_key: i16, ours: RangeInclusive<i16> },
    #[error("broker {node} is not in the cluster")]
    UnknownBroker { node: i32 },
    #[error("{what}: {refused}")]
    Refused { what: String, refused: Refused },
}

impl ClientError {
    /// It and what led to it, in one line.
    pub fn in_one_line(&self) -> String {
        elkfk_base::errors::in_one_line(self)
    }

    pub(crate) fn refused(what: impl Into<String>, code: i16) -> Self {
        Self::Refused {
            what: what.into(),
            refused: Refused { code: ErrorCode(code), message: None },
        }
    }

    /// Whether asking again, perhaps another broker, may help.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { refused, .. } => refused.code.is_retriable(),
            Self::Io { .. } | Self::Closed { .. } | Self::UnknownBroker { .. } => true,
            _ => false,
        }
    }

    /// The broker's error code, if a broker refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { refused, .. } => Some(refused.code),
            _ => None,
        }
    }
}

/// A broker's refusal of one thing among those asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Never [`ErrorCode::NONE`].
    pub code: ErrorCode,
    /// The broker's own words; many codes come without.
    pub message: Option<String>,
}

impl Refused {
    /// `Err` unless `code` is none.
    pub(crate) fn check(code: i16, message: Option<&str>) -> Result<(), Self> {
        ErrorCode(code).ok().map_err(|code| Self { code, message: message.map(str::to_owned) })
    }
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{message} ({})", self.code),
            None => write!(f, "{}", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let io = ClientError::Io { address: "127.0.0.1:1".into(), cause };
        let none = ClientError::NoBroker { bootstrap: "127.0.0.1:1".into(), cause: Box::new(io) };
        let told = none.in_one_line();
        assert_eq!(told, "no broker answers at 127.0.0.1:1: 127.0.0.1:1: connection refused");
    }
}
