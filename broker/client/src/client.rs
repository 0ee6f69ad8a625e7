//! Finding the broker to ask, and asking again where it has moved.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use elkfk_wire::kafka::Message;
use elkfk_wire::kafka::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use tokio::time::Instant;

use crate::connection::{Connection, Reply};
use crate::error::{ClientError, Refused};
use crate::metadata::Broker;

/// Pause before asking again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` of some brokers; the first that answers tells the rest.
    pub bootstrap: Vec<String>,
    /// How the client calls itself; shows in the brokers' logs and quotas.
    pub client_id: String,
    /// How long one answer may take, and how long a call goes on trying.
    pub timeout: Duration,
}

impl Config {
    /// Addresses as in `bootstrap.servers`, separated by commas; the rest as by default.
    pub fn to(bootstrap: &str) -> Self {
        let addresses = bootstrap.split(',').map(str::trim).filter(|a| !a.is_empty());
        Self { bootstrap: addresses.map(str::to_owned).collect(), ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bootstrap: vec!["127.0.0.1:9092".to_owned()],
            client_id: "elkfk".to_owned(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// A client of one cluster. Clones share its connections; nothing is opened before the first call.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    brokers: HashMap<i32, Broker>,
    /// By `host:port`.
    connections: HashMap<String, Arc<Connection>>,
    controller: Option<i32>,
    coordinators: HashMap<String, i32>,
}

impl Client {
    pub fn new(config: Config) -> Self {
        Self { inner: Arc::new(Inner { config, known: Mutex::default() }) }
    }

    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a broker said about the cluster.
    pub(crate) fn learn(&self, brokers: &[Broker], controller: Option<i32>) {
        let mut known = self.known();
        known.brokers = brokers.iter().map(|broker| (broker.id, broker.clone())).collect();
        known.controller = controller;
    }

    async fn connect(&self, address: &str) -> Result<Arc<Connection>, ClientError> {
        if let Some(connection) = self.known().connections.get(address)
            && !connection.is_closed()
        {
            return Ok(Arc::clone(connection));
        }
        let config = &self.inner.config;
        let opened = Connection::open(address, &config.client_id, config.timeout).await?;
        let opened = Arc::new(opened);
        // Where two callers opened at once, the later one stays.
        self.known().connections.insert(address.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    /// A connection to any broker: one that is open, else the first of the bootstrap list.
    ///
    /// # Errors
    ///
    /// If none of them answers.
    pub async fn any(&self) -> Result<Arc<Connection>, ClientError> {
        let open = self.known().connections.values().find(|c| !c.is_closed()).cloned();
        if let Some(open) = open {
            return Ok(open);
        }
        let mut failure = ClientError::NoBootstrap;
        let known: Vec<String> = self.known().brokers.values().map(Broker::address).collect();
        for address in self.inner.config.bootstrap.iter().chain(&known) {
            match self.connect(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        let bootstrap = self.inner.config.bootstrap.join(",");
        Err(ClientError::NoBroker { bootstrap, cause: Box::new(failure) })
    }

    /// A connection to a broker by its id.
    ///
    /// # Errors
    ///
    /// If the cluster has no such broker or it does not answer.
    pub async fn node(&self, node: i32) -> Result<Arc<Connection>, ClientError> {
        let known = self.known().brokers.get(&node).map(Broker::address);
        let address = match known {
            Some(address) => address,
            None => {
                let cluster = self.brokers().await?;
                let broker = cluster.broker(node).ok_or(ClientError::UnknownBroker { node })?;
                broker.address()
            }
        };
        self.connect(&address).await
    }

    /// A connection to the controller, which decides about topics.
    ///
    /// # Errors
    ///
    /// If there is none for the time allowed.
    pub async fn controller(&self) -> Result<Arc<Connection>, ClientError> {
        let known = self.known().controller;
        let node = match known {
            Some(node) => node,
            None => {
                self.brokers().await?.controller.ok_or(ClientError::UnknownBroker { node: -1 })?
            }
        };
        self.node(node).await
    }

    /// A connection to the coordinator of a group.
    ///
    /// # Errors
    ///
    /// If there is none for the time allowed.
    pub async fn coordinator(&self, group: &str) -> Result<Arc<Connection>, ClientError> {
        let known = self.known().coordinators.get(group).copied();
        let node = match known {
            Some(node) => node,
            None => self.find_coordinator(group).await?.id,
        };
        self.node(node).await
    }

    /// The broker that keeps a group.
    ///
    /// # Errors
    ///
    /// If none does for the time allowed.
    pub async fn find_coordinator(&self, group: &str) -> Result<Broker, ClientError> {
        let what = || format!("find the coordinator of group {group}");
        self.retry(async || {
            let connection = self.any().await?;
            let version = connection.version::<FindCoordinatorRequest<'_>>()?;
            let mut request = FindCoordinatorRequest::default();
            if version >= 4 {
                request.coordinator_keys = vec![group.into()];
            } else {
                request.key = group.into();
            }
            let reply = connection.send(&request, version).await?;
            let response: FindCoordinatorResponse<'_> = reply.read()?;
            let (id, host, port, code) = match response.coordinators.first() {
                Some(one) => (one.node_id, &one.host, one.port, one.error_code),
                None => (response.node_id, &response.host, response.port, response.error_code),
            };
            if code != 0 {
                return Err(ClientError::refused(what(), code));
            }
            let broker = Broker { id, host: host.to_string(), port, rack: None };
            let mut known = self.known();
            known.coordinators.insert(group.to_owned(), id);
            known.brokers.entry(id).or_insert_with(|| broker.clone());
            Ok(broker)
        })
        .await
    }

    /// Asks until the answer is final or the time is over; forgets who was who before asking again.
    pub(crate) async fn retry<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + self.inner.config.timeout;
        loop {
            match ask().await {
                Err(error) if error.is_retriable() && Instant::now() + RETRY_AFTER < deadline => {
                    tracing::debug!(%error, "asking again");
                    self.forget_roles();
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                done => return done,
            }
        }
    }

    /// Makes the next call ask who the controller and the coordinators are.
    pub(crate) fn forget_roles(&self) {
        let mut known = self.known();
        known.controller = None;
        known.coordinators.clear();
        known.brokers.clear();
    }

    /// Sends to the coordinator of `group`, in the newest version; `build` is told which.
    pub(crate) async fn ask_coordinator<'q, Q: Message<'q>>(
        &self,
        group: &str,
        build: impl FnOnce(i16) -> Q,
    ) -> Result<Reply, ClientError> {
        let connection = self.coordinator(group).await?;
        let version = connection.version::<Q>()?;
        connection.send(&build(version), version).await
    }
}

/// An error of the whole call, as the callers of per-item answers return it.
pub(crate) fn whole(what: &str, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    Refused::check(code, message)
        .map_err(|refused| ClientError::Refused { what: what.to_owned(), refused })
}
