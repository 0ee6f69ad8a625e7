//! Requests as bytes, to any ZooKeeper, and what it answers in words that are the same for equal
//! servers. No client stands between: what a client would never send is asked too.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use elkfk_tests::raw::{Answer, Offer, Raw};
use elkfk_wire::jute::{OpCode, OpResult, Reader, Request, Response, Stat, Zxid};

fn newest_zxid(raw: &mut Raw) -> Result<Zxid> {
    Ok(raw.ask(&Request::Sync { path: "/".into() })?.zxid)
}

/// Several sessions on one server.
pub(crate) struct Scene {
    pub(crate) sessions: Vec<Raw>,
    base: i64,
}

impl Scene {
    pub(crate) fn start(addr: &str, sessions: usize) -> Result<Self> {
        let at = addr.parse().with_context(|| format!("{addr} is no address"))?;
        let open = |_| Raw::open(at, &Offer::new(10_000));
        let mut sessions = (0..sessions).map(open).collect::<Result<Vec<_>>>()?;
        let base = newest_zxid(&mut sessions[0])?.0;
        Ok(Self { sessions, base })
    }

    fn zxid(&self, zxid: Zxid) -> String {
        match zxid.0 {
            0 => "0".into(),
            zxid if zxid < self.base => "before".into(),
            zxid => format!("+{}", zxid - self.base),
        }
    }

    fn stat(&self, stat: &Stat) -> String {
        let owner = match self.sessions.iter().position(|raw| raw.session == stat.ephemeral_owner) {
            Some(at) => format!("session {at}"),
            None => format!("{:x}", stat.ephemeral_owner.0),
        };
        format!(
            "<c{} m{} p{} v{} cv{} av{} owner {owner} {} bytes {} children>",
            self.zxid(stat.czxid),
            self.zxid(stat.mzxid),
            self.zxid(stat.pzxid),
            stat.version,
            stat.cversion,
            stat.aversion,
            stat.data_length,
            stat.num_children
        )
    }

    fn sorted(mut strings: Vec<String>) -> String {
        strings.sort();
        strings.join(" ")
    }

    fn response(&self, response: &Response<'_>) -> String {
        let words = |strings: &[std::borrow::Cow<'_, str>]| {
            Self::sorted(strings.iter().map(|string| string.to_string()).collect())
        };
        match response {
            Response::PathAndStat(path, stat) => format!("{path} {}", self.stat(stat)),
            Response::Stat(stat) => self.stat(stat),
            Response::Data(data, stat) => {
                let data = data.as_ref().map(|data| String::from_utf8_lossy(data).into_owned());
                format!("{data:?} {}", self.stat(stat))
            }
            Response::Acl(acl, stat) => format!("{acl:?} {}", self.stat(stat)),
            Response::Strings(strings) => words(strings),
            Response::Children2(strings, stat) => {
                format!("{} {}", words(strings), self.stat(stat))
            }
            Response::Identities(identities) => Self::sorted(
                identities.iter().map(|(scheme, user)| format!("{scheme}:{user}")).collect(),
            ),
            Response::Multi(results) => {
                let mut told = String::new();
                for result in results {
                    let _ = match result {
                        OpResult::Ok(op, response) => {
                            write!(told, "[{} {}]", op.name(), self.response(response))
                        }
                        OpResult::Error(code) => write!(told, "[{code}]"),
                    };
                }
                told
            }
            other => format!("{other:?}"),
        }
    }

    fn told(&self, op: OpCode, answer: &Answer) -> String {
        let mut reader = Reader::new(&answer.body);
        let mut told = format!("{} ", answer.code);
        // Of SASL some servers tell no zxid.
        if op != OpCode::Sasl {
            let _ = write!(told, "at {} ", self.zxid(answer.zxid));
        }
        match Response::decode(op, &mut reader) {
            _ if answer.code != 0 => {}
            Ok(response) => told.push_str(&self.response(&response)),
            Err(error) => told.push_str(&format!("undecodable: {error}")),
        }
        let rest = if answer.code == 0 { reader.rest() } else { &answer.body };
        if !rest.is_empty() {
            let _ = write!(told, " and {} bytes", rest.len());
        }
        told
    }

    /// What `request` of session `at` is answered, and the events that each session has by then.
    pub(crate) fn step(&mut self, at: usize, request: &Request<'_>) -> Result<String> {
        let answered = match self.sessions[at].ask(request) {
            Ok(answer) => self.told(request.op(), &answer),
            Err(error) => {
                let told = format!("{error:#}");
                return Ok(told);
            }
        };
        let mut told = answered;
        for (at, raw) in self.sessions.iter_mut().enumerate() {
            // Of what was not told before a newer answer, nothing is to come.
            newest_zxid(raw)?;
            for (kind, path) in raw.events.drain(..) {
                let _ = write!(told, " | {at}: {kind:?} {path}");
            }
        }
        Ok(told)
    }

    /// The same with any record under any operation.
    pub(crate) fn bytes(&mut self, at: usize, op: i32, body: &[u8]) -> Result<String> {
        let raw = &mut self.sessions[at];
        let number = raw.send_bytes(None, op, body)?;
        let answer = raw.answer(number)?;
        let rest = answer.body.len();
        Ok(format!("{} at {} and {rest} bytes", answer.code, self.zxid(answer.zxid)))
    }
}
