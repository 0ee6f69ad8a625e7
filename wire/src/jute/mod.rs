//! ZooKeeper's records and frames.
//!
//! Jute is big-endian and has no tags: what follows is known from the operation alone. A frame is an
//! `i32` length and that many bytes. The first frame of a connection is a [`ConnectRequest`]; each
//! later one a [`RequestHeader`] and the record of its operation, answered by a [`ReplyHeader`] and,
//! if its error is zero, the record of the reply.
//!
//! Decoding borrows from the frame and never allocates more than a small multiple of its length.

mod connect;
mod error;
mod frame;
mod op;
mod path;
mod primitive;
mod record;
mod request;
mod response;

pub use connect::{ConnectRequest, ConnectResponse};
pub use error::ErrorCode;
pub use frame::{DEFAULT_FRAME_BYTES_MAX, FrameError, end_frame, frame_in, start_frame};
pub use op::OpCode;
pub use path::{InvalidPath, check_path, parent_and_name};
pub use primitive::{
    DecodeError, Reader, put_bool, put_buffer, put_i32, put_i64, put_string, put_strings,
};
pub use record::{
    Acl, EventKind, EventState, ReplyHeader, RequestHeader, SessionId, Stat, WatchedEvent, Zxid,
    perms, xid,
};
pub use request::{CreateKind, Request, create_flags};
pub use response::{OpResult, Response};

#[cfg(test)]
mod tests;
