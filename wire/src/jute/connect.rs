//! The first frame each way. Both come with and without the last byte, `readOnly`: clients before
//! 3.4 leave it out, and a server leaves it out of its answer to them.

use super::primitive::{DecodeError, Reader, put_bool, put_buffer, put_i32, put_i64};
use super::record::{SessionId, Zxid};

/// Asks for a new session (`session` 0) or to go on with one: 44 bytes, or 45 with `read_only`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    pub protocol_version: i32,
    /// The newest change this client has seen: a server that has not must refuse it.
    pub last_zxid_seen: Zxid,
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: &'a [u8],
    /// `None` where the client left the byte out.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        Ok(Self {
            protocol_version: reader.i32()?,
            last_zxid_seen: Zxid(reader.i64()?),
            timeout_ms: reader.i32()?,
            session: SessionId(reader.i64()?),
            password: reader.buffer()?.unwrap_or_default(),
            read_only: read_only(&mut reader)?,
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.protocol_version);
        put_i64(out, self.last_zxid_seen.0);
        put_i32(out, self.timeout_ms);
        put_i64(out, self.session.0);
        put_buffer(out, Some(self.password));
        if let Some(read_only) = self.read_only {
            put_bool(out, read_only);
        }
    }
}

/// The session as the server keeps it; a `timeout_ms` of 0 says that it has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResponse<'a> {
    pub protocol_version: i32,
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: &'a [u8],
    /// Whether this server only reads; `None` leaves the byte out.
    pub read_only: Option<bool>,
}

impl<'a> ConnectResponse<'a> {
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        Ok(Self {
            protocol_version: reader.i32()?,
            timeout_ms: reader.i32()?,
            session: SessionId(reader.i64()?),
            password: reader.buffer()?.unwrap_or_default(),
            read_only: read_only(&mut reader)?,
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.protocol_version);
        put_i32(out, self.timeout_ms);
        put_i64(out, self.session.0);
        put_buffer(out, Some(self.password));
        if let Some(read_only) = self.read_only {
            put_bool(out, read_only);
        }
    }
}

fn read_only(reader: &mut Reader<'_>) -> Result<Option<bool>, DecodeError> {
    if reader.rest().is_empty() { Ok(None) } else { reader.bool().map(Some) }
}
