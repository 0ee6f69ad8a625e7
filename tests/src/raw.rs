//! A session on one server, frame by frame: for what a proper client would not do.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elkfk_wire::jute::{
    ConnectRequest, ConnectResponse, EventKind, Reader, ReplyHeader, Request, RequestHeader,
    SessionId, WatchedEvent, Zxid, end_frame, frame_in, start_frame, xid,
};

const FRAME_BYTES_MAX: usize = 4 << 20;

/// How a client introduces itself.
#[derive(Debug, Clone)]
pub struct Offer {
    pub session: SessionId,
    pub password: Vec<u8>,
    pub seen: Zxid,
    pub timeout_ms: i32,
}

impl Offer {
    /// Asks for a new session.
    pub fn new(timeout_ms: i32) -> Self {
        Self { session: SessionId(0), password: vec![0; 16], seen: Zxid(0), timeout_ms }
    }
}

#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
    next_xid: i32,
    pub session: SessionId,
    pub password: Vec<u8>,
    /// 0: the session is over.
    pub timeout_ms: i32,
    /// Those that came before the last answer, the oldest first.
    pub events: VecDeque<(EventKind, String)>,
}

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub zxid: Zxid,
    pub body: Vec<u8>,
}

impl Raw {
    /// Fails where the server closes the connection without an answer.
    pub fn open(addr: SocketAddr, offer: &Offer) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        let mut raw = Self {
            stream,
            input: Vec::new(),
            next_xid: 0,
            session: SessionId(0),
            password: Vec::new(),
            timeout_ms: 0,
            events: VecDeque::new(),
        };
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: offer.seen,
            timeout_ms: offer.timeout_ms,
            session: offer.session,
            password: &offer.password,
            read_only: Some(false),
        }
        .encode(&mut out);
        end_frame(&mut out, start);
        raw.stream.write_all(&out)?;
        let frame = raw.frame()?;
        let granted = ConnectResponse::decode(&frame)?;
        (raw.session, raw.timeout_ms) = (granted.session, granted.timeout_ms);
        raw.password = granted.password.to_vec();
        Ok(raw)
    }

    /// What goes on with this session elsewhere.
    pub fn offer(&self) -> Offer {
        Offer {
            session: self.session,
            password: self.password.clone(),
            seen: Zxid(0),
            timeout_ms: self.timeout_ms,
        }
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
            ensure!(count > 0, "closed by the server");
            self.input.extend_from_slice(&buffer[..count]);
        }
    }

    /// Sends a request without waiting; returns the number its answer will have.
    pub fn send(&mut self, request: &Request<'_>) -> Result<i32> {
        let mut body = Vec::new();
        request.encode(&mut body);
        let number = match request {
            Request::Auth { .. } => Some(xid::AUTH),
            Request::Ping => Some(xid::PING),
            Request::SetWatches { .. } | Request::SetWatches2 { .. } => Some(xid::SET_WATCHES),
            _ => None,
        };
        self.send_bytes(number, request.op().code(), &body)
    }

    /// The same with any record under any operation; without a number it takes the next.
    pub fn send_bytes(&mut self, number: Option<i32>, op: i32, body: &[u8]) -> Result<i32> {
        let number = number.unwrap_or_else(|| {
            self.next_xid += 1;
            self.next_xid
        });
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        RequestHeader { xid: number, op }.encode(&mut out);
        out.extend_from_slice(body);
        end_frame(&mut out, start);
        self.stream.write_all(&out)?;
        Ok(number)
    }

    /// Waits for the answer with this number, which is to be the next; events on the way are kept.
    pub fn answer(&mut self, number: i32) -> Result<Answer> {
        loop {
            let frame = self.frame()?;
            let mut reader = Reader::new(&frame);
            let header = ReplyHeader::decode(&mut reader)?;
            let body = reader.rest().to_vec();
            if header.xid != xid::NOTIFICATION {
                ensure!(header.xid == number, "{header:?} in answer to {number}");
                return Ok(Answer { code: header.error, zxid: header.zxid, body });
            }
            let event = WatchedEvent::decode(&mut Reader::new(&body))?;
            self.events.push_back((event.kind, event.path.into_owned()));
        }
    }

    pub fn ask(&mut self, request: &Request<'_>) -> Result<Answer> {
        let number = self.send(request)?;
        self.answer(number)
    }
}

/// What a server answers to a four-letter word; empty when it does not.
pub fn say(addr: SocketAddr, word: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().unwrap_or_default()
}
