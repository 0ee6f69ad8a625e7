//! A snapshot: `ZKSN`, sessions, ACLs, znodes from the root down, a checksum.
//!
//! It is written while the server works, so it may hold changes after its zxid: doing those again
//! from the log must change nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use elkfk_wire::jute::{Acl, Reader, SessionId, Zxid};

use super::log::adler32;
use super::state::State;
use super::{ImportError, Malformed, files};
use crate::tree::{PersistedStat, PlainNode};

const MAGIC: &[u8; 4] = b"ZKSN";
const VERSION: i32 = 2;
/// The number of the ACL that everybody may do everything.
const OPEN_ACL: i64 = -1;

/// The snapshot, or what keeps it from being used.
pub(super) fn read(path: &Path, zxid: Zxid) -> Result<Result<State, Malformed>, ImportError> {
    Ok(decode(&files::read(path)?, zxid))
}

fn other<T>(why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed::Other(why.into()))
}

pub(super) fn decode(bytes: &[u8], zxid: Zxid) -> Result<State, Malformed> {
    let mut reader = Reader::new(bytes);
    if !bytes.starts_with(MAGIC) {
        return other("it does not begin with ZKSN");
    }
    let (_magic, version, _database) = (reader.i32()?, reader.i32()?, reader.i64()?);
    if version != VERSION {
        return other(format!("its version is {version}, not {VERSION}"));
    }
    let mut state = State::new();
    state.zxid = zxid;
    let sessions = reader.vector(12, |reader| Ok((SessionId(reader.i64()?), reader.i32()?)))?;
    state.sessions = sessions.unwrap_or_default().into_iter().collect();
    let acls = read_acls(&mut reader)?;
    state.nodes.clear();
    loop {
        let path = reader.string()?;
        if path == "/" {
            break;
        }
        let data = reader.buffer()?.map(Box::from);
        let number = reader.i64()?;
        let Some(acl) = acls.get(&number) else {
            return other(format!("{path:?} has ACL {number}, which is not listed"));
        };
        let node = PlainNode {
            data,
            acl: acl.clone(),
            stat: PersistedStat {
                czxid: Zxid(reader.i64()?),
                mzxid: Zxid(reader.i64()?),
                ctime_ms: reader.i64()?,
                mtime_ms: reader.i64()?,
                version: reader.i32()?,
                creations: reader.i32()?,
                aversion: reader.i32()?,
                owner: SessionId(reader.i64()?),
                pzxid: Zxid(reader.i64()?),
            },
        };
        state.put(path, node).map_err(Malformed::Other)?;
    }
    if !state.nodes.contains_key("") {
        return other("it has no root");
    }
    let summed = bytes.len() - reader.rest().len();
    let (checksum, found) = (reader.i64()?, i64::from(adler32(&bytes[..summed])));
    if checksum != found {
        return other(format!("its checksum is {checksum:08x}, its bytes have {found:08x}"));
    }
    if reader.string()? != "/" {
        return other("its end is cut off");
    }
    // Newer ZooKeepers add a digest and more behind it, each with a checksum of its own; what is
    // needed of the snapshot is whole without them.
    Ok(state)
}

type Acls = HashMap<i64, Arc<[Acl<'static>]>>;

fn read_acls(reader: &mut Reader<'_>) -> Result<Acls, Malformed> {
    let mut acls = Acls::from([(OPEN_ACL, Arc::from([Acl::OPEN]))]);
    let count = reader.i32()?;
    for _ in 0..count {
        let number = reader.i64()?;
        let list = reader.vector(12, Acl::decode)?.unwrap_or_default();
        acls.insert(number, list.into_iter().map(Acl::into_owned).collect());
    }
    Ok(acls)
}
