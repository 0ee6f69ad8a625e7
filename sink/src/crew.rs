//! The threads of a running sink: consumers that read, workers that filter. Their number may change.
//!
//! Shell: what may be changed is decided by [`Bounds`]. Who is to go finishes what it holds: a worker
//! its batch; a consumer what is under way, which it commits before it leaves the group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use rdkafka::error::KafkaError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::delivery::acks::Acks;
use crate::delivery::budget::Budget;
use crate::input::kafka::{Connected, Reader, Turn};
use crate::input::kafka_options::KafkaInput;
use crate::metrics::Meters;
use crate::scaling::{Bounds, Granted, Refused, Wish, consumers_of_each};
use crate::worker::{self, Queue, Shared};

/// What is in force after a change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Scaled {
    pub workers: usize,
    pub workers_max: usize,
    /// That every input has at least.
    pub consumers: usize,
    pub consumers_max: usize,
    /// Why this is not what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// Why the number of threads was not changed, or not as far as was asked.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(
        "consumers that are to leave the group {group} have not left it yet ({leaving}); try again in a moment"
    )]
    StillLeaving { group: String, leaving: usize },
    #[error("the sink stops")]
    Stopping,
    #[error("join group {group} at {bootstrap_servers}: {cause}")]
    Kafka { group: String, bootstrap_servers: String, cause: Box<KafkaError> },
    #[error("start thread {name}: {cause}")]
    Thread { name: String, cause: std::io::Error },
}

/// The threads, and what new ones need.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) inputs: Arc<[KafkaInput]>,
    /// Of each input.
    pub(crate) turns: Vec<Arc<Turn>>,
    pub(crate) bounds: Bounds,
    pub(crate) queue: Arc<Queue>,
    /// Records that wait for a worker.
    pub(crate) unfiltered: Arc<Budget>,
    /// All records and documents in memory.
    pub(crate) held: Arc<Budget>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) stop_reading: CancellationToken,
    pub(crate) failed: watch::Sender<Option<String>>,
    pub(crate) members: Mutex<Members>,
}

#[derive(Debug, Default)]
pub(crate) struct Members {
    /// What a worker is given. `None` before the start, and again from the stop on: the outputs end
    /// once the last worker has let go of them, so nobody else may hold on.
    shared: Option<Shared>,
    /// Those that have left lately included.
    workers: Vec<JoinHandle<()>>,
    workers_wanted: usize,
    /// Of each input, the configured ones first.
    consumers: Vec<Vec<Consumer>>,
    /// They read on until it is their turn, and finish what they have read.
    leaving: Vec<Consumer>,
    /// Threads started so far, for their names.
    started: usize,
}

/// A consumer at work.
#[derive(Debug)]
struct Consumer {
    input: usize,
    acks: Arc<Mutex<Acks>>,
    leave: CancellationToken,
    thread: JoinHandle<()>,
}

/// A consumer without its thread.
#[derive(Debug)]
pub(crate) struct Recruit {
    input: usize,
    acks: Arc<Mutex<Acks>>,
    leave: CancellationToken,
    reader: Connected,
}

/// Threads to be awaited at the end.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    pub(crate) readers: Vec<JoinHandle<()>>,
    pub(crate) workers: Vec<JoinHandle<()>>,
}

/// The crew at a moment.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) in_force: Scaled,
    /// Of each input.
    pub(crate) consumers: Vec<usize>,
    /// What each consumer has under way, and for which input; of those leaving too.
    pub(crate) acks: Vec<(usize, Arc<Mutex<Acks>>)>,
}

impl Crew {
    /// Creates the consumers that are configured. Dropped, they leave their groups.
    pub(crate) fn recruit(&self) -> Result<Vec<Recruit>, ScaleError> {
        let mut recruits = Vec::new();
        for (input, options) in self.inputs.iter().enumerate() {
            for number in 0..options.consumers {
                recruits.push(self.connect(input, number)?);
            }
        }
        Ok(recruits)
    }

    /// Starts the threads.
    pub(crate) fn begin(
        &self,
        shared: Shared,
        workers: usize,
        recruits: Vec<Recruit>,
    ) -> Result<(), ScaleError> {
        let mut members = self.members();
        members.shared = Some(shared);
        members.consumers = self.inputs.iter().map(|_| Vec::new()).collect();
        self.set_workers(&mut members, workers)?;
        for recruit in recruits {
            let consumer = self.read(&mut members, recruit)?;
            members.consumers[consumer.input].push(consumer);
        }
        self.tell(&members);
        Ok(())
    }

    /// Changes the number of threads. Blocks for some milliseconds for each new consumer; those that
    /// leave are not waited for.
    pub(crate) fn scale(&self, wish: Wish) -> Result<Scaled, ScaleError> {
        let Granted { workers, consumers, remark } = self.bounds.grant(wish)?;
        let mut members = self.members();
        if members.shared.is_none() {
            return Err(ScaleError::Stopping);
        }
        members.tidy();
        self.has_settled(&members, consumers.as_deref().unwrap_or_default())?;
        let before = (members.workers_wanted, members.consumers_of_each());
        let done = self.apply(&mut members, workers, consumers);
        self.tell(&members);
        let (workers, consumers) = (members.workers_wanted, members.consumers_of_each());
        if (workers, consumers) != before {
            info!(workers, consumers, "workers or consumers changed");
        }
        done.map(|()| Scaled { remark, ..self.in_force(&members) })
    }

    /// A group in which some come while others go finds no rest: nobody is heard to leave.
    fn has_settled(&self, members: &Members, wanted: &[usize]) -> Result<(), ScaleError> {
        for (input, wanted) in wanted.iter().enumerate() {
            let leaving = members.leaving.iter().filter(|consumer| consumer.input == input).count();
            if leaving > 0 && *wanted > members.consumers[input].len() {
                let group = self.inputs[input].group.clone();
                return Err(ScaleError::StillLeaving { group, leaving });
            }
        }
        Ok(())
    }

    fn apply(
        &self,
        members: &mut Members,
        workers: Option<usize>,
        consumers: Option<Vec<usize>>,
    ) -> Result<(), ScaleError> {
        if let Some(workers) = workers {
            self.set_workers(members, workers)?;
        }
        for (input, wanted) in consumers.into_iter().flatten().enumerate() {
            self.set_consumers(members, input, wanted)?;
        }
        Ok(())
    }

    fn set_workers(&self, members: &mut Members, wanted: usize) -> Result<(), ScaleError> {
        members.workers_wanted = wanted;
        for missing in (1..=self.queue.set_workers(wanted)).rev() {
            let Some(shared) = members.shared.clone() else { return Err(ScaleError::Stopping) };
            let (queue, failed) = (self.queue.clone(), self.failed.clone());
            let name = members.name("sink-worker");
            let started = thread(name, move || {
                let run = AssertUnwindSafe(|| worker::run(&shared, &queue));
                if catch_unwind(run).is_err() {
                    failed.send_replace(Some("a worker of the sink panicked".to_owned()));
                }
            });
            match started {
                Ok(worker) => members.workers.push(worker),
                Err(error) => {
                    self.queue.not_started(missing);
                    members.workers_wanted -= missing;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn set_consumers(
        &self,
        members: &mut Members,
        input: usize,
        wanted: usize,
    ) -> Result<(), ScaleError> {
        while members.consumers[input].len() > wanted {
            let newest = members.consumers[input].pop().expect("there are more than wanted");
            newest.leave.cancel();
            members.leaving.push(newest);
        }
        while members.consumers[input].len() < wanted {
            let recruit = self.connect(input, members.consumers[input].len())?;
            let consumer = self.read(members, recruit)?;
            members.consumers[input].push(consumer);
        }
        Ok(())
    }

    fn connect(&self, input: usize, number: usize) -> Result<Recruit, ScaleError> {
        let options = &self.inputs[input];
        let acks = Arc::new(Mutex::new(Acks::default()));
        let leave = self.stop_reading.child_token();
        let reader = Reader {
            input,
            consumer: number,
            options: options.clone(),
            queue: self.queue.clone(),
            unfiltered: self.unfiltered.clone(),
            held: self.held.clone(),
            acks: acks.clone(),
            meters: self.meters.clone(),
            stop: self.stop_reading.clone(),
            leave: leave.clone(),
            turn: self.turns[input].clone(),
        };
        let reader = reader.connect().map_err(|cause| ScaleError::Kafka {
            group: options.group.clone(),
            bootstrap_servers: options.bootstrap_servers.clone(),
            cause: cause.into(),
        })?;
        Ok(Recruit { input, acks, leave, reader })
    }

    fn read(&self, members: &mut Members, recruit: Recruit) -> Result<Consumer, ScaleError> {
        let Recruit { input, acks, leave, reader } = recruit;
        let failed = self.failed.clone();
        let thread = thread(members.name("sink-reader"), move || {
            let reason = match catch_unwind(AssertUnwindSafe(|| reader.run())) {
                Ok(Ok(())) => return,
                Ok(Err(reason)) => reason,
                Err(_) => "a reader of the sink panicked".to_owned(),
            };
            error!(reason, "reading stopped for good");
            failed.send_replace(Some(reason));
        })?;
        Ok(Consumer { input, acks, leave, thread })
    }

    /// Nobody is hired any more. Returns the threads that there are.
    pub(crate) fn close(&self) -> Threads {
        let mut members = self.members();
        members.shared = None;
        let consumers = std::mem::take(&mut members.consumers).into_iter().flatten();
        let mut readers: Vec<_> = consumers.map(|consumer| consumer.thread).collect();
        let leaving = std::mem::take(&mut members.leaving);
        readers.extend(leaving.into_iter().map(|consumer| consumer.thread));
        Threads { readers, workers: std::mem::take(&mut members.workers) }
    }

    pub(crate) fn look(&self) -> Look {
        let mut members = self.members();
        members.tidy();
        let consumers = members.consumers.iter().flatten().chain(&members.leaving);
        let acks = consumers.map(|consumer| (consumer.input, consumer.acks.clone())).collect();
        let consumers = members.consumers.iter().map(Vec::len).collect();
        Look { in_force: self.in_force(&members), consumers, acks }
    }

    fn in_force(&self, members: &Members) -> Scaled {
        Scaled {
            workers: members.workers_wanted,
            workers_max: self.bounds.workers_max,
            consumers: members.consumers_of_each(),
            consumers_max: self.bounds.consumers_max,
            remark: None,
        }
    }

    fn tell(&self, members: &Members) {
        let consumers = members.consumers.iter().map(Vec::len).sum();
        self.meters.set_threads(members.workers_wanted, consumers);
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().expect("no holder of this lock panics")
    }
}

/// The turn to leave of each input; inputs of one group share it.
pub(crate) fn turns(inputs: &[KafkaInput]) -> Vec<Arc<Turn>> {
    let mut turns: Vec<Arc<Turn>> = Vec::new();
    for input in inputs {
        let other = inputs[..turns.len()].iter().position(|other| other.group == input.group);
        turns.push(other.map_or_else(Arc::default, |other| turns[other].clone()));
    }
    turns
}

impl Members {
    /// Lets go of threads that have ended.
    fn tidy(&mut self) {
        self.leaving.retain(|consumer| !consumer.thread.is_finished());
        self.workers.retain(|worker| !worker.is_finished());
    }

    fn consumers_of_each(&self) -> usize {
        consumers_of_each(self.consumers.iter().map(Vec::len))
    }

    fn name(&mut self, kind: &str) -> String {
        self.started += 1;
        format!("{kind}-{}", self.started - 1)
    }
}

pub(crate) fn thread(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ScaleError> {
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(work)
        .map_err(|cause| ScaleError::Thread { name, cause })
}
