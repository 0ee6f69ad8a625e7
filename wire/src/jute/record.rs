//! Records that several operations share.

use std::borrow::Cow;
use std::fmt;

use super::primitive::{DecodeError, Reader, put_i32, put_i64, put_string};

/// Place of a change in the total order of changes: leadership in the high half, counter in the low.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub i64);

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// 0 where there is no session yet, and the owner of whatever is not ephemeral.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// The `xid`s that do not number a request.
pub mod xid {
    /// A watch event, sent unasked.
    pub const NOTIFICATION: i32 = -1;
    pub const PING: i32 = -2;
    pub const AUTH: i32 = -4;
    pub const SET_WATCHES: i32 = -8;
}

/// The bits of [`Acl::perms`].
pub mod perms {
    pub const READ: i32 = 1;
    pub const WRITE: i32 = 2;
    pub const CREATE: i32 = 4;
    pub const DELETE: i32 = 8;
    pub const ADMIN: i32 = 16;
    pub const ALL: i32 = 31;
}

/// What a request starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Numbers the requests of a connection; answers come in the same order.
    pub xid: i32,
    /// An [`OpCode`](super::OpCode), if it is a known one.
    pub op: i32,
}

impl RequestHeader {
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: reader.i32()?, op: reader.i32()? })
    }

    pub fn encode(self, out: &mut Vec<u8>) {
        put_i32(out, self.xid);
        put_i32(out, self.op);
    }
}

/// What a reply starts with. The record of the operation follows if `error` is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    pub xid: i32,
    /// The newest change the server had applied.
    pub zxid: Zxid,
    pub error: i32,
}

impl ReplyHeader {
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: reader.i32()?, zxid: Zxid(reader.i64()?), error: reader.i32()? })
    }

    pub fn encode(self, out: &mut Vec<u8>) {
        put_i32(out, self.xid);
        put_i64(out, self.zxid.0);
        put_i32(out, self.error);
    }
}

/// What is known of a znode beside its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// The change that created it.
    pub czxid: Zxid,
    /// The change that last set its data.
    pub mzxid: Zxid,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    pub version: i32,
    /// Changes to its list of children.
    pub cversion: i32,
    /// Changes to its ACL.
    pub aversion: i32,
    /// The session it goes with; 0 where it is not ephemeral.
    pub ephemeral_owner: SessionId,
    pub data_length: i32,
    pub num_children: i32,
    /// The change that last added or removed a child.
    pub pzxid: Zxid,
}

impl Stat {
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: Zxid(reader.i64()?),
            mzxid: Zxid(reader.i64()?),
            ctime_ms: reader.i64()?,
            mtime_ms: reader.i64()?,
            version: reader.i32()?,
            cversion: reader.i32()?,
            aversion: reader.i32()?,
            ephemeral_owner: SessionId(reader.i64()?),
            data_length: reader.i32()?,
            num_children: reader.i32()?,
            pzxid: Zxid(reader.i64()?),
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.czxid.0);
        put_i64(out, self.mzxid.0);
        put_i64(out, self.ctime_ms);
        put_i64(out, self.mtime_ms);
        put_i32(out, self.version);
        put_i32(out, self.cversion);
        put_i32(out, self.aversion);
        put_i64(out, self.ephemeral_owner.0);
        put_i32(out, self.data_length);
        put_i32(out, self.num_children);
        put_i64(out, self.pzxid.0);
    }
}

/// Who may do what with a znode. It says nothing about the children of the znode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acl<'a> {
    /// Bits of [`perms`].
    pub perms: i32,
    /// `world`, `digest`, `ip` or `auth`.
    pub scheme: Cow<'a, str>,
    pub id: Cow<'a, str>,
}

impl<'a> Acl<'a> {
    /// Everything to everyone: `world:anyone:cdrwa`.
    pub const OPEN: Acl<'static> =
        Acl { perms: perms::ALL, scheme: Cow::Borrowed("world"), id: Cow::Borrowed("anyone") };

    /// Everything to whoever creates the znode, by what it has authenticated as.
    pub const CREATOR: Acl<'static> =
        Acl { perms: perms::ALL, scheme: Cow::Borrowed("auth"), id: Cow::Borrowed("") };

    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            perms: reader.i32()?,
            // Java's null is a scheme and an id too; it means as much as an empty one.
            scheme: Cow::Borrowed(reader.nullable_string()?.unwrap_or_default()),
            id: Cow::Borrowed(reader.nullable_string()?.unwrap_or_default()),
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.perms);
        put_string(out, &self.scheme);
        put_string(out, &self.id);
    }

    pub fn into_owned(self) -> Acl<'static> {
        Acl {
            perms: self.perms,
            scheme: Cow::Owned(self.scheme.into_owned()),
            id: Cow::Owned(self.id.into_owned()),
        }
    }

    /// `None` is Java's null.
    pub(super) fn decode_list(reader: &mut Reader<'a>) -> Result<Option<Vec<Self>>, DecodeError> {
        reader.vector(12, Self::decode)
    }

    pub(super) fn encode_list(list: Option<&[Self]>, out: &mut Vec<u8>) {
        match list {
            None => put_i32(out, -1),
            Some(list) => {
                put_i32(out, i32::try_from(list.len()).expect("a count within a frame"));
                list.iter().for_each(|acl| acl.encode(out));
            }
        }
    }
}

/// What happened to a watched znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Not about a znode: the state of the session changed.
    Session,
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
    DataWatchRemoved,
    ChildWatchRemoved,
    PersistentWatchRemoved,
}

impl EventKind {
    pub fn code(self) -> i32 {
        match self {
            Self::Session => -1,
            Self::Created => 1,
            Self::Deleted => 2,
            Self::DataChanged => 3,
            Self::ChildrenChanged => 4,
            Self::DataWatchRemoved => 5,
            Self::ChildWatchRemoved => 6,
            Self::PersistentWatchRemoved => 7,
        }
    }

    pub fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            -1 => Self::Session,
            1 => Self::Created,
            2 => Self::Deleted,
            3 => Self::DataChanged,
            4 => Self::ChildrenChanged,
            5 => Self::DataWatchRemoved,
            6 => Self::ChildWatchRemoved,
            7 => Self::PersistentWatchRemoved,
            _ => return None,
        })
    }
}

/// The state of the session at an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventState {
    Disconnected,
    SyncConnected,
    AuthFailed,
    ConnectedReadOnly,
    SaslAuthenticated,
    Expired,
    Closed,
}

impl EventState {
    pub fn code(self) -> i32 {
        match self {
            Self::Disconnected => 0,
            Self::SyncConnected => 3,
            Self::AuthFailed => 4,
            Self::ConnectedReadOnly => 5,
            Self::SaslAuthenticated => 6,
            Self::Expired => -112,
            Self::Closed => 7,
        }
    }

    pub fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::Disconnected,
            3 => Self::SyncConnected,
            4 => Self::AuthFailed,
            5 => Self::ConnectedReadOnly,
            6 => Self::SaslAuthenticated,
            -112 => Self::Expired,
            7 => Self::Closed,
            _ => return None,
        })
    }
}

/// A watch event: what a frame with [`xid::NOTIFICATION`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchedEvent<'a> {
    pub kind: EventKind,
    pub state: EventState,
    /// Empty for an event of the session.
    pub path: Cow<'a, str>,
}

impl<'a> WatchedEvent<'a> {
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (kind, state) = (reader.i32()?, reader.i32()?);
        Ok(Self {
            kind: EventKind::from_code(kind).ok_or(DecodeError::Operation(kind))?,
            state: EventState::from_code(state).ok_or(DecodeError::Operation(state))?,
            path: Cow::Borrowed(reader.string()?),
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.kind.code());
        put_i32(out, self.state.code());
        put_string(out, &self.path);
    }
}
