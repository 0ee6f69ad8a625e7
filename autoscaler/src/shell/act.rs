//! Carrying out what was decided. Counts are absolute, so that what is already so is not done again.

use elkfk_broker_client::{Client, Topic};
use tracing::info;

use super::lock::{Lock, Permit};
use super::observe::Members;
use super::sinks::{Sinks, spread};
use crate::ladder::Action;

/// What one act needs to know of its surroundings.
#[derive(Debug)]
pub(crate) struct Hands<'a> {
    pub client: &'a Client,
    pub sinks: &'a Sinks,
    pub lock: &'a Lock,
}

/// The group and topic that an action is about, as they were when it was decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub members: Members,
}

/// Nothing is begun on a lock that is no longer held.
const LOCK_LOST: &str = "another instance may decide by now";

impl Hands<'_> {
    /// Performs an action.
    ///
    /// # Errors
    ///
    /// With the reason, for people; what was done before it stays done.
    pub(crate) async fn perform(&self, subject: Subject<'_>, action: Action) -> Result<(), String> {
        match action {
            Action::Workers { to, .. } => self.workers(subject, to).await,
            Action::Consumers { from, to } => self.consumers(subject, from, to).await,
            Action::Partitions { to, consumers_from, consumers_to, .. } => {
                self.partitions(subject.topic, to).await?;
                if consumers_to == consumers_from {
                    return Ok(());
                }
                self.consumers(subject, consumers_from, consumers_to).await
            }
        }
    }

    async fn permit(&self) -> Result<(), String> {
        let permit = self.lock.check().await.map_err(|error| format!("{LOCK_LOST}: {error}"))?;
        if Permit::is_good(permit) { Ok(()) } else { Err(LOCK_LOST.to_owned()) }
    }

    /// Workers in each sink.
    async fn workers(
        &self,
        Subject { group, topic, .. }: Subject<'_>,
        to: u32,
    ) -> Result<(), String> {
        let mut counts = Vec::new();
        for sink in self.sinks.reading(group, topic) {
            let Some(figures) = sink.now() else { continue };
            counts.push((sink.url.as_str(), figures.workers, to.min(figures.workers_max)));
        }
        self.ask(group, topic, "workers", &counts).await
    }

    /// Consumers over all sinks. Members that are none of these sinks' stay as they are, and so do those
    /// that read other topics.
    async fn consumers(
        &self,
        Subject { group, topic, members }: Subject<'_>,
        from: u32,
        to: u32,
    ) -> Result<(), String> {
        let sinks: Vec<_> = self
            .sinks
            .reading(group, topic)
            .filter_map(|sink| Some((sink.url.as_str(), sink.now()?)))
            .collect();
        let here = sinks.iter().map(|(_, figures)| figures.consumers).sum();
        let total = wanted_of_sinks(members, here, from, to);
        let maxima: Vec<u32> = sinks.iter().map(|(_, figures)| figures.consumers_max).collect();
        let shares = spread(total, &maxima);
        let given: u32 = shares.iter().sum();
        let counts: Vec<_> = sinks
            .iter()
            .zip(shares)
            .map(|((url, figures), share)| (*url, figures.consumers, share))
            .collect();
        self.ask(group, topic, "consumers", &counts).await?;
        if given < total {
            return Err(format!("the sinks take {given} of {total} consumers"));
        }
        Ok(())
    }

    /// Asks each sink that does not have its count yet: (url, count now, count wanted).
    async fn ask(
        &self,
        group: &str,
        topic: &str,
        what: &'static str,
        counts: &[(&str, u32, u32)],
    ) -> Result<(), String> {
        if counts.is_empty() {
            return Err(format!("no sink that reads {topic} in {group} can be asked for {what}"));
        }
        let mut failed = Vec::new();
        for (url, now, wanted) in counts.iter().filter(|(_, now, wanted)| now != wanted) {
            self.permit().await?;
            match self.sinks.ask_for(url, what, *wanted).await {
                Ok(()) => {
                    info!(peer = %url, group, topic, what, from = now, to = wanted, "sink scaled")
                }
                Err(error) => failed.push(error.to_string()),
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    async fn partitions(&self, topic: &str, to: u32) -> Result<(), String> {
        let count = async || {
            let cluster = self.client.metadata(Some(&[topic])).await;
            let cluster = cluster.map_err(|error| error.in_one_line())?;
            Ok::<_, String>(cluster.topic(topic).map_or(0, |found| found.partitions.len()))
        };
        let now = count().await?;
        if now >= to as usize {
            return Ok(());
        }
        let total = i32::try_from(to).map_err(|_| format!("{to} partitions are too many"))?;
        self.permit().await?;
        let refusal = match self.client.create_partitions(topic, total, None).await {
            Ok(Ok(())) => None,
            Ok(Err(refused)) => Some(refused.to_string()),
            Err(error) => Some(error.in_one_line()),
        };
        if let Some(refusal) = refusal {
            // An answer that was lost, and its question asked again, is a refusal of what is there.
            if count().await? < to as usize {
                return Err(refusal);
            }
        }
        info!(topic, from = now, to, "partitions created");
        let has_all = |found: &Topic| found.partitions.len() >= to as usize && found.is_served();
        self.client.settle_topic(topic, has_all).await;
        Ok(())
    }
}

/// How many consumers the sinks are to have, so that `to` members read the topic where `from` did.
///
/// Of the group's members some may be another program's. Where the sinks have more consumers than the
/// group has members, the last step has not arrived there yet and is not to be taken twice.
fn wanted_of_sinks(members: Members, here: u32, from: u32, to: u32) -> u32 {
    let others = members.all.saturating_sub(here);
    let of_other_topics = members.all.saturating_sub(from);
    to.saturating_add(of_other_topics).saturating_sub(others).max(1)
}

#[cfg(test)]
mod tests;
