//! The task of a session: one connection after another, until the session is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elkfk_wire::jute::{
    ConnectRequest, ConnectResponse, ErrorCode, EventState, OpCode, Reader, ReplyHeader, Request,
    RequestHeader, SessionId, WatchedEvent, Zxid, end_frame, frame_in, start_frame, xid,
};
use rand::Rng;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::client::{SessionState, Shared};
use crate::error::Error;
use crate::watch::{Change, WatchKind, Watches};

#[derive(Debug)]
pub(crate) enum Command {
    Call(Call),
    Auth { scheme: String, auth: Vec<u8>, reply: oneshot::Sender<Result<(), Error>> },
    End { tell_server: bool, done: oneshot::Sender<()> },
}

/// A request on its way, kept until it is answered.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) op: OpCode,
    pub(crate) body: Vec<u8>,
    /// The watch to set or to forget once the answer says that the server has done so; its path is the full one.
    pub(crate) watch: Option<(String, Change)>,
    pub(crate) reply: oneshot::Sender<Result<Reply, Error>>,
}

impl Call {
    /// Whether sending it twice does no harm.
    fn is_read(&self) -> bool {
        matches!(
            self.op,
            OpCode::Exists
                | OpCode::GetData
                | OpCode::GetAcl
                | OpCode::GetChildren
                | OpCode::GetChildren2
                | OpCode::Sync
                | OpCode::MultiRead
                | OpCode::GetEphemerals
                | OpCode::GetAllChildrenNumber
                | OpCode::WhoAmI
                | OpCode::AddWatch
        )
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    /// 0 where there was none.
    pub(crate) error: i32,
    /// The record after the header.
    pub(crate) body: Bytes,
}

/// Requests without an answer yet; more wait in the queue of commands.
const PENDING_MAX: usize = 4096;
/// Bytes not yet taken by the socket; more wait in the queue of commands.
const UNSENT_BYTES_MAX: usize = 1 << 20;
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Why a connection is over.
enum End {
    Lost(String),
    /// And the session with it.
    Over(Over),
}

/// Why a session is over.
enum Over {
    Expired,
    AuthFailed,
    /// Closed, abandoned, or nobody left to use it.
    Closed(Option<oneshot::Sender<()>>),
}

struct Session {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<SessionState>,
    watches: Watches,
    auth: Vec<(String, Vec<u8>)>,
    /// Reads of a broken connection, to be sent again, and after them what came while there was none.
    waiting: VecDeque<Call>,
}

pub(crate) async fn run(
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<SessionState>,
) {
    let auth = shared.config.auth.clone();
    let mut session = Session {
        shared,
        commands,
        state,
        watches: Watches::default(),
        auth,
        waiting: VecDeque::new(),
    };
    let (last, why, done) = match session.live().await {
        Over::Expired => (SessionState::Expired, EventState::Expired, None),
        Over::AuthFailed => (SessionState::AuthFailed, EventState::AuthFailed, None),
        Over::Closed(done) => (SessionState::Closed, EventState::Closed, done),
    };
    info!(session = %session.credentials().0.session, state = ?last, "coordinator session over");
    // Callers read the state to learn why their call was dropped: first the state, then the calls.
    session.state.send_replace(last);
    session.watches.end(why);
    if let Some(done) = done {
        let _ = done.send(());
    }
}

impl Session {
    fn credentials(&self) -> (crate::Credentials, Zxid) {
        self.shared.credentials.lock().expect("no panic while held").clone()
    }

    fn saw(&self, zxid: Zxid) {
        let mut credentials = self.shared.credentials.lock().expect("no panic while held");
        credentials.1 = credentials.1.max(zxid);
    }

    /// Connects and serves until the session is over.
    async fn live(&mut self) -> Over {
        let mut servers = self.shared.config.servers.clone();
        servers.shuffle(&mut rand::rng());
        let mut tried = 0usize;
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let server = servers[tried % servers.len()].clone();
            tried += 1;
            let connecting = Connection::open(self.shared.clone(), self.credentials(), &server);
            let end = match self.idle(connecting).await {
                Err(over) => return over,
                Ok(Ok(connection)) => {
                    back_off = FIRST_BACK_OFF;
                    self.serve(*connection, &server).await
                }
                Ok(Err(end)) => end,
            };
            let why = match end {
                End::Over(over) => return over,
                End::Lost(why) => why,
            };
            debug!(%server, why, "no connection to coordinator");
            self.state.send_modify(|state| {
                *state = match state {
                    SessionState::Connecting(_) => SessionState::Connecting(why),
                    _ => SessionState::Disconnected(why),
                };
            });
            // All servers in quick succession, then a pause that grows.
            if tried.is_multiple_of(servers.len()) {
                let pause = back_off.mul_f64(rand::rng().random_range(0.5..1.0));
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                if let Err(over) = self.idle(sleep(pause)).await {
                    return over;
                }
            }
        }
    }

    /// Awaits `work` without a connection, unless the client is closed meanwhile.
    async fn idle<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Over> {
        tokio::pin!(work);
        loop {
            let command = tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                command = self.commands.recv() => command,
            };
            match command {
                // Was not sent, so nothing is in doubt: but a queue must end somewhere.
                Some(Command::Call(call)) if self.waiting.len() >= PENDING_MAX => {
                    let _ = call.reply.send(Err(Error::ConnectionLost));
                }
                Some(Command::Call(call)) => self.waiting.push_back(call),
                // The next connection starts with it, and a refusal shows then.
                Some(Command::Auth { scheme, auth, reply }) => {
                    self.auth.push((scheme, auth));
                    let _ = reply.send(Ok(()));
                }
                Some(Command::End { done, .. }) => return Err(Over::Closed(Some(done))),
                None => return Err(Over::Closed(None)),
            }
        }
    }

    async fn serve(&mut self, mut connection: Connection, server: &str) -> End {
        let was_lost = matches!(*self.state.borrow(), SessionState::Disconnected(_));
        {
            let mut credentials = self.shared.credentials.lock().expect("no panic while held");
            credentials.0 = connection.credentials.clone();
        }
        for (scheme, auth) in self.auth.clone() {
            connection.send_auth(&scheme, &auth, None);
        }
        for request in self.watches.set_again(self.credentials().1) {
            connection.send(xid::SET_WATCHES, &request);
        }
        for call in self.waiting.drain(..) {
            connection.send_call(call);
        }
        let session = connection.credentials.session;
        let timeout_ms = connection.timeout.as_millis() as u64;
        info!(%session, server, timeout_ms, again = was_lost, "connected to coordinator");
        self.state.send_replace(SessionState::Connected { server: server.to_owned() });
        let end = self.exchange(&mut connection).await;
        if let End::Lost(why) = &end {
            warn!(%session, server, why, "connection to coordinator lost");
        }
        for (_, call) in connection.pending.drain(..) {
            let error = match &end {
                End::Lost(_) if call.is_read() => {
                    self.waiting.push_back(call);
                    continue;
                }
                End::Lost(_) => Error::ConnectionLost,
                End::Over(Over::Expired) => Error::SessionExpired,
                End::Over(Over::AuthFailed) => Error::AuthFailed,
                End::Over(Over::Closed(_)) => Error::Closed,
            };
            let _ = call.reply.send(Err(error));
        }
        end
    }

    /// Moves bytes both ways until something ends it.
    async fn exchange(&mut self, connection: &mut Connection) -> End {
        // As in Java's client: a third of the timeout is left to find another server.
        let read_limit = connection.timeout * 2 / 3;
        let ping_after = connection.timeout / 3;
        let (mut heard, mut spoke) = (Instant::now(), Instant::now());
        let mut closing: Option<Option<oneshot::Sender<()>>> = None;
        loop {
            let may_take = closing.is_none()
                && connection.pending.len() < PENDING_MAX
                && connection.unsent() < UNSENT_BYTES_MAX;
            let has_unsent = connection.unsent() > 0;
            let Connection { reader, writer, input, output, sent, .. } = connection;
            tokio::select! {
                read = reader.read_buf(input) => {
                    let failure = match read {
                        Ok(0) => Some("closed by the server".to_owned()),
                        Ok(_) => None,
                        Err(error) => Some(error.to_string()),
                    };
                    heard = Instant::now();
                    if let Some(why) = failure {
                        // A server that closes after our closeSession has done what we asked.
                        return match closing {
                            Some(done) => End::Over(Over::Closed(done)),
                            None => End::Lost(why),
                        };
                    }
                    match self.take_frames(connection) {
                        Ok(false) => {}
                        Ok(true) => return End::Over(Over::Closed(closing.flatten())),
                        Err(end) => return end,
                    }
                }
                written = writer.write(&output[*sent..]), if has_unsent => match written {
                    Ok(count) => {
                        *sent += count;
                        if *sent == output.len() {
                            output.clear();
                            *sent = 0;
                        }
                        spoke = Instant::now();
                    }
                    Err(error) => return End::Lost(error.to_string()),
                },
                command = self.commands.recv(), if may_take => match command {
                    Some(Command::Call(call)) => connection.send_call(call),
                    Some(Command::Auth { scheme, auth, reply }) => {
                        connection.send_auth(&scheme, &auth, Some(reply));
                        self.auth.push((scheme, auth));
                    }
                    Some(Command::End { tell_server: false, done }) => {
                        return End::Over(Over::Closed(Some(done)));
                    }
                    Some(Command::End { tell_server: true, done }) => {
                        closing = Some(Some(done));
                        connection.send_close();
                    }
                    None => {
                        closing = Some(None);
                        connection.send_close();
                    }
                },
                () = sleep_until(spoke + ping_after), if !has_unsent => {
                    connection.send(xid::PING, &Request::Ping);
                    spoke = Instant::now();
                }
                () = sleep_until(heard + read_limit) => {
                    let ms = read_limit.as_millis();
                    return match closing {
                        Some(done) => End::Over(Over::Closed(done)),
                        None => End::Lost(format!("nothing heard for {ms} ms")),
                    };
                }
            }
        }
    }

    /// Handles every whole frame; `true` once our closeSession was answered.
    fn take_frames(&mut self, connection: &mut Connection) -> Result<bool, End> {
        let limit = self.shared.config.reply_bytes_max;
        loop {
            let length = match frame_in(&connection.input, limit) {
                Ok(Some(frame)) => frame.len(),
                Ok(None) => return Ok(false),
                Err(error) => return Err(End::Lost(error.to_string())),
            };
            let frame = connection.input.split_to(4 + length).freeze().slice(4..);
            let mut reader = Reader::new(&frame);
            let header =
                ReplyHeader::decode(&mut reader).map_err(|error| End::Lost(error.to_string()))?;
            let body = frame.slice_ref(reader.rest());
            match header.xid {
                xid::NOTIFICATION => match WatchedEvent::decode(&mut reader) {
                    Ok(event) => self.watches.fire(&event, &self.shared.config.chroot),
                    Err(error) => warn!(%error, "unknown watch event"),
                },
                xid::PING => {}
                xid::AUTH => {
                    let waiting = connection.pending_auth.pop_front().flatten();
                    let is_refused = header.error != 0;
                    if let Some(reply) = waiting {
                        let _ =
                            reply.send(if is_refused { Err(Error::AuthFailed) } else { Ok(()) });
                    }
                    if is_refused {
                        return Err(End::Over(Over::AuthFailed));
                    }
                }
                xid::SET_WATCHES if header.error == 0 => {}
                // Without its watches this client would wait for ever: take another connection.
                xid::SET_WATCHES => return Err(End::Lost("watches were not set again".into())),
                number => {
                    self.saw(header.zxid);
                    if connection.close_xid == Some(number) {
                        return Ok(true);
                    }
                    self.answer(connection, number, header.error, body)?;
                }
            }
        }
    }

    fn answer(
        &mut self,
        connection: &mut Connection,
        number: i32,
        error: i32,
        body: Bytes,
    ) -> Result<(), End> {
        let Some((expected, call)) = connection.pending.pop_front() else {
            return Err(End::Lost(format!("answer to {number}, which was not asked")));
        };
        if number != expected {
            connection.pending.push_front((expected, call));
            return Err(End::Lost(format!("answer to {number}, expected {expected}")));
        }
        let is_missing = error == ErrorCode::NoNode.code();
        match call.watch {
            Some((path, Change::Once(WatchKind::Exist, sender))) if error == 0 => {
                self.watches.add(WatchKind::Data, path, sender);
            }
            Some((path, Change::Once(kind, sender)))
                if error == 0 || (is_missing && kind == WatchKind::Exist) =>
            {
                self.watches.add(kind, path, sender);
            }
            Some((path, Change::Each(mode, sender))) if error == 0 => {
                self.watches.add_each(mode, path, sender);
            }
            Some((path, Change::Forget(mode))) => self.watches.forget(mode, path),
            _ => {}
        }
        let _ = call.reply.send(Ok(Reply { error, body }));
        Ok(())
    }
}

struct Connection {
    reader: tokio::net::tcp::OwnedReadHalf,
    writer: tokio::net::tcp::OwnedWriteHalf,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of `output` the socket took.
    sent: usize,
    credentials: crate::Credentials,
    timeout: Duration,
    next_xid: i32,
    /// With their numbers, in the order they were sent, which is that of the answers.
    pending: VecDeque<(i32, Call)>,
    pending_auth: VecDeque<Option<oneshot::Sender<Result<(), Error>>>>,
    close_xid: Option<i32>,
}

impl Connection {
    async fn open(
        shared: Arc<Shared>,
        (credentials, last_zxid_seen): (crate::Credentials, Zxid),
        server: &str,
    ) -> Result<Box<Self>, End> {
        let config = &shared.config;
        let limit = config.session_timeout / config.servers.len() as u32;
        let lost = |what: &str| End::Lost(format!("{server}: {what}"));
        let opening = async {
            let stream =
                TcpStream::connect(server).await.map_err(|error| lost(&error.to_string()))?;
            // Requests are small and each waits for an answer: never hold one back for more.
            let _ = stream.set_nodelay(true);
            let (mut reader, mut writer) = stream.into_split();
            let mut output = Vec::new();
            let start = start_frame(&mut output);
            ConnectRequest {
                protocol_version: 0,
                last_zxid_seen,
                timeout_ms: i32::try_from(config.session_timeout.as_millis()).unwrap_or(i32::MAX),
                session: credentials.session,
                password: &credentials.password,
                read_only: Some(false),
            }
            .encode(&mut output);
            end_frame(&mut output, start);
            writer.write_all(&output).await.map_err(|error| lost(&error.to_string()))?;
            let mut input = BytesMut::new();
            let length = loop {
                match frame_in(&input, config.reply_bytes_max) {
                    Ok(Some(frame)) => break frame.len(),
                    Ok(None) => {}
                    Err(error) => return Err(lost(&error.to_string())),
                }
                match reader.read_buf(&mut input).await {
                    Ok(0) => return Err(lost("closed by the server before an answer")),
                    Ok(_) => {}
                    Err(error) => return Err(lost(&error.to_string())),
                }
            };
            let frame = input.split_to(4 + length).freeze();
            let response =
                ConnectResponse::decode(&frame[4..]).map_err(|error| lost(&error.to_string()))?;
            if response.timeout_ms <= 0 || response.session == SessionId(0) {
                return Err(End::Over(Over::Expired));
            }
            output.clear();
            Ok(Box::new(Self {
                reader,
                writer,
                input,
                output,
                sent: 0,
                credentials: crate::Credentials {
                    session: response.session,
                    password: response.password.to_vec(),
                },
                timeout: Duration::from_millis(response.timeout_ms.unsigned_abs().into()),
                next_xid: 1,
                pending: VecDeque::new(),
                pending_auth: VecDeque::new(),
                close_xid: None,
            }))
        };
        match timeout(limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(lost(&format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    fn send(&mut self, number: i32, request: &Request<'_>) {
        let start = start_frame(&mut self.output);
        RequestHeader { xid: number, op: request.op().code() }.encode(&mut self.output);
        request.encode(&mut self.output);
        end_frame(&mut self.output, start);
    }

    fn take_xid(&mut self) -> i32 {
        let number = self.next_xid;
        // The negative ones have meanings of their own.
        self.next_xid = number.checked_add(1).unwrap_or(1);
        number
    }

    fn send_call(&mut self, call: Call) {
        let number = self.take_xid();
        let start = start_frame(&mut self.output);
        RequestHeader { xid: number, op: call.op.code() }.encode(&mut self.output);
        self.output.extend_from_slice(&call.body);
        end_frame(&mut self.output, start);
        self.pending.push_back((number, call));
    }

    fn send_auth(
        &mut self,
        scheme: &str,
        auth: &[u8],
        reply: Option<oneshot::Sender<Result<(), Error>>>,
    ) {
        let request = Request::Auth { scheme: scheme.into(), auth: Some(auth.into()) };
        self.send(xid::AUTH, &request);
        self.pending_auth.push_back(reply);
    }

    fn send_close(&mut self) {
        let number = self.take_xid();
        self.send(number, &Request::CloseSession);
        self.close_xid = Some(number);
    }
}
