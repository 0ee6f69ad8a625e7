//! One znode, as small as may be: an ensemble keeps a million of them in memory.
//!
//! Most are leaves with little data. So name and data share one piece of memory, what only a parent
//! has stands in a [`Family`] of its own, and hashes of leaves are worked out when they are needed.

use elkfk_wire::jute::{SessionId, Stat, Zxid};

use super::children::Children;
use super::{NodeId, SharedAcl};

/// `ephemeral_owner` of a container, as ZooKeeper marks it.
pub(crate) const CONTAINER_OWNER: SessionId = SessionId(i64::MIN);

/// The longest time to live a znode may have: some 34 years.
const TTL_MS_MAX: i64 = (1 << 40) - 1;

/// `ephemeral_owner` of a znode with a time to live, as ZooKeeper marks it since 3.5.4.
///
/// `None` for what is no time to live.
pub(crate) fn ttl_owner(ttl_ms: i64) -> Option<SessionId> {
    (1..=TTL_MS_MAX).contains(&ttl_ms).then_some(SessionId((0xff_u64 << 56) as i64 | ttl_ms))
}

/// The time to live that an owner stands for, if it does.
fn ttl_ms(owner: SessionId) -> Option<i64> {
    // A session of server 255 starts with the same byte; the 16 bits after it are of a time then.
    (owner.0 as u64 >> 40 == 0xff_0000).then_some(owner.0 & TTL_MS_MAX)
}

/// How long a znode is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Persistent,
    Ephemeral,
    Container,
    Ttl(i64),
}

impl Keep {
    pub(super) fn of(owner: SessionId) -> Self {
        match (owner, ttl_ms(owner)) {
            (SessionId(0), _) => Self::Persistent,
            (CONTAINER_OWNER, _) => Self::Container,
            (_, Some(ttl_ms)) => Self::Ttl(ttl_ms),
            _ => Self::Ephemeral,
        }
    }
}

/// What is kept of a znode's stat; all else of it follows from these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PersistedStat {
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) pzxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    /// Children ever created here. ZooKeeper stores it as cversion.
    pub(crate) creations: i32,
    pub(crate) aversion: i32,
    pub(crate) owner: SessionId,
}

impl PersistedStat {
    /// Of a znode that is made under this zxid, at this time.
    pub(crate) fn created(zxid: Zxid, time_ms: i64, owner: SessionId) -> Self {
        Self {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: time_ms,
            mtime_ms: time_ms,
            owner,
            ..Self::default()
        }
    }
}

/// Name and data of a znode in one piece.
#[derive(Debug)]
pub(crate) struct Text {
    bytes: Box<[u8]>,
    mark: u32,
}

/// Set in a mark where the data is Java's null; the rest of it is the length of the name.
const NO_DATA: u32 = 1 << 31;

impl Text {
    pub(super) fn new(name: &str, data: Option<&[u8]>) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + data.map_or(0, <[u8]>::len));
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(data.unwrap_or_default());
        let name_len = name.len() as u32;
        assert!(name.len() < NO_DATA as usize, "names come with a length of 31 bits");
        Self {
            bytes: bytes.into_boxed_slice(),
            mark: if data.is_some() { name_len } else { name_len | NO_DATA },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    /// As in [`Text`].
    bytes: Box<[u8]>,
    mark: u32,
    pub(crate) parent: NodeId,
    pub(crate) acl: SharedAcl,
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    pub(crate) aversion: i32,
    /// 0 for a persistent znode, [`CONTAINER_OWNER`] for a container, [`ttl_owner`].
    pub(crate) owner: SessionId,
    family: Option<Box<Family>>,
}

/// What a znode has once it had a child, and one that was read and is not as a leaf starts.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) children: Children,
    /// All that is below, to any depth.
    pub(super) descendants: u32,
    /// [`PersistedStat::creations`]: the number of the next sequential name.
    pub(super) creations: i32,
    pub(super) pzxid: Zxid,
    /// Of the znode's whole path.
    pub(super) path_hash: u64,
    /// The znode's share of the tree's digest, once it is known: its data may be large, and each child that
    /// comes or goes changes it.
    pub(super) hash: Option<u64>,
}

impl Node {
    /// The root has an empty name and is its own parent.
    pub(super) fn new(parent: NodeId, text: Text, acl: SharedAcl, stat: PersistedStat) -> Self {
        let mut node = Self {
            bytes: text.bytes,
            mark: text.mark,
            parent,
            acl,
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            ctime_ms: stat.ctime_ms,
            mtime_ms: stat.mtime_ms,
            version: stat.version,
            aversion: stat.aversion,
            owner: stat.owner,
            family: None,
        };
        if (stat.pzxid, stat.creations) != (node.pzxid(), node.creations()) {
            let family = node.family_mut();
            (family.pzxid, family.creations) = (stat.pzxid, stat.creations);
        }
        node
    }

    fn name_len(&self) -> usize {
        (self.mark & !NO_DATA) as usize
    }

    /// For comparing: in the order of the names themselves.
    pub(super) fn name_bytes(&self) -> &[u8] {
        &self.bytes[..self.name_len()]
    }

    pub(crate) fn name(&self) -> &str {
        str::from_utf8(self.name_bytes()).expect("it was made of a str")
    }

    /// `None` is Java's null.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        (self.mark & NO_DATA == 0).then(|| &self.bytes[self.name_len()..])
    }

    pub(super) fn data_len(&self) -> i64 {
        (self.bytes.len() - self.name_len()) as i64
    }

    pub(super) fn swap_text(&mut self, text: Text) -> Text {
        let mark = std::mem::replace(&mut self.mark, text.mark);
        Text { bytes: std::mem::replace(&mut self.bytes, text.bytes), mark }
    }

    pub(super) fn family(&self) -> Option<&Family> {
        self.family.as_deref()
    }

    /// Makes one where there is none; its hash is still to be set then.
    pub(super) fn family_mut(&mut self) -> &mut Family {
        self.family.get_or_insert_with(|| {
            Box::new(Family {
                children: Children::default(),
                descendants: 0,
                creations: 0,
                pzxid: self.czxid,
                path_hash: 0,
                hash: None,
            })
        })
    }

    pub(super) fn keep_hash(&mut self, hash: u64) {
        if let Some(family) = &mut self.family {
            family.hash = Some(hash);
        }
    }

    pub(super) fn forget_hash(&mut self) {
        if let Some(family) = &mut self.family {
            family.hash = None;
        }
    }

    pub(super) fn children(&self) -> Option<&Children> {
        self.family().map(|family| &family.children)
    }

    pub(crate) fn children_len(&self) -> usize {
        self.children().map_or(0, Children::len)
    }

    /// All that is below it, to any depth.
    pub(crate) fn descendants(&self) -> u32 {
        self.family().map_or(0, |family| family.descendants)
    }

    pub(crate) fn creations(&self) -> i32 {
        self.family().map_or(0, |family| family.creations)
    }

    /// Without a child ever it is of the znode's own creation.
    pub(crate) fn pzxid(&self) -> Zxid {
        self.family().map_or(self.czxid, |family| family.pzxid)
    }

    pub(super) fn persisted(&self) -> PersistedStat {
        PersistedStat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: self.pzxid(),
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            creations: self.creations(),
            aversion: self.aversion,
            owner: self.owner,
        }
    }

    pub(crate) fn stat(&self) -> Stat {
        let num_children = self.children_len() as i32;
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            // Only creations are stored; ZooKeeper's DataNode.copyStat works out the deletions so.
            cversion: self.creations().wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            // Only a session is told: what else the owner says is the ensemble's own affair.
            ephemeral_owner: if self.is_ephemeral() { self.owner } else { SessionId(0) },
            data_length: self.data_len() as i32,
            num_children,
            pzxid: self.pzxid(),
        }
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        Keep::of(self.owner) == Keep::Ephemeral
    }

    /// Whether it is a container that had children and has none, or its time to live was over at
    /// `now_ms`; with children it stays in any case.
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        self.children_len() == 0
            && match Keep::of(self.owner) {
                Keep::Container => self.creations() > 0,
                Keep::Ttl(ttl_ms) => now_ms.saturating_sub(self.mtime_ms) > ttl_ms,
                Keep::Persistent | Keep::Ephemeral => false,
            }
    }
}
