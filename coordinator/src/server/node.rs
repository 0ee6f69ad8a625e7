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
use tracing::{error, info, warn};

use super::link::{Input, Link, Shared};
use super::words;
use super::writer::{LogTask, Notice, write_snapshot};
use crate::config::Config;
use crate::consensus::Consensus;
use crate::machine::{Action, Command, Origin};
use crate::service::{ConnectionId, Now, Service};
use crate::wal::disk::Directory;

/// Sessions are looked after this often; Raft ticks every second time.
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

pub(super) struct Node<C> {
    pub(super) service: Service,
    pub(super) consensus: C,
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
    /// Batches handed to the log's thread and not yet durable.
    pub(super) batches_in_flight: usize,
    pub(super) last_batch: u64,
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
    /// Of the newest one.
    pub(super) index: u64,
    pub(super) bytes: u64,
    logged_bytes: u64,
    not_before: Option<Instant>,
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
        let mut tick_count = 0u64;
        let mut swept = Instant::now();
        loop {
            let room = self.snapshot.pieces.clone();
            tokio::select! {
                () = stop.cancelled() => break,
                input = inputs.recv() => {
                    let Some(input) = input else { break };
                    self.service.set_now(self.now());
                    self.input(input);
                    for _ in 1..INPUTS_MAX {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.input(input);
                    }
                }
                notice = self.notices.recv() => {
                    self.service.set_now(self.now());
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
                    self.service.set_now(self.now());
                    // Before it serves, nobody can be heard of.
                    if ready.is_none() {
                        self.service.tick();
                    }
                    tick_count += 1;
                    if tick_count.is_multiple_of(2) {
                        self.consensus.tick();
                    }
                    if swept.elapsed() > CONTAINER_SWEEP && self.consensus.is_leader() {
                        swept = Instant::now();
                        self.service.delete_empty_containers();
                    }
                }
                permit = reserve(room) => self.continue_image(permit),
            }
            self.propose();
            self.advance();
            self.deliver();
            self.snapshot_if_due();
            // An entry of this term is applied after all of those before: what clients have seen of
            // an earlier life is here again.
            if self.consensus.is_leader()
                && self.service.machine.term() == self.consensus.term()
                && self.service.machine.has_secret()
                && let Some(ready) = ready.take()
            {
                self.service.set_now(self.now());
                self.service.hear_of_all();
                let _ = ready.send(());
            }
        }
        self.stop(is_failed).await;
    }

    /// What is on its way to the disk gets there, unless the disk is full or lost: then it was never
    /// acknowledged. Clients find their sessions again later.
    async fn stop(mut self, is_failed: bool) {
        self.service.machine.tree.abandon_image();
        self.snapshot.pieces = None;
        while !is_failed && self.batches_in_flight > 0 && !self.service.is_refusing() {
            let Some(notice) = self.notices.recv().await else { break };
            if self.notice(notice).is_err() {
                break;
            }
            self.advance();
            self.deliver();
        }
        for link in self.links.values() {
            link.send(Vec::new(), false, true);
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Connect { connection, link, frame } => {
                let peer = link.peer;
                self.links.insert(connection, link);
                // It was decoded before it was sent here.
                if let Ok(request) = ConnectRequest::decode(&frame) {
                    self.service.connect(connection, peer, &request);
                }
            }
            Input::Frames { connection, frames } => {
                self.tell_unsent(connection);
                self.service.frames(connection, frames);
            }
            Input::Room { connection } => {
                self.tell_unsent(connection);
                self.service.room(connection);
            }
            Input::Gone { connection } => {
                self.service.gone(connection);
                if let Some(link) = self.links.remove(&connection) {
                    link.release_all(&self.shared.budget);
                }
            }
            Input::Word { word, peer, connections, answer } => {
                let around = words::Surroundings {
                    config: &self.config,
                    port: self.port,
                    peer,
                    connections,
                    role: words::Role::Standalone,
                    membership: None,
                };
                let _ = answer.send(words::answer(&word, &mut self.service, &around));
            }
        }
    }

    fn tell_unsent(&mut self, connection: ConnectionId) {
        if let Some(link) = self.links.get(&connection) {
            self.service.set_unsent(connection, link.unsent_bytes());
        }
    }

    fn notice(&mut self, notice: Notice) -> Result<(), String> {
        match notice {
            Notice::Persisted { number, log_bytes } => {
                self.batches_in_flight = 0;
                self.log_bytes = log_bytes;
                self.consensus.persisted(number);
            }
            Notice::Full(why) => {
                self.service.set_refusing(Some(format!("the disk is full: {why}")))
            }
            Notice::Room => self.service.set_refusing(None),
            Notice::Failed(why) => return Err(why),
            Notice::Snapshot { index, result } => {
                self.snapshot.is_writing = false;
                self.snapshot.pieces = None;
                match result {
                    Ok(written) => {
                        (self.snapshot.index, self.snapshot.bytes) = (index, written.bytes);
                        let purge = LogTask::Purge { index: written.oldest_index };
                        // The thread is asked again after the next snapshot.
                        let _ = self.log.try_send(purge);
                    }
                    Err(error) => {
                        error!(error, "snapshot cannot be written, the log is kept instead");
                        self.service.machine.tree.abandon_image();
                        self.snapshot.not_before = Some(Instant::now() + SNAPSHOT_PAUSE);
                    }
                }
            }
        }
        Ok(())
    }

    fn propose(&mut self) {
        if !self.service.machine.has_secret()
            && self.consensus.is_leader()
            && self.service.machine.term() == self.consensus.term()
        {
            // A second one, proposed before the first is applied, changes nothing.
            let action = Action::Secret(rand::random());
            let time_ms = self.now().wall_ms;
            let command =
                Command { time_ms, origin: Origin::default(), session: Default::default(), action };
            let _ = self.consensus.propose(command.encode());
        }
        for proposal in self.service.take_proposals() {
            if self.consensus.propose(proposal).is_err() {
                // With one voter this server leads from the start to the end.
                warn!("a command was dropped: this server does not lead");
            }
        }
    }

    /// Hands the log what it has to write and applies what is committed.
    ///
    /// A batch is cut only when the one before is durable, so whatever comes meanwhile shares the
    /// next fdatasync.
    fn advance(&mut self) {
        while self.batches_in_flight == 0 {
            let Some(ready) = self.consensus.ready() else { return };
            debug_assert!(ready.messages.is_empty(), "one voter has nobody to write to");
            for entry in &ready.committed {
                self.service.apply(entry);
                self.snapshot.logged_bytes += entry.data.len() as u64 + 64;
            }
            if let Some(last) = ready.committed.last() {
                self.consensus.applied(last.index);
            }
            if let Some(batch) = ready.batch {
                self.batches_in_flight += 1;
                self.last_batch = ready.number;
                // Of one batch at a time and a purge, the queue has room for both.
                // Where the thread has ended, the closed channel of its notices tells.
                let _ = self.log.try_send(LogTask::Append { number: ready.number, batch });
            }
            // Proposals that applying brought forth.
            self.propose();
        }
    }

    fn deliver(&mut self) {
        for delivery in self.service.take_deliveries() {
            if let Some(link) = self.links.get(&delivery.connection) {
                if delivery.released_bytes > 0 {
                    link.release(delivery.released_bytes, &self.shared.budget);
                }
                if delivery.is_last || delivery.is_awaited || !delivery.bytes.is_empty() {
                    link.send(delivery.bytes, delivery.is_awaited, delivery.is_last);
                    self.service.set_unsent(delivery.connection, link.unsent_bytes());
                }
            }
        }
    }

    fn snapshot_if_due(&mut self) {
        let machine = &self.service.machine;
        let entries = machine.index().saturating_sub(self.snapshot.index);
        let is_due = entries >= self.config.snap_count
            || self.snapshot.logged_bytes >= LOG_BYTES_PER_SNAPSHOT.max(self.snapshot.bytes);
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
        let (pieces, receiver) = mpsc::channel(IMAGE_PIECES_MAX);
        let first = self.service.machine.start_image();
        // A new queue has room.
        let _ = pieces.try_send((first, false));
        self.snapshot.pieces = Some(pieces);
        self.snapshot.is_writing = true;
        self.snapshot.logged_bytes = 0;
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
            self.service.machine.tree.abandon_image();
            self.snapshot.pieces = None;
            return;
        };
        match self.service.machine.tree.next_image_piece(IMAGE_PIECE_BYTES) {
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
