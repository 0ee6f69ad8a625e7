//! Shell: measures the lag of all groups, publishes it and remembers it for the plots.

mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use elkfk_broker_client::lag::{Meter, Snapshot, Tracker};
use elkfk_broker_client::{Client, Config};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{Shared, now_ms};
use history::History;

/// A cluster that does not answer for this long is shown as such.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After this long without an answer the page is told that its figures are old.
const SLOW: Duration = Duration::from_secs(2);
/// Beyond this many topics of groups no more are plotted: about 80 KiB each.
const HISTORIES_MAX: usize = 500;
/// What is not measured for this long is forgotten.
const FORGET_AFTER_MS: i64 = 60_000;

/// What has been measured, for the plots.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    of: BTreeMap<(String, String), History>,
}

impl Histories {
    fn push(&mut self, snapshot: &Snapshot) {
        for group in &snapshot.groups {
            for topic in &group.topics {
                let key = (group.group.clone(), topic.topic.clone());
                if self.of.len() < HISTORIES_MAX || self.of.contains_key(&key) {
                    self.of.entry(key).or_default().push(snapshot.now_ms, &topic.figures);
                }
            }
        }
        self.of.retain(|_, history| snapshot.now_ms - history.last_ms() < FORGET_AFTER_MS);
    }

    /// The plots get a gap.
    fn miss(&mut self, now_ms: i64) {
        self.of.values_mut().for_each(|history| history.miss(now_ms));
    }

    /// `[seconds, lag, lag seconds, in, out]`, oldest first.
    pub(crate) fn points(&self, group: &str, topic: &str) -> Vec<[Option<f64>; 5]> {
        let history = self.of.get(&(group.to_owned(), topic.to_owned()));
        history.map(History::points).unwrap_or_default()
    }
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let config = Config { timeout: TIMEOUT, ..Config::to(&shared.config.bootstrap_servers) };
    let mut meter = Meter::new(Client::new(config));
    let mut tracker = Tracker::default();
    let mut was_well = None;
    // What the page goes on showing while nothing can be measured.
    let mut last = Snapshot::default();
    loop {
        let begun = Instant::now();
        let next = begun + meter.every();
        let mut measuring = std::pin::pin!(meter.sample());
        let measured = loop {
            tokio::select! {
                () = shared.tasks.stopping() => return,
                measured = &mut measuring => break measured,
                () = tokio::time::sleep(SLOW) => {
                    tracker.miss(now_ms());
                    shared.histories().miss(now_ms());
                    let silent = format!("no answer for {} s", begun.elapsed().as_secs());
                    shared.publish(&last, Err(silent));
                }
            }
        };
        let broker = match measured {
            Ok(sample) => {
                let partitions: usize =
                    sample.groups.iter().map(|group| group.partitions.len()).sum();
                let text = format!(
                    "answers, {} consumer group{} on {partitions} partition{}",
                    sample.groups.len(),
                    if sample.groups.len() == 1 { "" } else { "s" },
                    if partitions == 1 { "" } else { "s" },
                );
                last = tracker.step(sample);
                shared.histories().push(&last);
                Ok(text)
            }
            Err(error) => {
                tracker.miss(now_ms());
                shared.histories().miss(now_ms());
                Err(error.in_one_line())
            }
        };
        if was_well != Some(broker.is_ok()) {
            match &broker {
                Ok(_) => info!(peer = %shared.config.bootstrap_servers, "measuring lag"),
                Err(error) => {
                    warn!(peer = %shared.config.bootstrap_servers, %error, "lag cannot be measured")
                }
            }
            was_well = Some(broker.is_ok());
        }
        shared.publish(&last, broker);
        tokio::select! {
            () = shared.tasks.stopping() => return,
            () = tokio::time::sleep_until(next.max(Instant::now() + Duration::from_millis(100))) => {}
        }
    }
}

#[cfg(test)]
mod tests;
