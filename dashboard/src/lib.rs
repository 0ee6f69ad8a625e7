//! The web page of lag and search.
//!
//! It meets the other boxes as anyone would: the broker over the Kafka protocol, the store over
//! Elasticsearch's HTTP API. So it shows a real Kafka and a real Elasticsearch as well.

mod alerts;
mod api;
mod ask;
mod assets;
mod cluster;
mod decisions;
mod elastic;
mod ensemble;
mod exporter;
mod groups;
mod http;
mod lag;
mod marks;
mod overview;
mod search;
mod store_health;
mod stream;
mod tail;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use elkfk_base::{Tasks, now_ms};
use elkfk_broker_client::Client;
use elkfk_broker_client::lag::Snapshot;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::elastic::Elastic;
use crate::lag::{Latest, Memory};

/// Where the page is served and what it shows.
#[derive(Debug, Clone)]
pub struct Config {
    /// Default 127.0.0.1:5601, Kibana's port.
    pub listen: SocketAddr,
    /// `host:port[,host:port…]` of a Kafka, ours or a real one.
    pub bootstrap_servers: String,
    /// `http://host:port` of an Elasticsearch, ours or a real one.
    pub elasticsearch: String,
    /// The indices that Discover searches.
    pub index_pattern: String,
    /// Where history and alert rules are kept; `None`: in memory only.
    pub data: Option<PathBuf>,
    /// `host:port,host:port/chroot` of the coordinator, ours or a real ZooKeeper.
    pub zookeeper: Option<String>,
    /// `http://host:port` of the sinks' APIs.
    pub sinks: Vec<String>,
    /// Where the autoscaler writes what it decides.
    pub decisions_topic: String,
    /// `http://host:port` or `https://host/path` where people find the page, for the links of alerts;
    /// `None`: where it was when rules or receivers were last changed, or where it listens.
    pub external_url: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5601)),
            bootstrap_servers: "127.0.0.1:9092".into(),
            elasticsearch: "http://127.0.0.1:9200".into(),
            index_pattern: "logs-*".into(),
            data: None,
            zookeeper: None,
            sinks: Vec::new(),
            decisions_topic: "elkfk-autoscaler".into(),
            external_url: None,
        }
    }
}

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "listen on {addr}: {source}; stop the program that holds it or give another with --dashboard-listen"
    )]
    Listen { addr: SocketAddr, source: io::Error },
}

/// What every request shares.
#[derive(Debug)]
struct Shared {
    config: Config,
    elastic: Elastic,
    client: Client,
    memory: Mutex<Memory>,
    marks: Mutex<marks::Marks>,
    cluster: Mutex<Arc<cluster::Facts>>,
    decisions: Mutex<decisions::Decisions>,
    assignors: Mutex<groups::Assignors>,
    undos: Mutex<groups::undo::Undos>,
    alerts: Mutex<alerts::Alerts>,
    /// Messages to receivers that wait to be sent.
    notes: tokio::sync::mpsc::Sender<alerts::notify::Note>,
    ensemble: ensemble::Ensemble,
    flow: Mutex<overview::Flow>,
    /// `None` until it was asked for the first time.
    store_health: Mutex<Option<Health>>,
    /// `None` before the first measurement.
    latest: watch::Sender<Option<Arc<Latest>>>,
    tasks: Tasks,
}

/// How a box answers, or why it does not.
type Health = Result<String, String>;

/// What the mutex guards; it is held for a few lines each time.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds what is shared")
}

impl Shared {
    fn latest(&self) -> Option<Arc<Latest>> {
        self.latest.borrow().clone()
    }

    /// Where the index is searched; what does not exist yet is searched as empty.
    fn search_path(&self) -> String {
        let pattern = &self.config.index_pattern;
        format!("/{pattern}/_search?ignore_unavailable=true&allow_no_indices=true")
    }

    /// Sends `snapshot` to every page. Where `broker` is an error it is the last one that could be had, and
    /// the page says how old it is.
    fn publish(&self, snapshot: Arc<Snapshot>, broker: Health) {
        let store = hold(&self.store_health).clone();
        self.latest.send_replace(Some(Arc::new(Latest::of(snapshot, broker, store))));
    }
}

/// A served page.
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
    tasks: Tasks,
    /// Why a task ended by itself.
    failure: watch::Receiver<Option<String>>,
}

impl Running {
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Resolves when a part of it ended although nobody had asked it to, with the reason.
    pub async fn failed(&self) -> String {
        elkfk_base::tasks::failure(&self.failure).await
    }

    /// Closes the page's connections and stops measuring.
    pub async fn stop(self) {
        self.tasks.shutdown().await;
    }
}

/// Serves the page. Neither the broker nor the store has to be there yet.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let addr = config.listen;
    let listener =
        TcpListener::bind(addr).await.map_err(|source| StartError::Listen { addr, source })?;
    let local_addr = listener.local_addr().map_err(|source| StartError::Listen { addr, source })?;
    let config = Config { listen: local_addr, ..config };
    let tasks = Tasks::new();
    let client = elkfk_broker_client::Config {
        timeout: lag::TIMEOUT,
        ..elkfk_broker_client::Config::to(&config.bootstrap_servers)
    };
    let (notes, waiting) = tokio::sync::mpsc::channel(alerts::notify::WAITING_MAX);
    let shared = Arc::new(Shared {
        elastic: Elastic::new(&config.elasticsearch),
        client: Client::new(client),
        memory: Mutex::default(),
        marks: Mutex::default(),
        cluster: Mutex::default(),
        decisions: Mutex::default(),
        assignors: Mutex::default(),
        undos: Mutex::new(groups::undo::open(config.data.as_deref(), now_ms())),
        alerts: Mutex::new(alerts::open(config.data.as_deref())),
        notes,
        ensemble: ensemble::Ensemble::new(config.zookeeper.as_deref()),
        flow: Mutex::default(),
        store_health: Mutex::default(),
        latest: watch::Sender::new(None),
        tasks: tasks.clone(),
        config,
    });
    let parts = [
        ("measure lag", tasks.spawn("measure lag", lag::run(shared.clone()))),
        ("look at topics", tasks.spawn("look at topics", cluster::run(shared.clone()))),
        ("read decisions", tasks.spawn("read decisions", decisions::run(shared.clone()))),
        ("watch ensemble", tasks.spawn("watch ensemble", ensemble::run(shared.clone()))),
        ("watch the flow", tasks.spawn("watch the flow", overview::run(shared.clone()))),
        (
            "tell receivers",
            tasks.spawn("tell receivers", alerts::notify::run(shared.clone(), waiting)),
        ),
        ("watch store", tasks.spawn("watch store", store_health::run(shared.clone()))),
        ("serve page", tasks.spawn("serve page", http::serve(listener, shared))),
    ];
    let failure = watch_over(&tasks, parts);
    Ok(Running { local_addr, tasks, failure })
}

/// Says why one of the tasks ended before all were asked to stop: a page that is served no more, or
/// shows figures that nobody measures, must not look well.
fn watch_over(
    tasks: &Tasks,
    parts: impl IntoIterator<Item = (&'static str, JoinHandle<()>)>,
) -> watch::Receiver<Option<String>> {
    let (failed, failure) = watch::channel(None);
    for (name, part) in parts {
        let (failed, stopping) = (failed.clone(), tasks.token());
        tasks.spawn("watch over a task", async move {
            let end = part.await;
            if !stopping.is_cancelled() {
                let reason = end.map_or_else(|error| error.to_string(), |()| "ended".to_owned());
                failed.send_replace(Some(format!("{name}: {reason}")));
            }
        });
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_a_failure_a_stop_is_none() {
        let tasks = Tasks::new();
        let waits = |tasks: &Tasks| {
            let stopping = tasks.token();
            tasks.spawn("waits", async move { stopping.cancelled().await })
        };
        let panics = tasks.spawn("panics", async { panic!("as a test") });
        let mut failure =
            watch_over(&tasks, [("measure lag", panics), ("serve page", waits(&tasks))]);
        let reason = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(reason.starts_with("measure lag: ") && reason.contains("panicked"), "{reason}");
        tasks.shutdown().await;

        let tasks = Tasks::new();
        let mut failure =
            watch_over(&tasks, [("measure lag", waits(&tasks)), ("serve page", waits(&tasks))]);
        tasks.shutdown().await;
        assert!(failure.wait_for(Option::is_some).await.is_err());
    }
}
