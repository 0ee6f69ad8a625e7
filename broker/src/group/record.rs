//! The records of `__consumer_offsets`, in Kafka's own schemas.
//!
//! Written: offset keys of version 1 with values of version 3, group keys of version 2 with values
//! of version 3, as Kafka 3.4.1 does. Read: every version of them.

use std::borrow::Cow;
use std::time::Duration;

use elkfk_wire::kafka::messages::group_metadata_key::GroupMetadataKey;
use elkfk_wire::kafka::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use elkfk_wire::kafka::messages::offset_commit_key::OffsetCommitKey;
use elkfk_wire::kafka::messages::offset_commit_value::OffsetCommitValue;
use elkfk_wire::kafka::{DecodeError, EncodeError, Message, Reader};

use super::offsets::Committed;
use super::state::Group;

/// A record as it goes to the log; no value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Offset {
        group: String,
        topic: String,
        partition: i32,
        committed: Option<Committed>,
    },
    Group {
        group: String,
        value: Option<StoredGroup>,
    },
    /// A key of a version that 3.4.1 does not write either.
    Unknown {
        version: i16,
    },
}

/// What a group record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    pub(crate) protocol_type: String,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    /// -1: unknown.
    pub(crate) state_since_ms: i64,
    pub(crate) members: Vec<StoredMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMember {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) subscription: Vec<u8>,
    pub(crate) assignment: Vec<u8>,
}

/// The lengths in these records have 16 bits, those in compact requests have 32.
pub(crate) const STRING_BYTES_MAX: usize = 30_000;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const VALUE: i16 = 3;

/// Offset, or its tombstone where `committed` is `None`.
pub(crate) fn offset_record(
    group: &str,
    topic: &str,
    partition: i32,
    committed: Option<&Committed>,
) -> Record {
    let key = OffsetCommitKey { group: group.into(), topic: topic.into(), partition };
    let value = committed.map(|committed| OffsetCommitValue {
        offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        metadata: Cow::Borrowed(&committed.metadata),
        commit_timestamp: committed.commit_ms,
        expire_timestamp: -1,
    });
    Record { key: encode(&key, OFFSET_KEY), value: value.map(|value| encode(&value, VALUE)) }
}

pub(crate) fn group_record(group: &Group) -> Record {
    let protocol = group.protocol.as_deref().unwrap_or_default();
    let members = group.members.values().map(|member| MemberMetadata {
        member_id: Cow::Borrowed(&member.id),
        group_instance_id: member.instance_id.as_deref().map(Cow::Borrowed),
        client_id: Cow::Borrowed(&member.client_id),
        client_host: Cow::Borrowed(&member.client_host),
        rebalance_timeout: millis(member.rebalance_timeout),
        session_timeout: millis(member.session_timeout),
        subscription: Cow::Borrowed(member.metadata(protocol)),
        assignment: Cow::Borrowed(&member.assignment),
    });
    let value = GroupMetadataValue {
        protocol_type: Cow::Borrowed(group.protocol_type.as_deref().unwrap_or_default()),
        generation: group.generation,
        protocol: group.protocol.as_deref().map(Cow::Borrowed),
        leader: group.leader.as_deref().map(Cow::Borrowed),
        current_state_timestamp: group.state_since_ms,
        members: members.collect(),
    };
    Record { key: group_key(&group.id), value: Some(encode(&value, VALUE)) }
}

pub(crate) fn group_tombstone(group: &str) -> Record {
    Record { key: group_key(group), value: None }
}

fn group_key(group: &str) -> Vec<u8> {
    encode(&GroupMetadataKey { group: group.into() }, GROUP_KEY)
}

/// The version, then the message, as everything in Kafka's internal topics.
fn encode<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut out = version.to_be_bytes().to_vec();
    let encoded: Result<(), EncodeError> = message.encode(&mut out, version);
    // The core takes no string longer than `STRING_BYTES_MAX`.
    encoded.expect("strings of a group fit their lengths");
    out
}

/// # Errors
/// When key or value are not of Kafka's schemas.
pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Entry, DecodeError> {
    let mut key = Reader::new(key);
    match key.i16()? {
        version @ 0..=1 => {
            let key = OffsetCommitKey::decode(&mut key, version)?;
            let committed = value.map(decode_offset).transpose()?;
            Ok(Entry::Offset {
                group: key.group.into_owned(),
                topic: key.topic.into_owned(),
                partition: key.partition,
                committed,
            })
        }
        GROUP_KEY => {
            let key = GroupMetadataKey::decode(&mut key, GROUP_KEY)?;
            let value = value.map(decode_group).transpose()?;
            Ok(Entry::Group { group: key.group.into_owned(), value })
        }
        version => Ok(Entry::Unknown { version }),
    }
}

fn decode_offset(value: &[u8]) -> Result<Committed, DecodeError> {
    let mut value = Reader::new(value);
    let version = value.i16()?;
    let value = OffsetCommitValue::decode(&mut value, version)?;
    Ok(Committed {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata.into_owned(),
        commit_ms: value.commit_timestamp,
        expire_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
    })
}

fn decode_group(value: &[u8]) -> Result<StoredGroup, DecodeError> {
    let mut value = Reader::new(value);
    let version = value.i16()?;
    let value = GroupMetadataValue::decode(&mut value, version)?;
    let members = value.members.into_iter().map(|member| {
        let session_timeout = duration(member.session_timeout);
        StoredMember {
            id: member.member_id.into_owned(),
            instance_id: member.group_instance_id.map(Cow::into_owned),
            client_id: member.client_id.into_owned(),
            client_host: member.client_host.into_owned(),
            // Version 0 had one timeout for both.
            rebalance_timeout: if version == 0 {
                session_timeout
            } else {
                duration(member.rebalance_timeout)
            },
            session_timeout,
            subscription: member.subscription.into_owned(),
            assignment: member.assignment.into_owned(),
        }
    });
    Ok(StoredGroup {
        protocol_type: value.protocol_type.into_owned(),
        generation: value.generation,
        protocol: value.protocol.map(Cow::into_owned),
        leader: value.leader.map(Cow::into_owned),
        state_since_ms: value.current_state_timestamp,
        members: members.collect(),
    })
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn duration(ms: i32) -> Duration {
    Duration::from_millis(ms.max(0).unsigned_abs().into())
}
