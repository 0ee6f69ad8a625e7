//! The record of each operation's request.

use std::borrow::Cow;

use super::op::OpCode;
use super::primitive::{
    DecodeError, Reader, put_bool, put_buffer, put_i32, put_i64, put_string, put_strings,
};
use super::record::{Acl, Zxid};

/// The `flags` of a create.
pub mod create_flags {
    pub const PERSISTENT: i32 = 0;
    pub const EPHEMERAL: i32 = 1;
    pub const PERSISTENT_SEQUENTIAL: i32 = 2;
    pub const EPHEMERAL_SEQUENTIAL: i32 = 3;
    pub const CONTAINER: i32 = 4;
    pub const PERSISTENT_WITH_TTL: i32 = 5;
    pub const PERSISTENT_SEQUENTIAL_WITH_TTL: i32 = 6;
}

/// Which operation a create came as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreateKind {
    /// Answered with the path.
    Create,
    /// Answered with path and [`Stat`](super::Stat), as are the two below.
    Create2,
    Container,
    /// The only one that carries a time to live.
    Ttl,
}

/// An operation with its arguments. A version of -1 matches any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    Create {
        kind: CreateKind,
        path: Cow<'a, str>,
        /// `None` is kept apart from empty, as ZooKeeper does.
        data: Option<Cow<'a, [u8]>>,
        acl: Option<Vec<Acl<'a>>>,
        /// One of [`create_flags`].
        flags: i32,
        /// 0 unless `kind` is [`CreateKind::Ttl`].
        ttl_ms: i64,
    },
    Delete {
        path: Cow<'a, str>,
        version: i32,
    },
    /// What the sweep of empty containers asks for; clients may not.
    DeleteContainer {
        path: Cow<'a, str>,
    },
    Exists {
        path: Cow<'a, str>,
        watch: bool,
    },
    GetData {
        path: Cow<'a, str>,
        watch: bool,
    },
    SetData {
        path: Cow<'a, str>,
        data: Option<Cow<'a, [u8]>>,
        version: i32,
    },
    GetAcl {
        path: Cow<'a, str>,
    },
    SetAcl {
        path: Cow<'a, str>,
        acl: Option<Vec<Acl<'a>>>,
        version: i32,
    },
    GetChildren {
        path: Cow<'a, str>,
        watch: bool,
    },
    GetChildren2 {
        path: Cow<'a, str>,
        watch: bool,
    },
    Sync {
        path: Cow<'a, str>,
    },
    Ping,
    Check {
        path: Cow<'a, str>,
        version: i32,
    },
    /// All or none; holds creates, deletes, setDatas and checks.
    Multi(Vec<Request<'a>>),
    /// Each by itself; holds getDatas and getChildren.
    MultiRead(Vec<Request<'a>>),
    /// Changes the ensemble: by servers that come and go, or, where `members` is there, as a whole.
    Reconfig {
        /// `server.N=…` entries, separated by commas.
        joining: Option<Cow<'a, str>>,
        /// Ids, separated by commas.
        leaving: Option<Cow<'a, str>>,
        members: Option<Cow<'a, str>>,
        /// The version of the configuration that is to be changed; -1 is any.
        config_version: i64,
    },
    CheckWatches {
        path: Cow<'a, str>,
        /// 1 children, 2 data, 3 any, 4 persistent, 5 persistent and recursive.
        kind: i32,
    },
    RemoveWatches {
        path: Cow<'a, str>,
        kind: i32,
    },
    Auth {
        scheme: Cow<'a, str>,
        auth: Option<Cow<'a, [u8]>>,
    },
    SetWatches {
        /// Changes up to here were seen by the client.
        relative_zxid: Zxid,
        data: Vec<Cow<'a, str>>,
        exist: Vec<Cow<'a, str>>,
        child: Vec<Cow<'a, str>>,
    },
    SetWatches2 {
        relative_zxid: Zxid,
        data: Vec<Cow<'a, str>>,
        exist: Vec<Cow<'a, str>>,
        child: Vec<Cow<'a, str>>,
        persistent: Vec<Cow<'a, str>>,
        persistent_recursive: Vec<Cow<'a, str>>,
    },
    AddWatch {
        path: Cow<'a, str>,
        /// 0 persistent, 1 persistent and recursive.
        mode: i32,
    },
    Sasl {
        token: Option<Cow<'a, [u8]>>,
    },
    /// The caller's own. Java's null prefix is read as the empty one: both are without limit.
    GetEphemerals {
        prefix: Cow<'a, str>,
    },
    GetAllChildrenNumber {
        path: Cow<'a, str>,
    },
    WhoAmI,
    CloseSession,
}

fn string<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, DecodeError> {
    reader.string().map(Cow::Borrowed)
}

fn nullable_string<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, str>>, DecodeError> {
    Ok(reader.nullable_string()?.map(Cow::Borrowed))
}

fn buffer<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, [u8]>>, DecodeError> {
    Ok(reader.buffer()?.map(Cow::Borrowed))
}

impl<'a> Request<'a> {
    /// Reads the record that follows a header with `op`.
    ///
    /// # Errors
    /// [`DecodeError::Operation`] for `createSession` too: that one has a frame of its own.
    pub fn decode(op: OpCode, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Multi => Self::Multi(decode_multi(reader, |op| {
                matches!(
                    op,
                    OpCode::Create
                        | OpCode::Create2
                        | OpCode::CreateContainer
                        | OpCode::CreateTtl
                        | OpCode::Delete
                        | OpCode::SetData
                        | OpCode::Check
                )
            })?),
            OpCode::MultiRead => Self::MultiRead(decode_multi(reader, |op| {
                matches!(op, OpCode::GetData | OpCode::GetChildren)
            })?),
            _ => Self::decode_single(op, reader)?,
        })
    }

    fn decode_single(op: OpCode, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let create = |kind, reader: &mut Reader<'a>| {
            Ok(Self::Create {
                kind,
                path: string(reader)?,
                data: buffer(reader)?,
                acl: Acl::decode_list(reader)?,
                flags: reader.i32()?,
                ttl_ms: if kind == CreateKind::Ttl { reader.i64()? } else { 0 },
            })
        };
        Ok(match op {
            OpCode::Create => create(CreateKind::Create, reader)?,
            OpCode::Create2 => create(CreateKind::Create2, reader)?,
            OpCode::CreateContainer => create(CreateKind::Container, reader)?,
            OpCode::CreateTtl => create(CreateKind::Ttl, reader)?,
            OpCode::Delete => Self::Delete { path: string(reader)?, version: reader.i32()? },
            OpCode::DeleteContainer => Self::DeleteContainer { path: string(reader)? },
            OpCode::Exists => Self::Exists { path: string(reader)?, watch: reader.bool()? },
            OpCode::GetData => Self::GetData { path: string(reader)?, watch: reader.bool()? },
            OpCode::SetData => Self::SetData {
                path: string(reader)?,
                data: buffer(reader)?,
                version: reader.i32()?,
            },
            OpCode::GetAcl => Self::GetAcl { path: string(reader)? },
            OpCode::SetAcl => Self::SetAcl {
                path: string(reader)?,
                acl: Acl::decode_list(reader)?,
                version: reader.i32()?,
            },
            OpCode::GetChildren => {
                Self::GetChildren { path: string(reader)?, watch: reader.bool()? }
            }
            OpCode::GetChildren2 => {
                Self::GetChildren2 { path: string(reader)?, watch: reader.bool()? }
            }
            OpCode::Sync => Self::Sync { path: string(reader)? },
            OpCode::Ping => Self::Ping,
            OpCode::Check => Self::Check { path: string(reader)?, version: reader.i32()? },
            OpCode::Reconfig => Self::Reconfig {
                joining: nullable_string(reader)?,
                leaving: nullable_string(reader)?,
                members: nullable_string(reader)?,
                config_version: reader.i64()?,
            },
            OpCode::CheckWatches => {
                Self::CheckWatches { path: string(reader)?, kind: reader.i32()? }
            }
            OpCode::RemoveWatches => {
                Self::RemoveWatches { path: string(reader)?, kind: reader.i32()? }
            }
            OpCode::Auth => {
                reader.i32()?; // a type that no one reads
                Self::Auth { scheme: string(reader)?, auth: buffer(reader)? }
            }
            OpCode::SetWatches => Self::SetWatches {
                relative_zxid: Zxid(reader.i64()?),
                data: reader.strings()?,
                exist: reader.strings()?,
                child: reader.strings()?,
            },
            OpCode::SetWatches2 => Self::SetWatches2 {
                relative_zxid: Zxid(reader.i64()?),
                data: reader.strings()?,
                exist: reader.strings()?,
                child: reader.strings()?,
                persistent: reader.strings()?,
                persistent_recursive: reader.strings()?,
            },
            OpCode::AddWatch => Self::AddWatch { path: string(reader)?, mode: reader.i32()? },
            OpCode::Sasl => Self::Sasl { token: buffer(reader)? },
            OpCode::GetEphemerals => {
                Self::GetEphemerals { prefix: nullable_string(reader)?.unwrap_or_default() }
            }
            OpCode::GetAllChildrenNumber => Self::GetAllChildrenNumber { path: string(reader)? },
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::CloseSession => Self::CloseSession,
            OpCode::Multi | OpCode::MultiRead | OpCode::CreateSession => {
                return Err(DecodeError::Operation(op.code()));
            }
        })
    }

    pub fn op(&self) -> OpCode {
        match self {
            Self::Create { kind: CreateKind::Create, .. } => OpCode::Create,
            Self::Create { kind: CreateKind::Create2, .. } => OpCode::Create2,
            Self::Create { kind: CreateKind::Container, .. } => OpCode::CreateContainer,
            Self::Create { kind: CreateKind::Ttl, .. } => OpCode::CreateTtl,
            Self::Delete { .. } => OpCode::Delete,
            Self::DeleteContainer { .. } => OpCode::DeleteContainer,
            Self::Exists { .. } => OpCode::Exists,
            Self::GetData { .. } => OpCode::GetData,
            Self::SetData { .. } => OpCode::SetData,
            Self::GetAcl { .. } => OpCode::GetAcl,
            Self::SetAcl { .. } => OpCode::SetAcl,
            Self::GetChildren { .. } => OpCode::GetChildren,
            Self::GetChildren2 { .. } => OpCode::GetChildren2,
            Self::Sync { .. } => OpCode::Sync,
            Self::Ping => OpCode::Ping,
            Self::Check { .. } => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Reconfig { .. } => OpCode::Reconfig,
            Self::CheckWatches { .. } => OpCode::CheckWatches,
            Self::RemoveWatches { .. } => OpCode::RemoveWatches,
            Self::Auth { .. } => OpCode::Auth,
            Self::SetWatches { .. } => OpCode::SetWatches,
            Self::SetWatches2 { .. } => OpCode::SetWatches2,
            Self::AddWatch { .. } => OpCode::AddWatch,
            Self::Sasl { .. } => OpCode::Sasl,
            Self::GetEphemerals { .. } => OpCode::GetEphemerals,
            Self::GetAllChildrenNumber { .. } => OpCode::GetAllChildrenNumber,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    /// Writes the record that follows the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Create { kind, path, data, acl, flags, ttl_ms } => {
                put_string(out, path);
                put_buffer(out, data.as_deref());
                Acl::encode_list(acl.as_deref(), out);
                put_i32(out, *flags);
                if *kind == CreateKind::Ttl {
                    put_i64(out, *ttl_ms);
                }
            }
            Self::Delete { path, version } | Self::Check { path, version } => {
                put_string(out, path);
                put_i32(out, *version);
            }
            Self::Exists { path, watch }
            | Self::GetData { path, watch }
            | Self::GetChildren { path, watch }
            | Self::GetChildren2 { path, watch } => {
                put_string(out, path);
                put_bool(out, *watch);
            }
            Self::SetData { path, data, version } => {
                put_string(out, path);
                put_buffer(out, data.as_deref());
                put_i32(out, *version);
            }
            Self::SetAcl { path, acl, version } => {
                put_string(out, path);
                Acl::encode_list(acl.as_deref(), out);
                put_i32(out, *version);
            }
            Self::DeleteContainer { path }
            | Self::GetAcl { path }
            | Self::Sync { path }
            | Self::GetEphemerals { prefix: path }
            | Self::GetAllChildrenNumber { path } => put_string(out, path),
            Self::CheckWatches { path, kind: number }
            | Self::RemoveWatches { path, kind: number }
            | Self::AddWatch { path, mode: number } => {
                put_string(out, path);
                put_i32(out, *number);
            }
            Self::Multi(requests) | Self::MultiRead(requests) => encode_multi(requests, out),
            Self::Auth { scheme, auth } => {
                put_i32(out, 0);
                put_string(out, scheme);
                put_buffer(out, auth.as_deref());
            }
            Self::SetWatches { relative_zxid, data, exist, child } => {
                put_i64(out, relative_zxid.0);
                for paths in [data, exist, child] {
                    put_strings(out, paths);
                }
            }
            Self::SetWatches2 {
                relative_zxid,
                data,
                exist,
                child,
                persistent,
                persistent_recursive,
            } => {
                put_i64(out, relative_zxid.0);
                for paths in [data, exist, child, persistent, persistent_recursive] {
                    put_strings(out, paths);
                }
            }
            Self::Sasl { token } => put_buffer(out, token.as_deref()),
            Self::Ping | Self::WhoAmI | Self::CloseSession => {}
            Self::Reconfig { joining, leaving, members, config_version } => {
                for servers in [joining, leaving, members] {
                    put_buffer(out, servers.as_deref().map(str::as_bytes));
                }
                put_i64(out, *config_version);
            }
        }
    }
}

/// A multi is headers (`type`, `done`, `err`), each followed by its operation, up to one that is done.
fn decode_multi<'a>(
    reader: &mut Reader<'a>,
    is_allowed: impl Fn(OpCode) -> bool,
) -> Result<Vec<Request<'a>>, DecodeError> {
    let mut requests = Vec::new();
    loop {
        let (code, is_done, _error) = (reader.i32()?, reader.bool()?, reader.i32()?);
        if is_done {
            return Ok(requests);
        }
        let op = OpCode::from_code(code)
            .filter(|op| is_allowed(*op))
            .ok_or(DecodeError::Operation(code))?;
        requests.push(Request::decode_single(op, reader)?);
    }
}

fn encode_multi(requests: &[Request<'_>], out: &mut Vec<u8>) {
    for request in requests {
        put_i32(out, request.op().code());
        put_bool(out, false);
        put_i32(out, -1);
        request.encode(out);
    }
    put_i32(out, -1);
    put_bool(out, true);
    put_i32(out, -1);
}
