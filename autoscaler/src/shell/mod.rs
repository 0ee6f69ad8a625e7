//! Shell: measures a cluster and its sinks, lets the ladder decide, writes what it says, does it.
//!
//! An event is written, with acks=all, before its action is performed; the right to act is checked before
//! both. Who takes over reads the events, and so keeps to every cooldown of the instance before.

mod act;
mod decisions;
mod facts;
mod ladders;
mod lock;
mod metrics;
mod observe;
mod record;
mod round;
mod settings;
mod sinks;

use std::path::PathBuf;
use std::time::Duration;

use elkfk_base::{Tasks, now_ms};
use elkfk_broker_client::Client;
use elkfk_coordinator_client::ConnectStringError;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

pub use decisions::{DECISIONS_TOPIC, Decisions, Page};
pub use record::Looked;
pub use settings::{Settings, SettingsError};

use lock::{Election, Lock};
use round::Rounds;

/// For one question to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// No cooldown lasts longer than a day, so older events decide nothing.
const MEMORY_MS: i64 = 26 * 3_600_000;
/// How long a cut-off instance may believe that it decides, and the next waits to take over.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Which cluster is watched, and who acts on it.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port[,host:port…]` of a Kafka, ours or a real one.
    pub bootstrap_servers: String,
    /// `host:port[,host:port…][/path]` of the coordinator that keeps the lock. None: this is taken for the
    /// only instance.
    pub zookeeper: Option<String>,
    /// `http://host:port` of each sink's API.
    pub sinks: Vec<String>,
    pub settings: Settings,
    /// Consumer groups that are watched; empty: those that the sinks name.
    pub groups: Vec<String>,
    /// Topics that are watched; empty: those that the sinks name, or that the groups read.
    pub topics: Vec<String>,
    pub decisions_topic: String,
    /// How the instance calls itself in the coordinator.
    pub instance: String,
    pub session_timeout: Duration,
    /// Where every observation is written, as JSON lines that `elkfk autoscale simulate` reads.
    pub record: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            zookeeper: None,
            sinks: Vec::new(),
            settings: Settings::default(),
            groups: Vec::new(),
            topics: Vec::new(),
            decisions_topic: DECISIONS_TOPIC.into(),
            instance: format!("elkfk-{:08x}", rand::random::<u32>()),
            session_timeout: SESSION_TIMEOUT,
            record: None,
        }
    }
}

/// Why the autoscaler did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("zookeeper")]
    Zookeeper(#[from] ConnectStringError),
    #[error("{}", .0.join("\n"))]
    Mistakes(Vec<String>),
    #[error("nothing to watch: name a sink's API or a group")]
    Nothing,
    #[error("write observations to {path}")]
    Record { path: PathBuf, source: std::io::Error },
}

/// What an instance is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// For what, why it is not there, and what may help.
    Waiting(String),
    /// Another instance decides; this one takes over when that ends.
    Behind,
    /// It decides, and has read what was decided before.
    Deciding,
}

/// A running autoscaler.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    /// Why a task ended by itself.
    failure: watch::Receiver<Option<String>>,
    is_deciding: watch::Receiver<bool>,
    standing: watch::Receiver<Standing>,
}

impl Running {
    /// Resolves when it ended although nobody had asked it to, with the reason.
    pub async fn failed(&self) -> String {
        elkfk_base::tasks::failure(&self.failure).await
    }

    /// Whether this instance is the one that decides.
    pub fn is_deciding(&self) -> bool {
        *self.is_deciding.borrow()
    }

    /// What it is at, and each change of that.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Stops deciding and lets the next instance do so at once.
    pub async fn stop(self) {
        self.tasks.shutdown().await;
    }
}

/// Starts watching. Neither the cluster nor the sinks have to be there yet.
///
/// # Errors
///
/// With every mistake in the configuration.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let mut mistakes = config.settings.mistakes();
    mistakes.extend(decisions::name_mistake(&config.decisions_topic));
    mistakes.extend(config.sinks.iter().filter_map(|url| sinks::url_mistake(url)));
    if !mistakes.is_empty() {
        return Err(StartError::Mistakes(mistakes));
    }
    if config.sinks.is_empty() && config.groups.is_empty() {
        return Err(StartError::Nothing);
    }
    let coordinator = match &config.zookeeper {
        Some(connect) => {
            let coordinator = elkfk_coordinator_client::Config::parse(connect)?;
            Some(coordinator.with_session_timeout(config.session_timeout))
        }
        None => None,
    };
    let recorder = match &config.record {
        Some(path) => {
            let opened = record::Recorder::open(path);
            Some(opened.map_err(|source| StartError::Record { path: path.clone(), source })?)
        }
        None => None,
    };
    let election = Election::new(coordinator, config.instance.clone());
    let tasks = Tasks::new();
    let (failed, failure) = watch::channel(None);
    let (deciding, is_deciding) = watch::channel(false);
    let first = match &config.zookeeper {
        Some(connect) => format!("ZooKeeper at {connect}, which keeps the lock"),
        None => format!("Kafka at {}", config.bootstrap_servers),
    };
    let (stands, standing) = watch::channel(Standing::Waiting(first));
    let told = Told { deciding, stands };
    let work = tasks.spawn("autoscale", run(config, election, recorder, told, tasks.clone()));
    let stopping = tasks.token();
    tasks.spawn("watch over a task", async move {
        let end = work.await;
        if !stopping.is_cancelled() {
            let reason = end.map_or_else(|error| error.to_string(), |()| "ended".to_owned());
            failed.send_replace(Some(reason));
        }
    });
    Ok(Running { tasks, failure, is_deciding, standing })
}

/// Where the work says what it is at.
#[derive(Debug)]
struct Told {
    deciding: watch::Sender<bool>,
    stands: watch::Sender<Standing>,
}

/// Waits for the right to decide, decides while it lasts, and stands for it again.
async fn run(
    config: Config,
    election: Election,
    mut recorder: Option<record::Recorder>,
    told: Told,
    tasks: Tasks,
) {
    loop {
        let lock = tokio::select! {
            () = tasks.stopping() => return,
            lock = election.win(&told.stands) => lock,
        };
        info!(instance = %config.instance, "this instance decides");
        told.deciding.send_replace(true);
        metrics::DECIDING.set(1);
        tokio::select! {
            () = tasks.stopping() => {}
            () = lock.lost() => warn!(instance = %config.instance, "the lock is lost: this instance decides no more"),
            () = decide(&config, &lock, &mut recorder, &told.stands) => {}
        }
        told.deciding.send_replace(false);
        metrics::DECIDING.set(0);
        lock.release().await;
        if tasks.is_stopping() {
            return;
        }
    }
}

/// Round by round, until it is dropped.
async fn decide(
    config: &Config,
    lock: &Lock,
    recorder: &mut Option<record::Recorder>,
    stands: &watch::Sender<Standing>,
) {
    let client = Client::new(elkfk_broker_client::Config {
        timeout: TIMEOUT,
        client_id: "elkfk-autoscaler".to_owned(),
        ..elkfk_broker_client::Config::to(&config.bootstrap_servers)
    });
    let mut rounds = Rounds::new(config, client);
    let mut was_told = false;
    while let Err(error) = rounds.resume(now_ms()).await {
        stands.send_replace(Standing::Waiting(format!(
            "topic {} at {}: {}; start Kafka there, or give another address with --bootstrap-server",
            config.decisions_topic,
            config.bootstrap_servers,
            error.in_one_line()
        )));
        if !was_told {
            warn!(topic = %config.decisions_topic, %error, "earlier decisions cannot be read yet");
            was_told = true;
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
    stands.send_replace(Standing::Deciding);
    let interval = Duration::from_secs_f64(config.settings.of_all().interval_s);
    let mut ticks = tokio::time::interval_at(Instant::now(), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        rounds.round(lock, recorder).await;
    }
}
