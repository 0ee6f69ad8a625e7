//! The Kafka protocol: frames, messages of every supported version, record batches.
//!
//! A frame is a length and a body; a body is a header and a message. [`frame`] cuts frames out of a
//! stream, [`header`] reads and writes the header, [`messages`] holds one module per message, made
//! at build time from the tables in `wire/schema/`.

pub mod error;
pub mod frame;
pub mod header;
#[allow(clippy::all, reason = "generated, for the compiler rather than for readers")]
pub mod messages;
mod put;
pub mod reader;
pub mod records;
mod uuid;

use std::ops::RangeInclusive;

pub use error::ErrorCode;
pub use header::{RequestHeader, ResponseHeader, header_version, response_header_version};
pub use reader::{DecodeError, Reader};
pub use uuid::Uuid;

/// A request, a response, or a record that Kafka keeps inside other bytes.
pub trait Message<'a>: Sized {
    /// Key of the API; -1 for what is not sent by itself.
    const API_KEY: i16;
    /// The versions that can be decoded and encoded.
    const VERSIONS: RangeInclusive<i16>;

    /// Reads the message, borrowing strings and bytes from the frame.
    ///
    /// Leaves in `r` what follows; whether something may follow is for the caller to say.
    ///
    /// # Errors
    ///
    /// If the bytes are not a message of this version. Never panics, and allocates at most a small
    /// multiple of what remained in `r`.
    fn decode(r: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError>;

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// If `version` cannot carry a value; `out` then holds the part before it.
    fn encode(&self, out: &mut Vec<u8>, version: i16) -> Result<(), EncodeError>;
}

/// Why a message cannot be written in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("API {api_key} has no version {version} here")]
    UnsupportedVersion { api_key: i16, version: i16 },
    /// Leaving the value out would change what the message means.
    #[error("{field} is set, but version {version} has no place for it")]
    NotInVersion { field: &'static str, version: i16 },
    #[error("{field} is null, which version {version} does not allow")]
    Null { field: &'static str, version: i16 },
    #[error("{field} has {len} bytes or elements, more than its length can say")]
    TooLong { field: &'static str, len: usize },
}

/// An API that this codec knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    pub key: i16,
    /// Kafka's name: `Fetch`.
    pub name: &'static str,
    /// The versions that can be decoded and encoded; what a broker advertises is its own affair.
    pub versions: RangeInclusive<i16>,
    /// First version with compact lengths and tagged fields.
    pub flexible_from: Option<i16>,
}

/// The API of a key, if known.
pub fn api(key: i16) -> Option<&'static Api> {
    messages::APIS.iter().find(|api| api.key == key)
}
