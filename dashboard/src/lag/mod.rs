//! Shell: measures the lag of all groups, publishes it, remembers it for the plots and on disk.

pub(crate) mod answers;
pub(crate) mod disk;
pub(crate) mod heat;
pub(crate) mod history;
mod journal;
pub(crate) mod whatif;

use std::sync::Arc;
use std::time::Duration;

use elkfk_broker_client::lag::{GroupLag, Meter, Sample, Snapshot, TopicLag, Tracker};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{Health, Shared, hold, now_ms};
use answers::Told;
use disk::Disk;
use heat::Heat;
use history::Histories;

/// A cluster that does not answer for this long is shown as such.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// After this long without an answer the page is told that its figures are old.
const SLOW: Duration = Duration::from_secs(2);

/// What has been measured, for plots and strips.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) histories: Histories,
    pub(crate) heat: Heat,
}

/// What the pages are shown: the last measurement that could be had, and how that is.
#[derive(Debug)]
pub(crate) struct Latest {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) sent_ms: i64,
    /// Why the figures are old, if they are.
    pub(crate) broker: Health,
    pub(crate) store: Option<Health>,
    /// As every stream sends it.
    pub(crate) brief: Arc<str>,
}

impl Latest {
    pub(crate) fn of(snapshot: Arc<Snapshot>, broker: Health, store: Option<Health>) -> Self {
        let sent_ms = now_ms();
        let told = Told { sent_ms, broker: &broker, store: store.as_ref() };
        let brief = answers::brief(&snapshot, &told).into();
        Self { snapshot, sent_ms, broker, store, brief }
    }

    pub(crate) fn told(&self) -> Told<'_> {
        Told { sent_ms: self.sent_ms, broker: &self.broker, store: self.store.as_ref() }
    }

    pub(crate) fn group(&self, group: &str) -> Option<&GroupLag> {
        self.snapshot.groups.iter().find(|one| one.group == group)
    }

    pub(crate) fn topic(&self, group: &str, topic: &str) -> Option<&TopicLag> {
        self.group(group)?.topics.iter().find(|one| one.topic == topic)
    }
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let disk = open_disk(&shared).await;
    let mut meter = Meter::new(shared.client.clone());
    let mut tracker = Tracker::default();
    let mut was_well = None;
    let mut silent_since = now_ms();
    // What the page goes on showing while nothing can be measured.
    let mut last = Arc::new(Snapshot::default());
    loop {
        let begun = Instant::now();
        let next = begun + meter.every();
        let mut measuring = std::pin::pin!(meter.sample());
        let measured = loop {
            tokio::select! {
                () = shared.tasks.stopping() => return finish(&shared, &disk),
                measured = &mut measuring => break measured,
                () = tokio::time::sleep(SLOW) => {
                    tracker.miss(now_ms());
                    miss(&shared, &disk);
                    let silent = format!("no answer for {} s", begun.elapsed().as_secs());
                    shared.publish(last.clone(), Err(silent));
                }
            }
        };
        let is_well = measured.is_ok();
        match measured {
            Ok(sample) => {
                if was_well == Some(false) {
                    let silence_s = (now_ms() - silent_since) / 1000;
                    hold(&shared.marks).answers_again(now_ms(), silence_s);
                }
                let Some(worked) = take_in(&shared, &disk, tracker, sample).await else { return };
                (tracker, last) = worked;
            }
            Err(error) => {
                tracker.miss(now_ms());
                miss(&shared, &disk);
                let error = error.in_one_line();
                if was_well != Some(false) {
                    silent_since = now_ms();
                    let peer = &shared.config.bootstrap_servers;
                    warn!(%peer, %error, "lag cannot be measured");
                }
                shared.publish(last.clone(), Err(error));
            }
        }
        if is_well && was_well != Some(true) {
            info!(peer = %shared.config.bootstrap_servers, "measuring lag");
        }
        was_well = Some(is_well);
        tokio::select! {
            () = shared.tasks.stopping() => return finish(&shared, &disk),
            () = tokio::time::sleep_until(next.max(Instant::now() + Duration::from_millis(100))) => {}
        }
    }
}

/// Reads what an earlier run has kept.
async fn open_disk(shared: &Arc<Shared>) -> Disk {
    let Some(data) = &shared.config.data else { return Disk::none() };
    let (path, tasks) = (data.join("history"), shared.tasks.clone());
    let opened = tokio::task::spawn_blocking(move || disk::open(&path, &tasks)).await;
    let Ok((disk, histories, marks)) = opened else { return Disk::none() };
    if !histories.is_empty() || !marks.is_empty() {
        hold(&shared.marks).restore(&marks, now_ms());
    }
    hold(&shared.memory).histories = histories;
    disk
}

/// Works a sample into everything that is shown; apart from the runtime, for ten thousand partitions take
/// some tens of milliseconds. `None` if that broke.
async fn take_in(
    shared: &Arc<Shared>,
    disk: &Disk,
    mut tracker: Tracker,
    sample: Sample,
) -> Option<(Tracker, Arc<Snapshot>)> {
    let (shared, disk) = (shared.clone(), disk.clone());
    let work = move || {
        let partitions: usize = sample.groups.iter().map(|group| group.partitions.len()).sum();
        let text = format!(
            "answers, {} consumer group{} on {partitions} partition{}",
            sample.groups.len(),
            if sample.groups.len() == 1 { "" } else { "s" },
            if partitions == 1 { "" } else { "s" },
        );
        let snapshot = Arc::new(tracker.step(sample));
        let closed = {
            let mut memory = hold(&shared.memory);
            memory.heat.push(&snapshot);
            memory.histories.push(&snapshot)
        };
        disk.keep(closed);
        hold(&shared.marks).see_groups(&snapshot);
        crate::alerts::look(&shared, Some(&snapshot));
        keep_marks(&shared, &disk);
        shared.publish(snapshot.clone(), Ok(text));
        (tracker, snapshot)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(worked) => Some(worked),
        // It was cancelled with the runtime, or it panicked: then this task ends, which is told.
        Err(error) => {
            warn!(%error, "a measurement could not be worked in");
            None
        }
    }
}

fn miss(shared: &Shared, disk: &Disk) {
    let closed = hold(&shared.memory).histories.miss(now_ms());
    disk.keep(closed);
    crate::alerts::look(shared, None);
    keep_marks(shared, disk);
}

fn keep_marks(shared: &Shared, disk: &Disk) {
    for json in hold(&shared.marks).take_unsaved() {
        disk.keep_mark(json);
    }
}

fn finish(shared: &Shared, disk: &Disk) {
    let closed = hold(&shared.memory).histories.flush();
    disk.keep(closed);
    keep_marks(shared, disk);
}

#[cfg(test)]
mod large;
#[cfg(test)]
mod tests;
