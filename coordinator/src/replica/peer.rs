//! What servers of an ensemble say to each other, as bytes.

use bytes::{Buf, BufMut, Bytes};
use elkfk_wire::jute::SessionId;

use crate::consensus::{Message, MessageError};

/// What a server tells of itself, first of all and whenever it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Nothing was ever written to its log.
    pub(crate) is_empty: bool,
    /// It does not vote yet.
    pub(crate) is_joining: bool,
    /// The same in all servers of an ensemble; 0 before there is one.
    pub(crate) ensemble: u64,
    /// The newest it has heard of.
    pub(crate) term: u64,
    /// Where its log ends.
    pub(crate) last_index: u64,
}

/// The commands of one server on their way to one leader, in their order and without a gap: what
/// follows a lost one must not be taken. A new lane begins when that may have happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) id: u64,
    /// How many messages came before.
    pub(crate) sent: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PeerMessage {
    Raft(Message),
    Hello(Hello),
    /// Commands for the log, to the leader of this term.
    Forward {
        term: u64,
        lane: Lane,
        commands: Vec<Bytes>,
    },
    /// Some of the commands sent on this lane will not be in the log, nor any after them.
    Refused {
        lane: u64,
    },
    /// Sessions whose clients were heard of, and the digest of the tree at an entry.
    Touch {
        sessions: Vec<SessionId>,
        checkpoint: Option<(u64, u64)>,
        /// What was sent so far: the leader says if it misses any of it.
        lane: Lane,
    },
    /// The receiver's tree is not the leader's.
    Diverged {
        index: u64,
    },
}

/// Why bytes are no message of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Raft(#[from] MessageError),
    #[error("unknown kind of message {0}")]
    Kind(u8),
    #[error("message is cut short")]
    Truncated,
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// What a message takes besides the data in it.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 4096;

impl PeerMessage {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raft(message) => {
                out.put_u8(1);
                message.encode(out);
            }
            Self::Hello(hello) => {
                out.put_u8(2);
                out.put_u8(hello.is_empty.into());
                out.put_u8(hello.is_joining.into());
                out.put_u64(hello.ensemble);
                out.put_u64(hello.term);
                out.put_u64(hello.last_index);
            }
            Self::Forward { term, lane, commands } => {
                out.put_u8(3);
                out.put_u64(*term);
                out.put_u64(lane.id);
                out.put_u64(lane.sent);
                for command in commands {
                    out.put_u32(command.len() as u32);
                    out.put_slice(command);
                }
            }
            Self::Refused { lane } => {
                out.put_u8(4);
                out.put_u64(*lane);
            }
            Self::Touch { sessions, checkpoint, lane } => {
                out.put_u8(5);
                out.put_u64(lane.id);
                out.put_u64(lane.sent);
                let (index, digest) = checkpoint.unwrap_or_default();
                out.put_u64(index);
                out.put_u64(digest);
                sessions.iter().for_each(|session| out.put_i64(session.0));
            }
            Self::Diverged { index } => {
                out.put_u8(6);
                out.put_u64(*index);
            }
        }
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, PeerError> {
        let kind = bytes.try_get_u8().map_err(|_| PeerError::Truncated)?;
        let rest = &mut bytes;
        let message = match kind {
            1 => return Ok(Self::Raft(Message::decode(bytes)?)),
            2 => Self::Hello(Hello {
                is_empty: rest.try_get_u8().map_err(|_| PeerError::Truncated)? != 0,
                is_joining: rest.try_get_u8().map_err(|_| PeerError::Truncated)? != 0,
                ensemble: number(rest)?,
                term: number(rest)?,
                last_index: number(rest)?,
            }),
            3 => {
                let (term, lane) = (number(rest)?, lane(rest)?);
                let mut commands = Vec::new();
                while rest.has_remaining() {
                    let length = rest.try_get_u32().map_err(|_| PeerError::Truncated)? as usize;
                    if length > rest.len() {
                        return Err(PeerError::Truncated);
                    }
                    commands.push(rest.split_to(length));
                }
                Self::Forward { term, lane, commands }
            }
            4 => Self::Refused { lane: number(rest)? },
            5 => {
                let lane = lane(rest)?;
                let (index, digest) = (number(rest)?, number(rest)?);
                let mut sessions = Vec::with_capacity(rest.len() / 8);
                while rest.has_remaining() {
                    sessions.push(SessionId(number(rest)? as i64));
                }
                let checkpoint = (index > 0).then_some((index, digest));
                Self::Touch { sessions, checkpoint, lane }
            }
            6 => Self::Diverged { index: number(rest)? },
            other => return Err(PeerError::Kind(other)),
        };
        match bytes.len() {
            0 => Ok(message),
            more => Err(PeerError::Trailing(more)),
        }
    }
}

fn number(bytes: &mut Bytes) -> Result<u64, PeerError> {
    bytes.try_get_u64().map_err(|_| PeerError::Truncated)
}

fn lane(bytes: &mut Bytes) -> Result<Lane, PeerError> {
    Ok(Lane { id: number(bytes)?, sent: number(bytes)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = PeerMessage> {
        prop_oneof![
            any::<(bool, bool, [u64; 3])>().prop_map(|(is_empty, is_joining, numbers)| {
                let [ensemble, term, last_index] = numbers;
                PeerMessage::Hello(Hello { is_empty, is_joining, ensemble, term, last_index })
            }),
            (any::<[u64; 3]>(), any::<Vec<Vec<u8>>>()).prop_map(|([term, id, sent], commands)| {
                let commands = commands.into_iter().map(Bytes::from).collect();
                PeerMessage::Forward { term, lane: Lane { id, sent }, commands }
            }),
            any::<u64>().prop_map(|lane| PeerMessage::Refused { lane }),
            (any::<Vec<i64>>(), proptest::option::of((1u64.., any::<u64>())), any::<[u64; 2]>())
                .prop_map(|(sessions, checkpoint, [id, sent])| {
                    let sessions = sessions.into_iter().map(SessionId).collect();
                    PeerMessage::Touch { sessions, checkpoint, lane: Lane { id, sent } }
                }),
            any::<u64>().prop_map(|index| PeerMessage::Diverged { index }),
        ]
    }

    proptest! {
        #[test]
        fn a_message_survives_the_way(message in message()) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert_eq!(PeerMessage::decode(bytes.into()), Ok(message));
        }

        #[test]
        fn no_bytes_do_harm(bytes in any::<Vec<u8>>()) {
            let _ = PeerMessage::decode(bytes.into());
        }
    }
}
