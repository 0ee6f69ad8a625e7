//! Operations of a multi: all are done, or none.

use std::borrow::Cow;

use elkfk_wire::jute::{Acl, CreateKind, Request, Stat};

use crate::client::CreateMode;

/// One operation. Paths are without the chroot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Create { path: String, data: Option<Vec<u8>>, acl: Vec<Acl<'static>>, mode: CreateMode },
    SetData { path: String, data: Vec<u8>, version: Option<i32> },
    Delete { path: String, version: Option<i32> },
    Check { path: String, version: Option<i32> },
}

/// What an operation of a multi that was done returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// ZooKeeper tells no stat here; a set in the same multi does, with the same zxid.
    Created {
        path: String,
    },
    Set(Stat),
    Deleted,
    Checked,
}

impl Op {
    /// Creates with the open ACL.
    pub fn create(path: impl Into<String>, data: impl Into<Vec<u8>>, mode: CreateMode) -> Self {
        Self::Create { path: path.into(), data: Some(data.into()), acl: vec![Acl::OPEN], mode }
    }

    /// `version` `None` sets whatever the version is.
    pub fn set(path: impl Into<String>, data: impl Into<Vec<u8>>, version: Option<i32>) -> Self {
        Self::SetData { path: path.into(), data: data.into(), version }
    }

    pub fn delete(path: impl Into<String>, version: Option<i32>) -> Self {
        Self::Delete { path: path.into(), version }
    }

    pub fn check(path: impl Into<String>, version: Option<i32>) -> Self {
        Self::Check { path: path.into(), version }
    }

    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Create { path, .. }
            | Self::SetData { path, .. }
            | Self::Delete { path, .. }
            | Self::Check { path, .. } => path,
        }
    }

    /// The request with `path` in place of its own.
    pub(crate) fn request<'a>(&'a self, path: Cow<'a, str>) -> Request<'a> {
        match self {
            Self::Create { data, acl, mode, .. } => {
                let (kind, ttl_ms) = mode.kind(CreateKind::Create);
                Request::Create {
                    kind,
                    path,
                    data: data.as_deref().map(Cow::Borrowed),
                    acl: Some(acl.clone()),
                    flags: mode.flags(),
                    ttl_ms,
                }
            }
            Self::SetData { data, version, .. } => Request::SetData {
                path,
                data: Some(Cow::Borrowed(data)),
                version: version.unwrap_or(-1),
            },
            Self::Delete { version, .. } => {
                Request::Delete { path, version: version.unwrap_or(-1) }
            }
            Self::Check { version, .. } => Request::Check { path, version: version.unwrap_or(-1) },
        }
    }
}
