//! The task that owns a server's state: it alone decides, and everything else brings to it or
//! takes from it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use elkfk_base::Tasks;
use elkfk_wire::jute::ConnectRequest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::link::{Input, Link, Shared};
use super::peer::{PeerInput, Peers};
use super::words;
use super::writer::{LogTask, Notice, write_snapshot};
use crate::config::Config;
use crate::consensus::{Consensus, Members};
use crate::replica::{LogWork, PeerMessage, Replica};
use crate::service::{ConnectionId, Now};
use crate::wal::disk::Directory;

/// Elections and sessions are looked after this often.
const TICK: Duration = Duration::from_millis(50);
/// Inputs handled before the log and the clients get their share.
const INPUTS_MAX: usize = 256;
const IMAGE_PIECE_BYTES: usize = 128 << 10;
/// Pieces of an image on their way to the disk.
const IMAGE_PIECES_MAX: usize = 4;
/// A snapshot is due when the log has grown by this much since the last one.
const LOG_BYTES_PER_SNAPSHOT: u64 = 64 << 20;
/// After a snapshot that failed.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(60);
const CONTAINER_SWEEP: Duration = Duration::from_secs(60);
/// How long a leader that stops waits for another to take over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
/// Tasks for the log beside its batches.
pub(super) const LOG_TASKS_MAX: usize = 256;

pub(super) struct Node<C> {
    pub(super) replica: Replica<C>,
    /// `None` for a server that stands alone.
    pub(super) peers: Option<Arc<Peers>>,
    pub(super) peer_inputs: mpsc::Receiver<PeerInput>,
    pub(super) config: Arc<Config>,
    pub(super) shared: Arc<Shared>,
    pub(super) port: u16,
    pub(super) tasks: Tasks,
    pub(super) log: SyncSender<LogTask>,
    pub(super) notices: mpsc::Receiver<Notice>,
    /// For the threads of snapshots; the log's thread holds the channel open.
    pub(super) notifier: mpsc::WeakSender<Notice>,
    pub(super) failed: watch::Sender<Option<String>>,
    pub(super) links: HashMap<ConnectionId, Arc<Link>>,
    pub(super) snapshot: SnapshotState,
    pub(super) log_bytes: u64,
    /// The service's clock counts from here.
    pub(super) epoch: Instant,
}

/// Where the snapshots stand.
#[derive(Debug, Default)]
pub(super) struct SnapshotState {
    /// Takes the pieces of the one being written.
    pieces: Option<mpsc::Sender<(Vec<u8>, bool)>>,
    /// Whether a thread is still at it.
    is_writing: bool,
    /// What the one being written is the state of.
    state: Option<(u64, Members)>,
    /// Of the newest one.
    pub(super) index: u64,
    pub(super) bytes: u64,
    logged_bytes: u64,
    not_before: Option<Instant>,
    /// The next one comes up to half as early as it may, by chance, as ZooKeeper's do: else all servers
    /// of an ensemble would write theirs at once.
    early: f64,
}

impl SnapshotState {
    pub(super) fn new() -> Self {
        Self { early: early(), ..Self::default() }
    }
}

fn early() -> f64 {
    rand::random_range(0.0..0.5)
}

impl<C: Consensus> Node<C> {
    fn now(&self) -> Now {
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        // From 1 on: 0 stands for "never".
        let steady_ms = self.epoch.elapsed().as_millis() as u64 + 1;
        Now { steady_ms, wall_ms: wall.as_millis() as i64 }
    }

    /// Runs until it is told to stop or the log fails. `ready` is told once clients can be served.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        ready: oneshot::Sender<()>,
        stop: CancellationToken,
    ) {
        let mut ready = Some(ready);
        let mut is_failed = false;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        loop {
            let room = self.snapshot.pieces.clone();
            tokio::select! {
                () = stop.cancelled() => break,
                input = inputs.recv() => {
                    let Some(input) = input else { break };
                    self.replica.set_now(self.now());
                    self.input(input);
                    for _ in 1..INPUTS_MAX {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.input(input);
                    }
                }
                Some(input) = self.peer_inputs.recv() => {
                    self.replica.set_now(self.now());
                    self.peer_input(input);
                    for _ in 1..INPUTS_MAX {
                        let Ok(input) = self.peer_inputs.try_recv() else { break };
                        self.peer_input(input);
                    }
                }
                notice = self.notices.recv() => {
                    self.replica.set_now(self.now());
                    let noticed = match notice {
                        Some(notice) => self.notice(notice),
                        None => Err("the log's thread has ended".to_owned()),
                    };
                    if let Err(why) = noticed {
                        self.failed.send_replace(Some(why));
                        is_failed = true;
                        break;
                    }
                }
                _ = ticks.tick() => {
                    self.replica.set_now(self.now());
                    self.replica.tick();
                    if swept.elapsed() > CONTAINER_SWEEP && self.replica.service.is_leading() {
                        swept = Instant::now();
                        self.replica.service.delete_empty_containers();
                    }
                }
                permit = reserve(room) => self.continue_image(permit),
            }
            if let Some(why) = self.advance() {
                self.failed.send_replace(Some(why));
                is_failed = true;
                break;
            }
            self.snapshot_if_due();
            // An ensemble serves when enough of its servers have started.
            if (self.peers.is_some() || self.replica.service.is_serving())
                && let Some(ready) = ready.take()
            {
                let _ = ready.send(());
            }
        }
        self.stop(is_failed).await;
    }

    /// What is on its way to the disk gets there, unless the disk is full or lost: then it was never
    /// acknowledged. Clients find their sessions again later, on another server at once.
    async fn stop(mut self, is_failed: bool) {
        self.replica.service.machine.tree.abandon_image();
        self.snapshot.pieces = None;
        if !is_failed && self.peers.is_some() && self.replica.hand_over() {
            self.wait_for_another().await;
        }
        while !is_failed
            && self.replica.batches_in_flight() > 0
            && !self.replica.service.is_refusing()
        {
            let Some(notice) = self.notices.recv().await else { break };
            if self.notice(notice).is_err() || self.advance().is_some() {
                break;
            }
        }
        for link in self.links.values() {
            link.send(Vec::new(), false, true);
        }
    }

    /// Goes on until another server leads.
    async fn wait_for_another(&mut self) {
        let until = Instant::now() + HAND_OVER_LIMIT;
        let mut ticks = interval(TICK);
        while self.replica.consensus.is_leader() && Instant::now() < until {
            tokio::select! {
                Some(input) = self.peer_inputs.recv() => self.peer_input(input),
                Some(notice) = self.notices.recv() => if self.notice(notice).is_err() {
                    return;
                },
                _ = ticks.tick() => {
                    self.replica.set_now(self.now());
                    self.replica.tick();
                }
            }
            if self.advance().is_some() {
                return;
            }
        }
    }

    fn peer_input(&mut self, input: PeerInput) {
        match input {
            PeerInput::Up { id } => self.replica.peer_up(id),
            PeerInput::Down { id, is_gone } => self.replica.peer_down(id, is_gone),
            PeerInput::Message { from, message } => self.replica.message(from, message),
            PeerInput::Snapshot { from, message, machine } => {
                self.replica.restore(from, message, *machine);
            }
            PeerInput::SnapshotSent { to, is_whole } => self.replica.snapshot_sent(to, is_whole),
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Connect { connection, link, frame } => {
                let peer = link.peer;
                self.links.insert(connection, link);
                // It was decoded before it was sent here.
                if let Ok(request) = ConnectRequest::decode(&frame) {
                    self.replica.service.connect(connection, peer, &request);
                }
            }
            Input::Frames { connection, frames } => {
                self.tell_unsent(connection);
                self.replica.service.frames(connection, frames);
            }
            Input::Room { connection } => {
                self.tell_unsent(connection);
                self.replica.service.room(connection);
            }
            Input::Gone { connection } => {
                self.replica.service.gone(connection);
                if let Some(link) = self.links.remove(&connection) {
                    link.release_all(&self.shared.budget);
                }
            }
            Input::Word { word, peer, connections, answer } => {
                let membership = self.membership();
                let around = words::Surroundings {
                    config: &self.config,
                    port: self.port,
                    peer,
                    connections,
                    role: self.role(),
                    membership: membership.as_ref(),
                };
                let _ = answer.send(words::answer(&word, &mut self.replica.service, &around));
            }
        }
    }

    /// What this server is in its ensemble.
    fn role(&self) -> words::Role {
        let own = self.config.own_server();
        match (own, self.replica.leader()) {
            (None, _) => words::Role::Standalone,
            (Some(own), Some(leader)) if leader == own.id => {
                words::Role::Leader(self.replica.leading())
            }
            (_, None) => words::Role::Looking,
            (Some(own), _) if own.is_observer => words::Role::Observer,
            _ => words::Role::Follower,
        }
    }

    fn membership(&self) -> Option<words::Membership> {
        let own = self.config.own_server()?;
        let members = self.replica.servers().iter().map(|server| words::Member {
            id: server.id,
            quorum: format!("{}:{}", server.host, server.peer_port),
            election_port: server.election_port,
            client: server.client.clone(),
            is_observer: server.is_observer,
        });
        Some(words::Membership {
            init_limit: self.config.init_limit,
            sync_limit: self.config.sync_limit,
            election_port: own.election_port,
            quorum_port: own.peer_port,
            is_observer: own.is_observer,
            members: members.collect(),
            leader: self.replica.leader(),
        })
    }

    fn tell_unsent(&mut self, connection: ConnectionId) {
        if let Some(link) = self.links.get(&connection) {
            self.replica.service.set_unsent(connection, link.unsent_bytes());
        }
    }

    fn notice(&mut self, notice: Notice) -> Result<(), String> {
        match notice {
            Notice::Persisted { number, log_bytes } => {
                self.log_bytes = log_bytes;
                self.replica.persisted(number);
            }
            Notice::Full(why) => {
                self.replica.set_refusing(Some(format!("the disk is full: {why}")))
            }
            Notice::Room => self.replica.set_refusing(None),
            Notice::Failed(why) => return Err(why),
            Notice::Snapshot { index, result } => {
                self.snapshot.is_writing = false;
                self.snapshot.pieces = None;
                match result {
                    Ok(written) => {
                        (self.snapshot.index, self.snapshot.bytes) = (index, written.bytes);
                        if let Some((term, members)) = self.snapshot.state.take() {
                            self.replica.consensus.offer_snapshot(index, term, members);
                        }
                        let purge = LogTask::Purge { index: written.oldest_index };
                        // The thread is asked again after the next snapshot.
                        let _ = self.log.try_send(purge);
                    }
                    Err(error) => {
                        error!(error, "snapshot cannot be written, the log is kept instead");
                        self.replica.service.machine.tree.abandon_image();
                        self.snapshot.not_before = Some(Instant::now() + SNAPSHOT_PAUSE);
                    }
                }
            }
        }
        Ok(())
    }

    /// Does what the core wants done; returns why it cannot go on, if so.
    fn advance(&mut self) -> Option<String> {
        let work = self.replica.advance();
        for task in work.log {
            let task = match task {
                LogWork::Append { number, batch } => {
                    if let Some(index) = batch.restored {
                        // The image under way is of a state that is gone.
                        (self.snapshot.pieces, self.snapshot.is_writing) = (None, false);
                        (self.snapshot.index, self.snapshot.logged_bytes) = (index, 0);
                    }
                    LogTask::Append { number, batch }
                }
                LogWork::Joined => LogTask::Joined,
            };
            // Of as many batches as may be in flight, and a purge, the queue has room for all.
            // Where the thread has ended, the closed channel of its notices tells.
            let _ = self.log.try_send(task);
        }
        if let Some(peers) = &self.peers {
            if let Some(servers) = work.servers {
                peers.update(&servers);
            }
            for (to, message) in work.messages {
                if let PeerMessage::Raft(message) = &message
                    && let Some(index) = message.snapshot_index()
                {
                    peers.send_snapshot(to, message.clone(), index);
                } else {
                    peers.send(to, &message);
                }
            }
        }
        self.snapshot.logged_bytes += work.applied_bytes;
        self.deliver();
        work.failure
    }

    fn deliver(&mut self) {
        for delivery in self.replica.service.take_deliveries() {
            if let Some(link) = self.links.get(&delivery.connection) {
                if delivery.released_bytes > 0 {
                    link.release(delivery.released_bytes, &self.shared.budget);
                }
                if delivery.is_last || delivery.is_awaited || !delivery.bytes.is_empty() {
                    link.send(delivery.bytes, delivery.is_awaited, delivery.is_last);
                    self.replica.service.set_unsent(delivery.connection, link.unsent_bytes());
                }
            }
        }
    }

    fn snapshot_if_due(&mut self) {
        let is_wanted = self.peers.is_some() && self.replica.consensus.wants_snapshot();
        let machine = &self.replica.service.machine;
        let entries = machine.index().saturating_sub(self.snapshot.index);
        let reached =
            |count: u64, limit: u64| count as f64 >= limit as f64 * (1.0 - self.snapshot.early);
        let is_due = is_wanted && entries > 0
            || reached(entries, self.config.snap_count)
            || reached(self.snapshot.logged_bytes, LOG_BYTES_PER_SNAPSHOT.max(self.snapshot.bytes));
        if self.snapshot.is_writing
            || !is_due
            || self.snapshot.not_before.is_some_and(|time| Instant::now() < time)
        {
            return;
        }
        // With the log's thread everything ends.
        let Some(notifier) = self.notifier.upgrade() else { return };
        let index = machine.index();
        let (znodes, digest) = (machine.tree.len(), format!("{:016x}", machine.tree.digest()));
        info!(index, zxid = %machine.zxid(), znodes, digest, "snapshot started");
        self.snapshot.state = Some((machine.term(), self.replica.consensus.members()));
        let (pieces, receiver) = mpsc::channel(IMAGE_PIECES_MAX);
        let first = self.replica.service.machine.start_image();
        // A new queue has room.
        let _ = pieces.try_send((first, false));
        self.snapshot.pieces = Some(pieces);
        self.snapshot.is_writing = true;
        self.snapshot.logged_bytes = 0;
        self.snapshot.early = early();
        let path = super::data_path(&self.config.data_dir);
        let kept = self.config.snapshots_kept;
        self.tasks.spawn_blocking(move || {
            let (disk, purged) = (Directory::new(&path), Directory::new(&path));
            write_snapshot(disk, purged, index, kept, receiver, &notifier);
        });
    }

    /// Gives the snapshot's thread its next piece; without a permit the thread is gone.
    fn continue_image(&mut self, permit: Option<mpsc::OwnedPermit<(Vec<u8>, bool)>>) {
        let Some(permit) = permit else {
            self.replica.service.machine.tree.abandon_image();
            self.snapshot.pieces = None;
            return;
        };
        match self.replica.service.machine.tree.next_image_piece(IMAGE_PIECE_BYTES) {
            Some((piece, is_last)) => {
                permit.send((piece, is_last));
                if is_last {
                    self.snapshot.pieces = None;
                }
            }
            None => self.snapshot.pieces = None,
        }
    }
}

/// Waits for room for a piece; for ever where no image is under way.
async fn reserve(
    pieces: Option<mpsc::Sender<(Vec<u8>, bool)>>,
) -> Option<mpsc::OwnedPermit<(Vec<u8>, bool)>> {
    match pieces {
        Some(pieces) => pieces.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}
