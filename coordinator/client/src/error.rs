//! Why a call failed.

use elkfk_wire::jute::{DecodeError, ErrorCode, InvalidPath};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server said no.
    #[error("{op} {path}: {code}")]
    Refused { op: &'static str, path: String, code: ErrorCode },
    /// Nothing of the multi was done, because of the operation at `index`.
    #[error("multi: {op} {path} (operation {index}): {code}")]
    Multi { index: usize, op: &'static str, path: String, code: ErrorCode },
    /// The write may have been done or not.
    #[error("connection lost before the answer")]
    ConnectionLost,
    /// The session and its ephemerals are gone.
    #[error("session expired")]
    SessionExpired,
    #[error("authentication failed")]
    AuthFailed,
    /// This client was closed.
    #[error("session is closed")]
    Closed,
    #[error("no connection to {servers} within {waited_ms} ms: {last}")]
    NoConnection { servers: String, waited_ms: u128, last: String },
    #[error("path {path:?}")]
    Path { path: String, source: InvalidPath },
    #[error("malformed answer")]
    Malformed(#[from] DecodeError),
    #[error("request of {bytes} bytes exceeds {limit_bytes}")]
    TooLarge { bytes: usize, limit_bytes: usize },
}

impl Error {
    /// The server's code, of a call or of the operation that failed a multi.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } | Self::Multi { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub fn is_no_node(&self) -> bool {
        self.code() == Some(ErrorCode::NoNode)
    }

    pub fn is_node_exists(&self) -> bool {
        self.code() == Some(ErrorCode::NodeExists)
    }

    pub fn is_bad_version(&self) -> bool {
        self.code() == Some(ErrorCode::BadVersion)
    }

    /// Whether this session is over and another client must be started.
    pub fn is_session_over(&self) -> bool {
        matches!(self, Self::SessionExpired | Self::AuthFailed | Self::Closed)
            || self.code() == Some(ErrorCode::SessionExpired)
    }
}
