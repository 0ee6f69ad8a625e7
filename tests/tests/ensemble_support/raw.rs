//! A session on one server, frame by frame: for what a proper client would not do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elkfk_wire::jute::{
    ConnectRequest, ConnectResponse, Reader, ReplyHeader, Request, RequestHeader, SessionId, Zxid,
    end_frame, frame_in, start_frame, xid,
};

const FRAME_BYTES_MAX: usize = 4 << 20;

/// How a client introduces itself.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) session: SessionId,
    pub(crate) password: Vec<u8>,
    pub(crate) seen: Zxid,
    pub(crate) timeout_ms: i32,
}

impl Offer {
    /// Asks for a new session.
    pub(crate) fn new(timeout_ms: i32) -> Self {
        Self { session: SessionId(0), password: vec![0; 16], seen: Zxid(0), timeout_ms }
    }
}

#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
    next_xid: i32,
    pub(crate) session: SessionId,
    pub(crate) password: Vec<u8>,
    /// 0: the session is over.
    pub(crate) timeout_ms: i32,
}

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) zxid: Zxid,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    /// Fails where the server closes the connection without an answer.
    pub(crate) fn open(addr: SocketAddr, offer: &Offer) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut raw = Self {
            stream,
            input: Vec::new(),
            next_xid: 0,
            session: SessionId(0),
            password: Vec::new(),
            timeout_ms: 0,
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
    pub(crate) fn offer(&self) -> Offer {
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
    pub(crate) fn send(&mut self, request: &Request<'_>) -> Result<i32> {
        let number = match request {
            Request::Auth { .. } => xid::AUTH,
            Request::Ping => xid::PING,
            _ => {
                self.next_xid += 1;
                self.next_xid
            }
        };
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        RequestHeader { xid: number, op: request.op().code() }.encode(&mut out);
        request.encode(&mut out);
        end_frame(&mut out, start);
        self.stream.write_all(&out)?;
        Ok(number)
    }

    /// Waits for the answer with this number; others, and events, are passed over.
    pub(crate) fn answer(&mut self, number: i32) -> Result<Answer> {
        loop {
            let frame = self.frame()?;
            let mut reader = Reader::new(&frame);
            let header = ReplyHeader::decode(&mut reader)?;
            if header.xid == number {
                let body = reader.rest().to_vec();
                return Ok(Answer { code: header.error, zxid: header.zxid, body });
            }
        }
    }

    pub(crate) fn ask(&mut self, request: &Request<'_>) -> Result<Answer> {
        let number = self.send(request)?;
        self.answer(number)
    }
}

/// What a server answers to a four-letter word; empty when it does not.
pub(crate) fn say(addr: SocketAddr, word: &str) -> String {
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
