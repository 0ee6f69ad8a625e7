//! Raft's messages as bytes.
//!
//! Everything a message says is in its own place and of fixed width; what has a length is checked
//! against the bytes that are there before anything is allocated.

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{self, ConfState, Entry, EntryType, MessageType, Snapshot, SnapshotMetadata};

/// A message between two servers; what is in it concerns nobody but the algorithm.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message(pub(super) eraftpb::Message);

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("message ends {missing_bytes} bytes too early")]
    Truncated { missing_bytes: usize },
    #[error("unknown kind of message {0}")]
    Kind(i32),
    #[error("unknown kind of entry {0}")]
    EntryKind(u8),
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// What an entry takes besides its data.
const ENTRY_BYTES: usize = 8 + 8 + 1 + 4;

impl Message {
    pub(crate) fn to(&self) -> u64 {
        self.0.to
    }

    pub(crate) fn from(&self) -> u64 {
        self.0.from
    }

    /// Of the snapshot it announces, where it is that kind of message.
    pub(crate) fn snapshot_index(&self) -> Option<u64> {
        (self.0.get_msg_type() == MessageType::MsgSnapshot)
            .then(|| self.0.get_snapshot().get_metadata().index)
    }

    /// Whether it asks for a vote, or to campaign for votes.
    pub(crate) fn is_about_votes(&self) -> bool {
        matches!(
            self.0.get_msg_type(),
            MessageType::MsgRequestVote
                | MessageType::MsgRequestPreVote
                | MessageType::MsgTimeoutNow
        )
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let message = &self.0;
        out.put_i32(message.msg_type as i32);
        for number in [
            message.to,
            message.from,
            message.term,
            message.log_term,
            message.index,
            message.commit,
            message.commit_term,
            message.request_snapshot,
            message.reject_hint,
            message.priority as u64,
            message.deprecated_priority,
        ] {
            out.put_u64(number);
        }
        out.put_u8(message.reject.into());
        out.put_u32(message.context.len() as u32);
        out.put_slice(&message.context);
        out.put_u32(message.entries.len() as u32);
        for entry in message.entries.iter() {
            out.put_u64(entry.term);
            out.put_u64(entry.index);
            out.put_u8(entry.entry_type as u8);
            out.put_u32(entry.data.len() as u32);
            out.put_slice(&entry.data);
        }
        let metadata = message.get_snapshot().get_metadata();
        out.put_u64(metadata.index);
        out.put_u64(metadata.term);
        let members = metadata.get_conf_state();
        for ids in
            [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next]
        {
            out.put_u32(ids.len() as u32);
            ids.iter().for_each(|id| out.put_u64(*id));
        }
        out.put_u8(members.auto_leave.into());
    }

    /// The data of entries stays in `bytes`' memory.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, MessageError> {
        let bytes = &mut bytes;
        let kind = i32::from_be_bytes(array(bytes)?);
        let mut message = eraftpb::Message::default();
        message.set_msg_type(message_type(kind).ok_or(MessageError::Kind(kind))?);
        message.to = number(bytes)?;
        message.from = number(bytes)?;
        message.term = number(bytes)?;
        message.log_term = number(bytes)?;
        message.index = number(bytes)?;
        message.commit = number(bytes)?;
        message.commit_term = number(bytes)?;
        message.request_snapshot = number(bytes)?;
        message.reject_hint = number(bytes)?;
        message.priority = number(bytes)? as i64;
        message.deprecated_priority = number(bytes)?;
        message.reject = flag(bytes)?;
        message.context = buffer(bytes)?;
        let count = count(bytes, ENTRY_BYTES)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (term, index) = (number(bytes)?, number(bytes)?);
            let [kind] = array(bytes)?;
            let entry_type = match kind {
                0 => EntryType::EntryNormal,
                1 => EntryType::EntryConfChange,
                2 => EntryType::EntryConfChangeV2,
                other => return Err(MessageError::EntryKind(other)),
            };
            let data = buffer(bytes)?;
            entries.push(Entry { term, index, entry_type, data, ..Entry::default() });
        }
        message.entries = entries.into();
        let (index, term) = (number(bytes)?, number(bytes)?);
        let mut metadata = SnapshotMetadata { index, term, ..SnapshotMetadata::default() };
        let mut members = ConfState::default();
        for ids in [
            &mut members.voters,
            &mut members.learners,
            &mut members.voters_outgoing,
            &mut members.learners_next,
        ] {
            for _ in 0..self::count(bytes, 8)? {
                ids.push(number(bytes)?);
            }
        }
        members.auto_leave = flag(bytes)?;
        if index > 0 {
            metadata.set_conf_state(members);
            let mut snapshot = Snapshot::default();
            snapshot.set_metadata(metadata);
            message.set_snapshot(snapshot);
        }
        match bytes.len() {
            0 => Ok(Self(message)),
            more => Err(MessageError::Trailing(more)),
        }
    }
}

fn array<const N: usize>(bytes: &mut Bytes) -> Result<[u8; N], MessageError> {
    let array = bytes.first_chunk::<N>().copied();
    let missing = || MessageError::Truncated { missing_bytes: N - bytes.len() };
    let array = array.ok_or_else(missing)?;
    bytes.advance(N);
    Ok(array)
}

fn number(bytes: &mut Bytes) -> Result<u64, MessageError> {
    array(bytes).map(u64::from_be_bytes)
}

fn flag(bytes: &mut Bytes) -> Result<bool, MessageError> {
    array(bytes).map(|[byte]| byte != 0)
}

/// How many things of at least `bytes_each` follow: never more than there are bytes for.
fn count(bytes: &mut Bytes, bytes_each: usize) -> Result<usize, MessageError> {
    let count = u32::from_be_bytes(array(bytes)?) as usize;
    match count.saturating_mul(bytes_each).checked_sub(bytes.len()) {
        None | Some(0) => Ok(count),
        Some(missing_bytes) => Err(MessageError::Truncated { missing_bytes }),
    }
}

fn buffer(bytes: &mut Bytes) -> Result<Bytes, MessageError> {
    let length = count(bytes, 1)?;
    Ok(bytes.split_to(length))
}

fn message_type(kind: i32) -> Option<MessageType> {
    // Those that a server only tells itself, or that we send in another form, are not taken.
    [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ]
    .into_iter()
    .find(|known| *known as i32 == kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        (any::<u64>(), any::<u64>(), 0..3, any::<Vec<u8>>()).prop_map(
            |(term, index, kind, data)| {
                let mut entry = Entry { term, index, data: data.into(), ..Entry::default() };
                entry.set_entry_type(match kind {
                    0 => EntryType::EntryNormal,
                    1 => EntryType::EntryConfChange,
                    _ => EntryType::EntryConfChangeV2,
                });
                entry
            },
        )
    }

    proptest! {
        #[test]
        fn a_message_survives_the_way(
            kind in 0i32..19,
            numbers in any::<[u64; 6]>(),
            (reject, context) in any::<(bool, Vec<u8>)>(),
            entries in proptest::collection::vec(entry(), 0..4),
            (index, voters) in (0u64..3, any::<Vec<u64>>()),
        ) {
            let Some(kind) = message_type(kind) else { return Ok(()) };
            let mut message = eraftpb::Message::default();
            message.set_msg_type(kind);
            [message.to, message.from, message.term, message.index, message.commit, message.reject_hint]
                = numbers;
            message.priority = numbers[0] as i64;
            message.reject = reject;
            message.context = context.into();
            message.entries = entries.into();
            if index > 0 {
                let mut metadata = SnapshotMetadata { index, term: 3, ..Default::default() };
                metadata.set_conf_state(ConfState::from((voters, vec![7])));
                let mut snapshot = Snapshot::default();
                snapshot.set_metadata(metadata);
                message.set_snapshot(snapshot);
            }
            let message = Message(message);
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            for length in 0..bytes.len() {
                prop_assert!(Message::decode(bytes[..length].to_vec().into()).is_err());
            }
            prop_assert_eq!(Message::decode(bytes.into()), Ok(message));
        }

        #[test]
        fn no_bytes_do_harm(bytes in any::<Vec<u8>>()) {
            let _ = Message::decode(bytes.into());
        }
    }
}
