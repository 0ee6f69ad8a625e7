//! The calls a session offers.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use elkfk_wire::jute::{
    self, Acl, CreateKind, ErrorCode, OpCode, Reader, Request, Response, SessionId, Stat, Zxid,
    check_path, create_flags,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Config, Credentials};
use crate::connection::{self, Call, Command, Reply};
use crate::error::Error;
use crate::multi::{Op, OpResult};
use crate::read::{Read, ReadResult};
use crate::watch::{Change, EVENTS_QUEUED_MAX, PersistentWatch, Watch, WatchKind, WatchMode};

/// How long a znode lives and how its name ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreateMode {
    Persistent,
    /// Goes with the session.
    Ephemeral,
    /// Its name ends in ten digits, larger than those of its elder siblings.
    PersistentSequential,
    EphemeralSequential,
    /// Goes some time after its last child has gone.
    Container,
    /// Goes when it has no child and nothing was set in it for that long; 34 years at most.
    PersistentWithTtl {
        ttl_ms: i64,
    },
    PersistentSequentialWithTtl {
        ttl_ms: i64,
    },
}

impl CreateMode {
    pub(crate) fn flags(self) -> i32 {
        match self {
            Self::Persistent => create_flags::PERSISTENT,
            Self::Ephemeral => create_flags::EPHEMERAL,
            Self::PersistentSequential => create_flags::PERSISTENT_SEQUENTIAL,
            Self::EphemeralSequential => create_flags::EPHEMERAL_SEQUENTIAL,
            Self::Container => create_flags::CONTAINER,
            Self::PersistentWithTtl { .. } => create_flags::PERSISTENT_WITH_TTL,
            Self::PersistentSequentialWithTtl { .. } => {
                create_flags::PERSISTENT_SEQUENTIAL_WITH_TTL
            }
        }
    }

    /// The operation it takes, where `plain` will do for the common ones; and the time to live.
    pub(crate) fn kind(self, plain: CreateKind) -> (CreateKind, i64) {
        match self {
            Self::Container => (CreateKind::Container, 0),
            Self::PersistentWithTtl { ttl_ms } | Self::PersistentSequentialWithTtl { ttl_ms } => {
                (CreateKind::Ttl, ttl_ms)
            }
            _ => (plain, 0),
        }
    }
}

/// Where the session stands. The last three are final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Not connected yet; holds why the last attempt failed, or nothing.
    Connecting(String),
    Connected {
        server: String,
    },
    /// The connection broke; the session may still live.
    Disconnected(String),
    Expired,
    AuthFailed,
    Closed,
}

impl SessionState {
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Expired | Self::AuthFailed | Self::Closed)
    }
}

/// Calls that may wait between callers and the connection; a full queue makes callers wait.
const CALLS_QUEUED_MAX: usize = 256;

/// One session. Clones share it; when the last one is dropped it is closed, and its ephemerals go.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<SessionState>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) credentials: Mutex<(Credentials, Zxid)>,
}

impl Client {
    /// Starts a session and returns at once; calls wait until it is connected.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: Config) -> Self {
        let credentials = config
            .resume
            .clone()
            .unwrap_or(Credentials { session: SessionId(0), password: vec![0; 16] });
        let shared = Arc::new(Shared { config, credentials: Mutex::new((credentials, Zxid(0))) });
        let (commands, queue) = mpsc::channel(CALLS_QUEUED_MAX);
        let (told, state) = watch::channel(SessionState::Connecting(String::new()));
        tokio::spawn(connection::run(shared.clone(), queue, told));
        Self { commands, state, shared }
    }

    /// Starts a session and waits for its first connection, up to `connect_timeout`.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let (servers, limit) = (config.servers.join(","), config.connect_timeout);
        let client = Self::start(config);
        let mut state = client.state.clone();
        let connected = state
            .wait_for(|state| matches!(state, SessionState::Connected { .. }) || state.is_over());
        match tokio::time::timeout(limit, connected).await.map(|state| state.map(|s| s.clone())) {
            Ok(Ok(SessionState::Expired)) => Err(Error::SessionExpired),
            Ok(Ok(SessionState::AuthFailed)) => Err(Error::AuthFailed),
            Ok(Ok(SessionState::Connected { .. })) => Ok(client),
            Ok(_) => Err(Error::Closed),
            Err(_) => {
                let last = match &*client.state.borrow() {
                    SessionState::Connecting(why) | SessionState::Disconnected(why) => why.clone(),
                    _ => String::new(),
                };
                Err(Error::NoConnection { servers, waited_ms: limit.as_millis(), last })
            }
        }
    }

    /// The state, and each of its changes; those that follow fast may be seen as one.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// 0 before the first connection.
    pub fn session_id(&self) -> SessionId {
        self.credentials().session
    }

    /// What another client needs to go on with this session; see [`Config::resume`].
    pub fn credentials(&self) -> Credentials {
        self.shared.credentials.lock().expect("no panic while held").0.clone()
    }

    /// The newest change this session has seen.
    pub fn last_zxid(&self) -> Zxid {
        self.shared.credentials.lock().expect("no panic while held").1
    }

    /// Creates a znode open to everyone and returns its path, which differs from `path` only where
    /// `mode` is sequential.
    pub async fn create(
        &self,
        path: &str,
        data: impl AsRef<[u8]>,
        mode: CreateMode,
    ) -> Result<String, Error> {
        self.create_with(path, Some(data.as_ref()), &[Acl::OPEN], mode).await.map(|(path, _)| path)
    }

    /// Creates a znode (create2): its path and stat. `data` `None` is kept apart from empty.
    pub async fn create_with(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl<'static>],
        mode: CreateMode,
    ) -> Result<(String, Stat), Error> {
        let (kind, ttl_ms) = mode.kind(CreateKind::Create2);
        let request = Request::Create {
            kind,
            path: self.full_path(path, mode)?,
            data: data.map(Cow::Borrowed),
            acl: Some(acl.to_vec()),
            flags: mode.flags(),
            ttl_ms,
        };
        let reply = self.call(&request, path, None).await?;
        match reply.response(OpCode::Create2)? {
            Response::PathAndStat(created, stat) => Ok((self.known_path(&created), stat)),
            other => unreachable_response(&other),
        }
    }

    /// Creates `path` and whatever is missing above it; what exists already is left as it is.
    pub async fn create_all(&self, path: &str) -> Result<(), Error> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        for end in ends {
            match self.create(&path[..end], [], CreateMode::Persistent).await {
                Ok(_) => {}
                Err(error) if error.is_node_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// `version` `None` deletes whatever the version is.
    pub async fn delete(&self, path: &str, version: Option<i32>) -> Result<(), Error> {
        let request = Request::Delete { path: self.full(path)?, version: version.unwrap_or(-1) };
        self.call(&request, path, None).await.map(drop)
    }

    /// `None` where there is no such znode.
    pub async fn exists(&self, path: &str) -> Result<Option<Stat>, Error> {
        self.exists_with(path, None).await
    }

    /// The watch fires on creation, deletion and change of data.
    pub async fn exists_watch(&self, path: &str) -> Result<(Option<Stat>, Watch), Error> {
        let (sender, fired) = oneshot::channel();
        Ok((self.exists_with(path, Some(sender)).await?, Watch { fired }))
    }

    async fn exists_with(
        &self,
        path: &str,
        sender: Option<oneshot::Sender<jute::WatchedEvent<'static>>>,
    ) -> Result<Option<Stat>, Error> {
        let request = Request::Exists { path: self.full(path)?, watch: sender.is_some() };
        let watch = sender.map(|sender| Change::Once(WatchKind::Exist, sender));
        match self.call(&request, path, watch).await {
            Ok(reply) => reply.stat().map(Some),
            Err(error) if error.is_no_node() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Data and stat; null data reads as empty.
    pub async fn get(&self, path: &str) -> Result<(Bytes, Stat), Error> {
        let request = Request::GetData { path: self.full(path)?, watch: false };
        self.call(&request, path, None).await?.data()
    }

    /// The watch fires on change of data and deletion.
    pub async fn get_watch(&self, path: &str) -> Result<(Bytes, Stat, Watch), Error> {
        let (sender, fired) = oneshot::channel();
        let request = Request::GetData { path: self.full(path)?, watch: true };
        let reply = self.call(&request, path, Some(Change::Once(WatchKind::Data, sender))).await?;
        let (data, stat) = reply.data()?;
        Ok((data, stat, Watch { fired }))
    }

    /// `version` `None` sets whatever the version is.
    pub async fn set(
        &self,
        path: &str,
        data: impl AsRef<[u8]>,
        version: Option<i32>,
    ) -> Result<Stat, Error> {
        let request = Request::SetData {
            path: self.full(path)?,
            data: Some(Cow::Borrowed(data.as_ref())),
            version: version.unwrap_or(-1),
        };
        self.call(&request, path, None).await?.stat()
    }

    /// Names of the children, in no order, and the stat of their parent.
    pub async fn children(&self, path: &str) -> Result<(Vec<String>, Stat), Error> {
        let request = Request::GetChildren2 { path: self.full(path)?, watch: false };
        self.call(&request, path, None).await?.children()
    }

    /// The watch fires when a child comes or goes, and when `path` itself goes.
    pub async fn children_watch(&self, path: &str) -> Result<(Vec<String>, Stat, Watch), Error> {
        let (sender, fired) = oneshot::channel();
        let request = Request::GetChildren2 { path: self.full(path)?, watch: true };
        let reply = self.call(&request, path, Some(Change::Once(WatchKind::Child, sender))).await?;
        let (children, stat) = reply.children()?;
        Ok((children, stat, Watch { fired }))
    }

    pub async fn get_acl(&self, path: &str) -> Result<(Vec<Acl<'static>>, Stat), Error> {
        let request = Request::GetAcl { path: self.full(path)? };
        let reply = self.call(&request, path, None).await?;
        match reply.response(OpCode::GetAcl)? {
            Response::Acl(acl, stat) => Ok((acl.into_iter().map(Acl::into_owned).collect(), stat)),
            other => unreachable_response(&other),
        }
    }

    /// `version` is that of the ACL, `aversion` in the stat.
    pub async fn set_acl(
        &self,
        path: &str,
        acl: &[Acl<'static>],
        version: Option<i32>,
    ) -> Result<Stat, Error> {
        let request = Request::SetAcl {
            path: self.full(path)?,
            acl: Some(acl.to_vec()),
            version: version.unwrap_or(-1),
        };
        self.call(&request, path, None).await?.stat()
    }

    /// Returns once this session's server has every change that was acknowledged before the call.
    pub async fn sync(&self, path: &str) -> Result<(), Error> {
        let request = Request::Sync { path: self.full(path)? };
        self.call(&request, path, None).await.map(drop)
    }

    /// Whether `path` exists in `version`, now; [`Error::is_bad_version`] where not.
    pub async fn check(&self, path: &str, version: Option<i32>) -> Result<(), Error> {
        self.multi(&[Op::check(path, version)]).await.map(drop)
    }

    /// Does all of `ops` under one zxid, or none.
    ///
    /// # Errors
    /// [`Error::Multi`] names the operation that failed the others.
    pub async fn multi(&self, ops: &[Op]) -> Result<Vec<OpResult>, Error> {
        let mut requests = Vec::with_capacity(ops.len());
        for op in ops {
            let path = match op {
                Op::Create { path, mode, .. } => self.full_path(path, *mode)?,
                _ => self.full(op.path())?,
            };
            requests.push(op.request(path));
        }
        let reply = self.call(&Request::Multi(requests), "", None).await?;
        let Response::Multi(results) = reply.response(OpCode::Multi)? else {
            return Err(Error::Malformed(jute::DecodeError::Operation(OpCode::Multi.code())));
        };
        let refused = |code: i32| {
            ErrorCode::from_code(code).filter(|code| *code != ErrorCode::RuntimeInconsistency)
        };
        let mut done = Vec::with_capacity(results.len());
        let mut is_failed = results.len() != ops.len();
        for (index, (result, op)) in results.into_iter().zip(ops).enumerate() {
            done.push(match result {
                jute::OpResult::Error(code) => {
                    if let Some(code) = refused(code) {
                        let path = op.path().to_owned();
                        let op = op.request(Cow::Borrowed("")).op().name();
                        return Err(Error::Multi { index, op, path, code });
                    }
                    is_failed = true;
                    continue;
                }
                jute::OpResult::Ok(_, Response::Path(path) | Response::PathAndStat(path, _)) => {
                    OpResult::Created { path: self.known_path(&path) }
                }
                jute::OpResult::Ok(_, Response::Stat(stat)) => OpResult::Set(stat),
                jute::OpResult::Ok(OpCode::Check, _) => OpResult::Checked,
                jute::OpResult::Ok(..) => OpResult::Deleted,
            });
        }
        if is_failed {
            return Err(Error::Malformed(jute::DecodeError::Operation(OpCode::Multi.code())));
        }
        Ok(done)
    }

    /// Watches `path` until the watch is dropped or forgotten; whether it exists does not matter.
    /// Of what the session may not read nothing is told. A server before 3.6 refuses it.
    pub async fn add_watch(&self, path: &str, mode: WatchMode) -> Result<PersistentWatch, Error> {
        let (sender, events) = mpsc::channel(EVENTS_QUEUED_MAX);
        let request = Request::AddWatch { path: self.full(path)?, mode: mode.code() };
        self.call(&request, path, Some(Change::Each(mode, sender))).await?;
        Ok(PersistentWatch { events })
    }

    /// Ends all watches of this path and mode, here and on the server.
    pub async fn forget_watch(&self, path: &str, mode: WatchMode) -> Result<(), Error> {
        let request = Request::RemoveWatches { path: self.full(path)?, kind: mode.removal() };
        self.call(&request, path, Some(Change::Forget(mode))).await.map(drop)
    }

    /// Reads several znodes at one moment; each succeeds or fails by itself.
    ///
    /// # Errors
    /// Only of the call as a whole; a server before 3.6 refuses it.
    pub async fn multi_read(
        &self,
        reads: &[Read],
    ) -> Result<Vec<Result<ReadResult, ErrorCode>>, Error> {
        let requests = reads.iter().map(|read| read.request(|path| self.full(path)));
        let request = Request::MultiRead(requests.collect::<Result<_, _>>()?);
        let reply = self.call(&request, "", None).await?;
        match reply.response(OpCode::MultiRead)? {
            Response::Multi(results) => results.into_iter().map(ReadResult::of).collect(),
            other => unreachable_response(&other),
        }
    }

    /// How many znodes are below `path`, to any depth.
    pub async fn all_children_number(&self, path: &str) -> Result<i32, Error> {
        let request = Request::GetAllChildrenNumber { path: self.full(path)? };
        let reply = self.call(&request, path, None).await?;
        match reply.response(OpCode::GetAllChildrenNumber)? {
            Response::Number(number) => Ok(number),
            other => unreachable_response(&other),
        }
    }

    /// This session's ephemerals whose paths start with the text `prefix`, in no order.
    pub async fn ephemerals(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let prefix = format!("{}{prefix}", self.shared.config.chroot);
        let request = Request::GetEphemerals { prefix: prefix.into() };
        let reply = self.call(&request, "", None).await?;
        match reply.response(OpCode::GetEphemerals)? {
            Response::Strings(paths) => {
                Ok(paths.iter().map(|path| self.known_path(path)).collect())
            }
            other => unreachable_response(&other),
        }
    }

    /// Scheme and user of everything this connection has authenticated as, its address included.
    pub async fn who_am_i(&self) -> Result<Vec<(String, String)>, Error> {
        let reply = self.call(&Request::WhoAmI, "", None).await?;
        match reply.response(OpCode::WhoAmI)? {
            Response::Identities(identities) => Ok(identities
                .into_iter()
                .map(|(scheme, user)| (scheme.into_owned(), user.into_owned()))
                .collect()),
            other => unreachable_response(&other),
        }
    }

    /// Authenticates this session, on later connections too. A refusal ends the session.
    pub async fn add_auth(&self, scheme: &str, auth: &[u8]) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Auth { scheme: scheme.to_owned(), auth: auth.to_owned(), reply };
        self.commands.send(command).await.map_err(|_| self.over())?;
        answer.await.map_err(|_| self.over())?
    }

    /// Ends the session, and with it its ephemerals, after the calls made before.
    ///
    /// While no server is connected it returns at once, and the session ends by its timeout.
    pub async fn close(&self) {
        self.end(true).await;
    }

    /// Lets go of the connection without ending the session: it can be resumed until it expires.
    pub async fn abandon(&self) {
        self.end(false).await;
    }

    async fn end(&self, tell_server: bool) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::End { tell_server, done }).await.is_ok() {
            let _ = ended.await;
        }
    }

    async fn call(
        &self,
        request: &Request<'_>,
        path: &str,
        watch: Option<Change>,
    ) -> Result<Reply, Error> {
        let op = request.op();
        let (reply, answer) = oneshot::channel();
        let mut body = Vec::new();
        request.encode(&mut body);
        let watch = match watch {
            Some(change) => Some((self.full(path)?.into_owned(), change)),
            None => None,
        };
        let call = Call { op, body, watch, reply };
        self.commands.send(Command::Call(call)).await.map_err(|_| self.over())?;
        let reply = answer.await.map_err(|_| self.over())??;
        match ErrorCode::from_code(reply.error) {
            None => Ok(reply),
            Some(code) => Err(Error::Refused { op: op.name(), path: path.to_owned(), code }),
        }
    }

    /// Why there is no connection task any more.
    fn over(&self) -> Error {
        match &*self.state.borrow() {
            SessionState::Expired => Error::SessionExpired,
            SessionState::AuthFailed => Error::AuthFailed,
            _ => Error::Closed,
        }
    }

    /// A sequential name may be nothing but its digits, so such a path may end in a slash.
    fn full_path<'a>(&self, path: &'a str, mode: CreateMode) -> Result<Cow<'a, str>, Error> {
        match mode {
            CreateMode::PersistentSequential
            | CreateMode::EphemeralSequential
            | CreateMode::PersistentSequentialWithTtl { .. }
                if path.ends_with('/') =>
            {
                let parent = path.trim_end_matches('/');
                let parent = if parent.is_empty() { "/" } else { parent };
                let full = self.full(parent)?.into_owned();
                Ok(Cow::Owned(if full == "/" { full } else { full + "/" }))
            }
            _ => self.full(path),
        }
    }

    fn full<'a>(&self, path: &'a str) -> Result<Cow<'a, str>, Error> {
        check_path(path).map_err(|source| Error::Path { path: path.to_owned(), source })?;
        let chroot = &self.shared.config.chroot;
        Ok(match (chroot.is_empty(), path) {
            (true, _) => Cow::Borrowed(path),
            (false, "/") => Cow::Owned(chroot.clone()),
            (false, _) => Cow::Owned(format!("{chroot}{path}")),
        })
    }

    fn known_path(&self, full: &str) -> String {
        full.strip_prefix(self.shared.config.chroot.as_str()).unwrap_or(full).to_owned()
    }
}

impl Reply {
    fn response(&self, op: OpCode) -> Result<Response<'_>, Error> {
        Ok(Response::decode(op, &mut Reader::new(&self.body))?)
    }

    fn stat(&self) -> Result<Stat, Error> {
        Ok(Stat::decode(&mut Reader::new(&self.body))?)
    }

    fn data(&self) -> Result<(Bytes, Stat), Error> {
        match self.response(OpCode::GetData)? {
            Response::Data(Some(Cow::Borrowed(data)), stat) => {
                Ok((self.body.slice_ref(data), stat))
            }
            Response::Data(_, stat) => Ok((Bytes::new(), stat)),
            other => unreachable_response(&other),
        }
    }

    fn children(&self) -> Result<(Vec<String>, Stat), Error> {
        match self.response(OpCode::GetChildren2)? {
            Response::Children2(children, stat) => {
                Ok((children.into_iter().map(Cow::into_owned).collect(), stat))
            }
            other => unreachable_response(&other),
        }
    }
}

/// `Response::decode` gives each operation its own variant; anything else is a bug of this file,
/// but one that need not take the caller down.
fn unreachable_response<T>(response: &Response<'_>) -> Result<T, Error> {
    debug_assert!(false, "decoded as {response:?}");
    Err(Error::Malformed(jute::DecodeError::Operation(0)))
}
