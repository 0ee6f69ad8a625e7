//! Reads of a multi: each by itself, all at one moment.

use std::borrow::Cow;

use bytes::Bytes;
use elkfk_wire::jute::{self, DecodeError, ErrorCode, Request, Response, Stat};

use crate::error::Error;

/// One read. Paths are without the chroot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Get(String),
    Children(String),
}

/// What a read of a multi that succeeded returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadResult {
    /// Null data reads as empty.
    Data(Bytes, Stat),
    /// In no order.
    Children(Vec<String>),
}

impl Read {
    pub(crate) fn request<'a>(
        &'a self,
        full: impl FnOnce(&'a str) -> Result<Cow<'a, str>, Error>,
    ) -> Result<Request<'a>, Error> {
        Ok(match self {
            Self::Get(path) => Request::GetData { path: full(path)?, watch: false },
            Self::Children(path) => Request::GetChildren { path: full(path)?, watch: false },
        })
    }
}

impl ReadResult {
    pub(crate) fn of(result: jute::OpResult<'_>) -> Result<Result<Self, ErrorCode>, Error> {
        match result {
            jute::OpResult::Ok(_, Response::Data(data, stat)) => {
                let data = data.map_or(Bytes::new(), |data| Bytes::from(data.into_owned()));
                Ok(Ok(Self::Data(data, stat)))
            }
            jute::OpResult::Ok(_, Response::Strings(names)) => {
                Ok(Ok(Self::Children(names.into_iter().map(Cow::into_owned).collect())))
            }
            jute::OpResult::Ok(op, _) => Err(Error::Malformed(DecodeError::Operation(op.code()))),
            jute::OpResult::Error(code) => ErrorCode::from_code(code)
                .map(Err)
                .ok_or(Error::Malformed(DecodeError::Operation(0))),
        }
    }
}
