//! One instance decides: who holds the lowest ephemeral znode under `/elkfk/autoscaler`.
//!
//! Each instance has a znode with a number of its own, so that to check it is to check this instance and
//! no other. The check goes through the ensemble's quorum, and what it allows ends before the session can
//! have: an instance that is cut off, or was stopped for a while, does not act on an old answer.

use std::time::Duration;

use elkfk_coordinator_client::{Client, Config, CreateMode, Error};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Standing;

/// Where the instances line up.
pub(crate) const PARENT: &str = "/elkfk/autoscaler";
const NAME: &str = "instance-";
/// Of the session's timeout, for which a check holds.
const HOLDS_SHARE: f64 = 0.5;
/// A stop must not wait for servers that are away.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who may stand for the lock, and where.
#[derive(Debug)]
pub(crate) struct Election {
    /// None: there is no coordinator, and this instance is taken for the only one.
    coordinator: Option<Config>,
    instance: String,
}

/// The right to decide, as long as it can be checked.
#[derive(Debug)]
pub(crate) struct Lock {
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    client: Client,
    path: String,
    timeout: Duration,
}

/// Until when an act may begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permit {
    until: Option<Instant>,
}

impl Permit {
    pub(crate) fn is_good(self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Election {
    pub(crate) fn new(coordinator: Option<Config>, instance: String) -> Self {
        Self { coordinator, instance }
    }

    /// Waits until this instance is the one that decides, however long that takes.
    pub(crate) async fn win(&self, stands: &watch::Sender<Standing>) -> Lock {
        let Some(config) = &self.coordinator else { return Lock { held: None } };
        let mut was_told = false;
        loop {
            match self.stand(config, stands).await {
                Ok(held) => return Lock { held: Some(held) },
                Err(error) if was_told => debug!(%error, "no lock yet"),
                Err(error) => {
                    stands.send_replace(Standing::Waiting(format!(
                        "ZooKeeper at {}, which keeps the lock: {}; start it, or give another address with --zookeeper",
                        config.servers.join(","),
                        elkfk_base::errors::in_one_line(&error)
                    )));
                    warn!(%error, peer = %config.servers.join(","), "cannot stand for the lock; going on trying");
                    was_told = true;
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Lines up behind those who came before, until they are gone.
    async fn stand(
        &self,
        config: &Config,
        stands: &watch::Sender<Standing>,
    ) -> Result<Held, Error> {
        let client = Client::connect(config.clone()).await?;
        let placed = self.place(&client).await;
        // A znode that was made although the answer was lost goes with its session.
        let path = match placed {
            Ok(path) => path,
            Err(error) => {
                client.close().await;
                return Err(error);
            }
        };
        let own = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut was_told = false;
        loop {
            let before = match client.children(PARENT).await {
                Ok((children, _)) => before(&children, &own),
                Err(error) => {
                    client.close().await;
                    return Err(error);
                }
            };
            match before {
                Place::First => {
                    let timeout = config.session_timeout;
                    return Ok(Held { client, path, timeout });
                }
                Place::Gone => {
                    client.close().await;
                    return Err(Error::SessionExpired);
                }
                Place::Behind(other) => {
                    if !was_told {
                        info!(path = %format!("{PARENT}/{other}"), "another instance decides; waiting");
                        stands.send_replace(Standing::Behind);
                        was_told = true;
                    }
                    // Only the one before is watched, so that its end wakes one instance and not all.
                    match client.exists_watch(&format!("{PARENT}/{other}")).await {
                        Ok((None, _)) => {}
                        Ok((Some(_), watch)) => drop(watch.await),
                        Err(error) => {
                            client.close().await;
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    async fn place(&self, client: &Client) -> Result<String, Error> {
        client.create_all(PARENT).await?;
        let data = json!({ "instance": self.instance, "process": std::process::id() }).to_string();
        client.create(&format!("{PARENT}/{NAME}"), data, CreateMode::EphemeralSequential).await
    }
}

/// Where a znode stands among its siblings.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    First,
    Behind(String),
    /// Someone deleted it.
    Gone,
}

fn before(children: &[String], own: &str) -> Place {
    let mut all: Vec<&String> = children.iter().filter(|name| name.starts_with(NAME)).collect();
    // Ten digits each, so that the order of the text is that of the numbers.
    all.sort_unstable();
    match all.iter().position(|name| *name == own) {
        None => Place::Gone,
        Some(0) => Place::First,
        Some(at) => Place::Behind(all[at - 1].clone()),
    }
}

impl Lock {
    /// Whether this instance still decides; what may be done on that answer ends with the permit.
    pub(crate) async fn check(&self) -> Result<Permit, Error> {
        let Some(Held { client, path, timeout }) = &self.held else {
            return Ok(Permit { until: None });
        };
        let begun = Instant::now();
        let holds = timeout.mul_f64(HOLDS_SHARE);
        match tokio::time::timeout(holds, client.check(path, None)).await {
            // The session was alive when the servers answered, which was not before it was asked.
            Ok(checked) => checked.map(|()| Permit { until: Some(begun + holds) }),
            Err(_) => Err(Error::ConnectionLost),
        }
    }

    /// Resolves once the session is over.
    pub(crate) async fn lost(&self) {
        let Some(Held { client, .. }) = &self.held else { return std::future::pending().await };
        let mut state = client.state();
        // An error means that the session's task is gone, and with it the session.
        let _ = state.wait_for(|state| state.is_over()).await;
    }

    /// Lets the next one decide at once.
    pub(crate) async fn release(self) {
        if let Some(Held { client, .. }) = self.held {
            // A session that cannot be closed ends by its timeout.
            let _ = tokio::time::timeout(CLOSE_LIMIT, client.close()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_for_the_one_before() {
        let names = ["instance-0000000012", "other", "instance-0000000003", "instance-0000000020"];
        let children: Vec<String> = names.map(str::to_owned).to_vec();
        assert_eq!(before(&children, names[2]), Place::First);
        assert_eq!(before(&children, names[0]), Place::Behind(names[2].into()));
        assert_eq!(before(&children, names[3]), Place::Behind(names[0].into()));
        assert_eq!(before(&children, "instance-0000000001"), Place::Gone);
    }

    #[tokio::test]
    async fn without_a_coordinator_this_instance_decides() {
        let (stands, _) = watch::channel(Standing::Behind);
        let lock = Election::new(None, "a".into()).win(&stands).await;
        assert!(lock.check().await.unwrap().is_good());
        lock.release().await;
    }
}
