//! Requests as bytes, to any ZooKeeper, and what it answers in words that are the same for equal
//! servers. No client stands between: what a client would never send is asked too.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use elkfk_wire::jute::{
    ConnectRequest, ConnectResponse, OpCode, OpResult, Reader, ReplyHeader, Request, RequestHeader,
    Response, SessionId, Stat, WatchedEvent, Zxid, end_frame, frame_in, start_frame, xid,
};

const FRAME_BYTES_MAX: usize = 1 << 20;

/// One connection with a session.
pub(crate) struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
    next_xid: i32,
    pub(crate) session: SessionId,
    events: VecDeque<String>,
}

struct Frame {
    header: ReplyHeader,
    body: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(addr: &str) -> Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("connect {addr}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        let mut raw = Self {
            stream,
            input: Vec::new(),
            next_xid: 1,
            session: SessionId(0),
            events: VecDeque::new(),
        };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(0),
            timeout_ms: 10_000,
            session: SessionId(0),
            password: &[0; 16],
            read_only: Some(false),
        };
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        request.encode(&mut out);
        end_frame(&mut out, start);
        raw.stream.write_all(&out)?;
        let frame = raw.frame()?;
        raw.session = ConnectResponse::decode(&frame)?.session;
        Ok(raw)
    }

    fn frame(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(frame) = frame_in(&self.input, FRAME_BYTES_MAX)? {
                let frame = frame.to_vec();
                self.input.drain(..4 + frame.len());
                return Ok(frame);
            }
            let mut buffer = [0; 16 << 10];
            let count = self.stream.read(&mut buffer).context("read an answer")?;
            if count == 0 {
                bail!("closed by the server");
            }
            self.input.extend_from_slice(&buffer[..count]);
        }
    }

    /// Sends a record under any operation and waits for its answer; events on the way are kept.
    fn ask(&mut self, number: i32, op: i32, body: &[u8]) -> Result<Frame> {
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        RequestHeader { xid: number, op }.encode(&mut out);
        out.extend_from_slice(body);
        end_frame(&mut out, start);
        self.stream.write_all(&out)?;
        loop {
            let frame = self.frame()?;
            let mut reader = Reader::new(&frame);
            let header = ReplyHeader::decode(&mut reader)?;
            let body = reader.rest().to_vec();
            if header.xid != xid::NOTIFICATION {
                anyhow::ensure!(header.xid == number, "{header:?} in answer to {number}");
                return Ok(Frame { header, body });
            }
            let event = WatchedEvent::decode(&mut Reader::new(&body))?;
            self.events.push_back(format!("{:?} {}", event.kind, event.path));
        }
    }

    pub(crate) fn newest_zxid(&mut self) -> Result<Zxid> {
        let request = Request::Sync { path: "/".into() };
        Ok(self.send(&request)?.header.zxid)
    }

    fn send(&mut self, request: &Request<'_>) -> Result<Frame> {
        let mut body = Vec::new();
        request.encode(&mut body);
        let number = match request {
            Request::Auth { .. } => xid::AUTH,
            Request::SetWatches { .. } | Request::SetWatches2 { .. } => xid::SET_WATCHES,
            _ => {
                self.next_xid += 1;
                self.next_xid
            }
        };
        self.ask(number, request.op().code(), &body)
    }
}

/// Several sessions on one server.
pub(crate) struct Scene {
    pub(crate) sessions: Vec<Raw>,
    base: i64,
}

impl Scene {
    pub(crate) fn start(addr: &str, sessions: usize) -> Result<Self> {
        let mut sessions = (0..sessions).map(|_| Raw::connect(addr)).collect::<Result<Vec<_>>>()?;
        let base = sessions[0].newest_zxid()?.0;
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

    fn told(&self, op: OpCode, frame: &Frame) -> String {
        let mut reader = Reader::new(&frame.body);
        let mut told = format!("{} ", frame.header.error);
        // Of SASL some servers tell no zxid.
        if op != OpCode::Sasl {
            let _ = write!(told, "at {} ", self.zxid(frame.header.zxid));
        }
        match Response::decode(op, &mut reader) {
            _ if frame.header.error != 0 => {}
            Ok(response) => told.push_str(&self.response(&response)),
            Err(error) => told.push_str(&format!("undecodable: {error}")),
        }
        let rest = if frame.header.error == 0 { reader.rest() } else { &frame.body };
        if !rest.is_empty() {
            let _ = write!(told, " and {} bytes", rest.len());
        }
        told
    }

    /// What `request` of session `at` is answered, and the events that each session has by then.
    pub(crate) fn step(&mut self, at: usize, request: &Request<'_>) -> Result<String> {
        let answered = match self.sessions[at].send(request) {
            Ok(frame) => self.told(request.op(), &frame),
            Err(error) => {
                let told = format!("{error:#}");
                return Ok(told);
            }
        };
        let mut told = answered;
        for (at, raw) in self.sessions.iter_mut().enumerate() {
            // Of what was not told before a newer answer, nothing is to come.
            raw.newest_zxid()?;
            for event in raw.events.drain(..) {
                let _ = write!(told, " | {at}: {event}");
            }
        }
        Ok(told)
    }

    /// The same with any record under any operation.
    pub(crate) fn bytes(&mut self, at: usize, op: i32, body: &[u8]) -> Result<String> {
        let raw = &mut self.sessions[at];
        raw.next_xid += 1;
        let frame = raw.ask(raw.next_xid, op, body)?;
        let rest = frame.body.len();
        Ok(format!("{} at {} and {rest} bytes", frame.header.error, self.zxid(frame.header.zxid)))
    }
}
