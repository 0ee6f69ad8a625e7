//! The record of each operation's reply.

use std::borrow::Cow;

use super::op::OpCode;
use super::primitive::{
    DecodeError, Reader, put_bool, put_buffer, put_i32, put_string, put_strings,
};
use super::record::{Acl, Stat};

/// What follows a [`ReplyHeader`](super::ReplyHeader) without error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    /// delete, check, ping, auth, setWatches, closeSession and others that only succeed.
    Empty,
    /// create and sync.
    Path(Cow<'a, str>),
    /// create2, createContainer and createTTL.
    PathAndStat(Cow<'a, str>, Stat),
    /// exists, setData and setACL.
    Stat(Stat),
    Data(Option<Cow<'a, [u8]>>, Stat),
    Acl(Vec<Acl<'a>>, Stat),
    /// getChildren and getEphemerals.
    Strings(Vec<Cow<'a, str>>),
    Children2(Vec<Cow<'a, str>>, Stat),
    Multi(Vec<OpResult<'a>>),
    /// getAllChildrenNumber; and addWatch, which says 0.
    Number(i32),
    /// sasl: `None` from a server that has no SASL.
    Token(Option<Cow<'a, [u8]>>),
    /// whoAmI: scheme and user of each authentication.
    Identities(Vec<(Cow<'a, str>, Cow<'a, str>)>),
}

/// One operation's result within a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult<'a> {
    Ok(OpCode, Response<'a>),
    /// In a multi that failed every operation has one: 0 before the one that failed, its code, and
    /// -2 after it.
    Error(i32),
}

impl<'a> Response<'a> {
    /// Reads the reply of `op`.
    pub fn decode(op: OpCode, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Multi | OpCode::MultiRead => Self::Multi(decode_multi(reader)?),
            _ => Self::decode_single(op, reader)?,
        })
    }

    fn decode_single(op: OpCode, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let string = |reader: &mut Reader<'a>| reader.string().map(Cow::Borrowed);
        Ok(match op {
            OpCode::Create | OpCode::Sync => Self::Path(string(reader)?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::PathAndStat(string(reader)?, Stat::decode(reader)?)
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Self::Stat(Stat::decode(reader)?),
            OpCode::GetData | OpCode::Reconfig => {
                Self::Data(reader.buffer()?.map(Cow::Borrowed), Stat::decode(reader)?)
            }
            OpCode::GetAcl => {
                Self::Acl(Acl::decode_list(reader)?.unwrap_or_default(), Stat::decode(reader)?)
            }
            OpCode::GetChildren | OpCode::GetEphemerals => Self::Strings(reader.strings()?),
            OpCode::GetChildren2 => Self::Children2(reader.strings()?, Stat::decode(reader)?),
            OpCode::GetAllChildrenNumber | OpCode::AddWatch => Self::Number(reader.i32()?),
            OpCode::Sasl => Self::Token(reader.buffer()?.map(Cow::Borrowed)),
            OpCode::WhoAmI => Self::Identities(
                reader
                    .vector(8, |reader| Ok((string(reader)?, string(reader)?)))?
                    .unwrap_or_default(),
            ),
            OpCode::Delete
            | OpCode::DeleteContainer
            | OpCode::Ping
            | OpCode::Check
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CloseSession => Self::Empty,
            OpCode::Multi | OpCode::MultiRead | OpCode::CreateSession => {
                return Err(DecodeError::Operation(op.code()));
            }
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Path(path) => put_string(out, path),
            Self::PathAndStat(path, stat) => {
                put_string(out, path);
                stat.encode(out);
            }
            Self::Stat(stat) => stat.encode(out),
            Self::Data(data, stat) => {
                put_buffer(out, data.as_deref());
                stat.encode(out);
            }
            Self::Acl(acl, stat) => {
                Acl::encode_list(Some(acl), out);
                stat.encode(out);
            }
            Self::Strings(strings) => put_strings(out, strings),
            Self::Children2(children, stat) => {
                put_strings(out, children);
                stat.encode(out);
            }
            Self::Multi(results) => encode_multi(results, out),
            Self::Number(number) => put_i32(out, *number),
            Self::Token(token) => put_buffer(out, token.as_deref()),
            Self::Identities(identities) => {
                put_i32(out, i32::try_from(identities.len()).expect("a count within a frame"));
                for (scheme, user) in identities {
                    put_string(out, scheme);
                    put_string(out, user);
                }
            }
        }
    }
}

fn decode_multi<'a>(reader: &mut Reader<'a>) -> Result<Vec<OpResult<'a>>, DecodeError> {
    let mut results = Vec::new();
    loop {
        let (code, is_done, _error) = (reader.i32()?, reader.bool()?, reader.i32()?);
        if is_done {
            return Ok(results);
        }
        results.push(if code == -1 {
            OpResult::Error(reader.i32()?)
        } else {
            let op = OpCode::from_code(code).ok_or(DecodeError::Operation(code))?;
            OpResult::Ok(op, Response::decode_single(op, reader)?)
        });
    }
}

fn encode_multi(results: &[OpResult<'_>], out: &mut Vec<u8>) {
    let header = |out: &mut Vec<u8>, code, is_done, error| {
        put_i32(out, code);
        put_bool(out, is_done);
        put_i32(out, error);
    };
    for result in results {
        match result {
            OpResult::Ok(op, response) => {
                header(out, op.code(), false, 0);
                response.encode(out);
            }
            OpResult::Error(code) => {
                header(out, -1, false, *code);
                put_i32(out, *code);
            }
        }
    }
    header(out, -1, true, -1);
}
