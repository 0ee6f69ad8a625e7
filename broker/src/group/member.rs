//! One member of a group.

use std::time::{Duration, Instant};

use super::{Join, Waiter};

/// A new member may wait this long for its first rebalance to end, as in Kafka: its session timeout
/// would throw it out of a group whose other members are slow.
pub(crate) const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    /// As Kafka shows it: `/127.0.0.1`.
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// Name and metadata, the preferred first.
    pub(crate) protocols: Vec<(String, Vec<u8>)>,
    pub(crate) assignment: Vec<u8>,
    /// Waits for the join phase to end.
    pub(crate) joining: Option<Waiter>,
    /// Waits for the leader's assignment.
    pub(crate) syncing: Option<Waiter>,
    /// Has not yet been part of a generation.
    pub(crate) is_new: bool,
    /// Was told of a generation and has not asked for its assignment.
    pub(crate) owes_sync: bool,
    /// When the session ends unless it is heard of.
    pub(crate) expires: Instant,
}

impl Member {
    pub(crate) fn new(id: String, join: &Join, now: Instant) -> Self {
        Self {
            id,
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols.clone(),
            assignment: Vec::new(),
            joining: None,
            syncing: None,
            is_new: true,
            owes_sync: false,
            expires: now + NEW_MEMBER_JOIN_TIMEOUT,
        }
    }

    /// Heard of: the session starts anew.
    pub(crate) fn keep_alive(&mut self, now: Instant) {
        self.expires = now + self.session_timeout;
    }

    /// When this member is to be thrown out. Who waits for the group is not expected to speak.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let is_waiting = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !is_waiting).then_some(self.expires)
    }

    pub(crate) fn update(&mut self, join: &Join) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_timeout = join.session_timeout;
        self.rebalance_timeout = join.rebalance_timeout;
        self.protocols.clone_from(&join.protocols);
    }

    /// The protocol this member would choose among `candidates`.
    pub(crate) fn vote<'a>(&'a self, candidates: &[&str]) -> Option<&'a str> {
        self.protocols.iter().map(|(name, _)| name.as_str()).find(|name| candidates.contains(name))
    }

    pub(crate) fn metadata(&self, protocol: &str) -> &[u8] {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or(&[], |(_, metadata)| metadata)
    }

    /// Topics of the consumer protocol's subscription: version, then an array of strings. `None` where
    /// the metadata is not of that shape.
    pub(crate) fn subscription(&self, protocol: &str) -> Option<Vec<String>> {
        let metadata = self.metadata(protocol);
        let count = u32::from_be_bytes(metadata.get(2..6)?.try_into().ok()?) as usize;
        let (mut rest, mut topics) = (metadata.get(6..)?, Vec::new());
        for _ in 0..count {
            let length = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?) as usize;
            topics.push(String::from_utf8(rest.get(2..2 + length)?.to_vec()).ok()?);
            rest = &rest[2 + length..];
        }
        Some(topics)
    }
}
