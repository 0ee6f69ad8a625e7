//! What the log holds: requests as they came, to be decided when they are applied.
//!
//! Nothing here is a decision, so a command in the log says nothing of whether it succeeds. Times
//! are the proposer's; whoever applies reads no clock.

use std::borrow::Cow;

use elkfk_wire::jute::{DecodeError, Reader, SessionId, put_buffer, put_i32, put_i64, put_string};

use crate::tree::Identity;

/// Which request of which server's which connection a command is, so that the server that proposed
/// it finds whom to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    /// Drawn anew at each start of a server: what an earlier life proposed has nobody to answer.
    pub(crate) boot: u64,
    pub(crate) connection: u64,
}

impl Origin {
    /// Of an encoded command.
    pub(crate) fn of(command: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(command.get(TIME.end..)?);
        Some(Self { boot: reader.i64().ok()? as u64, connection: reader.i64().ok()? as u64 })
    }

    /// Whether two encoded commands are one, which may have been stamped since.
    pub(crate) fn is_same_but_for_time(left: &[u8], right: &[u8]) -> bool {
        left.len() == right.len()
            && left.get(..TIME.start) == right.get(..TIME.start)
            && left.get(TIME.end..) == right.get(TIME.end..)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    pub(crate) time_ms: i64,
    pub(crate) origin: Origin,
    /// 0 where none is concerned.
    pub(crate) session: SessionId,
    pub(crate) action: Action<'a>,
}

/// What of the proposer's configuration has a say in how a request is decided. It is in the log, for
/// every server must decide alike, whatever its own configuration says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Znodes with a time to live may be made (`extendedTypesEnabled`).
    pub(crate) extended_types: bool,
    /// Hard limits of quotas refuse (`enforceQuota`).
    pub(crate) enforce_quota: bool,
    /// The ensemble may be changed (`reconfigEnabled`).
    pub(crate) reconfig: bool,
}

impl Rules {
    fn bits(self) -> u8 {
        u8::from(self.extended_types)
            | u8::from(self.enforce_quota) << 1
            | u8::from(self.reconfig) << 2
    }

    fn from_bits(bits: u8) -> Self {
        Self {
            extended_types: bits & 1 != 0,
            enforce_quota: bits & 2 != 0,
            reconfig: bits & 4 != 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    /// What session passwords are made with. The first one holds, for ever.
    Secret([u8; 32]),
    /// The session is the proposer's choice; `server` is where its client is connected.
    CreateSession { timeout_ms: i32, server: u64 },
    /// The client came to another server, and what it still sends to the old one is refused.
    MoveSession { server: u64 },
    /// By the client, or because nothing was heard of it.
    CloseSession { is_expiry: bool },
    Request {
        /// Where the client was connected when it asked.
        server: u64,
        rules: Rules,
        identities: Vec<Identity<'a>>,
        op: i32,
        /// The record of the request, as it came.
        body: Cow<'a, [u8]>,
    },
    /// Of a container that was found empty, or a znode whose time to live was over.
    DeleteContainer { path: Cow<'a, str> },
    /// The servers as the leader's zoo.cfg lists them, for an ensemble that was never changed.
    Ensemble { servers: Cow<'a, str> },
}

const FORMAT: u8 = 1;
/// Where an encoded command has its time: after format and tag, before its origin.
const TIME: std::ops::Range<usize> = 2..10;

impl<'a> Command<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let tag = match &self.action {
            Action::Secret(_) => 1,
            Action::CreateSession { .. } => 2,
            Action::MoveSession { .. } => 3,
            Action::CloseSession { .. } => 4,
            // As logs had it before there were rules.
            Action::Request { rules, .. } if *rules == Rules::default() => 5,
            Action::Request { .. } => 7,
            Action::DeleteContainer { .. } => 6,
            Action::Ensemble { .. } => 8,
        };
        out.extend([FORMAT, tag]);
        put_i64(&mut out, self.time_ms);
        put_i64(&mut out, self.origin.boot as i64);
        put_i64(&mut out, self.origin.connection as i64);
        put_i64(&mut out, self.session.0);
        match &self.action {
            Action::Secret(secret) => put_buffer(&mut out, Some(secret)),
            Action::CreateSession { timeout_ms, server } => {
                put_i32(&mut out, *timeout_ms);
                put_i64(&mut out, *server as i64);
            }
            Action::MoveSession { server } => put_i64(&mut out, *server as i64),
            Action::CloseSession { is_expiry } => out.push(u8::from(*is_expiry)),
            Action::Request { server, rules, identities, op, body } => {
                if *rules != Rules::default() {
                    out.push(rules.bits());
                }
                put_i64(&mut out, *server as i64);
                put_i32(&mut out, identities.len() as i32);
                for identity in identities {
                    put_string(&mut out, &identity.scheme);
                    put_string(&mut out, &identity.id);
                }
                put_i32(&mut out, *op);
                out.extend_from_slice(body);
            }
            Action::DeleteContainer { path } => put_string(&mut out, path),
            Action::Ensemble { servers } => put_string(&mut out, servers),
        }
        out
    }

    /// Sets the time of an encoded command: the leader's counts.
    pub(crate) fn stamp(bytes: &mut [u8], time_ms: i64) {
        if let Some(place) = bytes.get_mut(TIME) {
            place.copy_from_slice(&time_ms.to_be_bytes());
        }
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Some(([format, tag], rest)) = bytes.split_first_chunk() else {
            return Err(DecodeError::Truncated { missing_bytes: 2 - bytes.len() });
        };
        if *format != FORMAT {
            return Err(DecodeError::Operation((*format).into()));
        }
        let mut reader = Reader::new(rest);
        let time_ms = reader.i64()?;
        let origin = Origin { boot: reader.i64()? as u64, connection: reader.i64()? as u64 };
        let session = SessionId(reader.i64()?);
        let action = match tag {
            1 => Action::Secret(
                reader
                    .buffer()?
                    .and_then(|secret| secret.try_into().ok())
                    .ok_or(DecodeError::Null)?,
            ),
            2 => Action::CreateSession { timeout_ms: reader.i32()?, server: reader.i64()? as u64 },
            3 => Action::MoveSession { server: reader.i64()? as u64 },
            4 => Action::CloseSession { is_expiry: reader.bool()? },
            5 | 7 => Action::Request {
                rules: if *tag == 7 { Rules::from_bits(reader.u8()?) } else { Rules::default() },
                server: reader.i64()? as u64,
                identities: reader
                    .vector(8, |reader| {
                        Ok(Identity {
                            scheme: Cow::Borrowed(reader.string()?),
                            id: Cow::Borrowed(reader.string()?),
                        })
                    })?
                    .unwrap_or_default(),
                op: reader.i32()?,
                body: Cow::Borrowed(reader.rest()),
            },
            6 => Action::DeleteContainer { path: Cow::Borrowed(reader.string()?) },
            8 => Action::Ensemble { servers: Cow::Borrowed(reader.string()?) },
            other => return Err(DecodeError::Operation((*other).into())),
        };
        Ok(Self { time_ms, origin, session, action })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn action() -> impl Strategy<Value = Action<'static>> {
        let identity = ("[a-z]{0,5}", "[a-z]{0,5}")
            .prop_map(|(scheme, id)| Identity { scheme: scheme.into(), id: id.into() });
        prop_oneof![
            any::<[u8; 32]>().prop_map(Action::Secret),
            any::<(i32, u64)>()
                .prop_map(|(timeout_ms, server)| Action::CreateSession { timeout_ms, server }),
            any::<u64>().prop_map(|server| Action::MoveSession { server }),
            any::<bool>().prop_map(|is_expiry| Action::CloseSession { is_expiry }),
            (
                any::<(u64, bool, bool)>(),
                proptest::collection::vec(identity, 0..3),
                any::<i32>(),
                any::<Vec<u8>>()
            )
                .prop_map(
                    |((server, extended_types, enforce_quota), identities, op, body)| {
                        let rules =
                            Rules { extended_types, enforce_quota, reconfig: server % 2 == 0 };
                        let body = body.into();
                        Action::Request { server, rules, identities, op, body }
                    }
                ),
            "[a-z/]{0,9}".prop_map(|path| Action::DeleteContainer { path: path.into() }),
            "[a-z/]{0,9}".prop_map(|text| Action::Ensemble { servers: text.into() }),
        ]
    }

    proptest! {
        #[test]
        fn a_command_survives_the_log(
            action in action(),
            (time_ms, boot, connection, session) in any::<(i64, u64, u64, i64)>(),
        ) {
            let session = SessionId(session);
            let command = Command { time_ms, origin: Origin { boot, connection }, session, action };
            let bytes = command.encode();
            prop_assert_eq!(Command::decode(&bytes), Ok(command.clone()));
            let mut stamped = bytes;
            Command::stamp(&mut stamped, 77);
            prop_assert_eq!(Origin::of(&stamped), Some(command.origin));
            prop_assert!(Origin::is_same_but_for_time(&command.encode(), &stamped));
            let other = Origin { boot, connection: connection.wrapping_add(1) };
            let other = Command { origin: other, ..command.clone() };
            prop_assert!(!Origin::is_same_but_for_time(&other.encode(), &stamped));
            prop_assert_eq!(Command::decode(&stamped), Ok(Command { time_ms: 77, ..command }));
        }

        #[test]
        fn no_bytes_do_harm(bytes in any::<Vec<u8>>(), tag in 0u8..10) {
            let _ = (Command::decode(&bytes), Origin::of(&bytes));
            prop_assert!(bytes.len() < TIME.end || Origin::is_same_but_for_time(&bytes, &bytes));
            let _ = Command::decode(&[&[FORMAT, tag], &bytes[..]].concat());
        }
    }
}
