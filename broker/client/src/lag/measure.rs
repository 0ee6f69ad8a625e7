//! Shell: asks the cluster for offsets once a second, over the Kafka protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use elkfk_broker_client::{
    Client, ClientError, Committed, Config, GroupDescription, OffsetAt, TopicPartition,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{GroupSample, PartitionSample, Sample, Snapshot};
use crate::{Shared, now_ms};

const EVERY: Duration = Duration::from_secs(1);
/// A cluster that does not answer for this long is shown as such.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After this long without an answer the page is told that its figures are old.
const SLOW: Duration = Duration::from_secs(2);
/// A group whose coordinator does not answer for this long is unknown in this round.
const GROUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Groups asked about at once; each has two questions in flight, one after the other.
const GROUPS_AT_ONCE: usize = 8;
/// All lookups of one round; what they do not bring leaves the seconds as they were.
const LOOKUPS_TIMEOUT: Duration = Duration::from_secs(2);
/// Records looked up for their time in one round; the others keep what was known, so that a group of
/// thousands of moving partitions costs no more than this.
const LOOKUPS_MAX: usize = 64;
/// Remembered times of records, one for each partition of a group that is behind.
const TIMES_MAX: usize = 20_000;

type Times = BTreeMap<(String, TopicPartition), (i64, i64)>;

pub(crate) async fn run(shared: Arc<Shared>) {
    let client =
        Client::new(Config { timeout: TIMEOUT, ..Config::to(&shared.config.bootstrap_servers) });
    // (group, partition) → (offset, time of its record in ms)
    let mut times = Times::new();
    let mut was_well = None;
    // What the page goes on showing while nothing can be measured.
    let mut last = Snapshot::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.tasks.stopping() => return,
            _ = ticks.tick() => {}
        }
        let begun = Instant::now();
        let mut measuring = std::pin::pin!(measure(&client, &mut times));
        let measured = loop {
            tokio::select! {
                () = shared.tasks.stopping() => return,
                measured = &mut measuring => break measured,
                () = tokio::time::sleep(SLOW) => {
                    shared.tracker().miss(now_ms());
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
                last = shared.tracker().step(sample);
                Ok(text)
            }
            Err(error) => {
                shared.tracker().miss(now_ms());
                Err(describe(&error))
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
    }
}

/// Asks the store how it is, apart from the lag: a store that hangs must not hold that up.
pub(crate) async fn watch_store(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.tasks.stopping() => return,
            _ = ticks.tick() => {}
        }
        let health = tokio::select! {
            () = shared.tasks.stopping() => return,
            health = store_health(&shared) => health,
        };
        *shared.store_health() = Some(health);
    }
}

/// An error and what led to it, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

async fn store_health(shared: &Shared) -> Result<String, String> {
    let answer = tokio::time::timeout(TIMEOUT, shared.elastic.get("/_cluster/health")).await;
    match answer {
        Ok(Ok(health)) if health["status"] == "red" => Err("status red".to_owned()),
        // Yellow is what one node without replicas always is.
        Ok(Ok(_)) => Ok("answers".to_owned()),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err(format!("{} does not answer", shared.config.elasticsearch)),
    }
}

/// One round. Commits are read before ends: a race can make lag too large by a moment, never negative.
async fn measure(client: &Client, times: &mut Times) -> Result<Sample, ClientError> {
    let (described, refused) = describe_groups(client).await?;
    let places: BTreeSet<TopicPartition> = described
        .iter()
        .flat_map(|(group, committed)| committed.keys().cloned().chain(assigned(group).into_keys()))
        .collect();
    let places: Vec<_> = places.into_iter().collect();
    let starts = client.list_offsets(&places, OffsetAt::Start).await?;
    let ends = client.list_offsets(&places, OffsetAt::End).await?;
    let mut lookups = Lookups { left: LOOKUPS_MAX, until: Instant::now() + LOOKUPS_TIMEOUT };
    let mut groups = refused;
    for (group, committed) in described {
        let assigned = assigned(&group);
        let read: BTreeSet<_> = committed.keys().chain(assigned.keys()).cloned().collect();
        let mut partitions = Vec::with_capacity(read.len());
        for place in read {
            let known = |answers: &elkfk_broker_client::ListedOffsets| match answers.get(&place) {
                Some(Ok(listed)) => {
                    listed.offset.ok_or_else(|| "the broker named no offset".to_owned())
                }
                Some(Err(refused)) => Err(refused.to_string()),
                None => Err("the broker did not answer for it".to_owned()),
            };
            let both = known(&starts).and_then(|start| Ok((start, known(&ends)?)));
            let offset = committed.get(&place).and_then(|committed: &Committed| {
                (committed.offset >= 0).then_some(committed.offset)
            });
            let mut partition = PartitionSample {
                topic: place.topic.clone(),
                partition: place.partition,
                member: assigned.get(&place).cloned(),
                committed: offset,
                ends: both.as_ref().ok().copied(),
                why_unknown: both.err(),
                committed_record_ms: None,
            };
            if let (Some(offset), Some((start, end))) = (offset, partition.ends) {
                let key = (group.group.clone(), place.clone());
                if offset.max(start) >= end {
                    times.remove(&key);
                } else {
                    partition.committed_record_ms =
                        time_of(client, times, key, offset.max(start), &mut lookups).await;
                }
            }
            partitions.push(partition);
        }
        groups.push(GroupSample {
            group: group.group,
            state: group.state,
            members: group.members.len(),
            partitions,
            why_unknown: None,
        });
    }
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    while times.len() > TIMES_MAX {
        times.pop_first();
    }
    Ok(Sample { now_ms: now_ms(), groups })
}

type Described = (GroupDescription, BTreeMap<TopicPartition, Committed>);

/// What the cluster says of each group, and the groups it says nothing of with why: one that is being
/// moved, or that may not be read, leaves the others as they are.
async fn describe_groups(
    client: &Client,
) -> Result<(Vec<Described>, Vec<GroupSample>), ClientError> {
    let (mut described, mut refused) = (Vec::new(), Vec::new());
    let places = Arc::new(Semaphore::new(GROUPS_AT_ONCE));
    let mut asked = JoinSet::new();
    for listed in client.list_groups().await? {
        let (client, places) = (client.clone(), places.clone());
        asked.spawn(async move {
            let _place = places.acquire().await;
            let ask = async {
                let description = client.describe_group(&listed.group).await?;
                Ok((description, client.committed_offsets(&listed.group).await?))
            };
            let answer: Result<Result<Described, ClientError>, _> =
                tokio::time::timeout(GROUP_TIMEOUT, ask).await;
            let why = match answer {
                Ok(Ok(described)) => return Ok(described),
                Ok(Err(error)) => describe(&error),
                Err(_) => format!("no answer in {} s", GROUP_TIMEOUT.as_secs()),
            };
            Err(GroupSample {
                group: listed.group,
                state: "Unknown".into(),
                why_unknown: Some(why),
                ..GroupSample::default()
            })
        });
    }
    while let Some(answer) = asked.join_next().await {
        match answer.expect("asking for a group neither panics nor is cancelled") {
            Ok(known) => described.push(known),
            Err(unknown) => refused.push(unknown),
        }
    }
    Ok((described, refused))
}

/// Member by partition, as `client id @ host`.
fn assigned(group: &GroupDescription) -> BTreeMap<TopicPartition, String> {
    let mut assigned = BTreeMap::new();
    for member in &group.members {
        for (topic, partitions) in &member.assignment {
            for partition in partitions {
                let name =
                    format!("{} @ {}", member.client_id, member.host.trim_start_matches('/'));
                assigned.insert(TopicPartition::new(topic.clone(), *partition), name);
            }
        }
    }
    assigned
}

/// What may still be looked up in this round.
struct Lookups {
    left: usize,
    until: Instant,
}

/// The time of the record at `offset`: as remembered, or read from the broker.
async fn time_of(
    client: &Client,
    times: &mut Times,
    key: (String, TopicPartition),
    offset: i64,
    lookups: &mut Lookups,
) -> Option<i64> {
    let remembered = times.get(&key).copied();
    if let Some((at, ms)) = remembered
        && (at == offset || lookups.left == 0 || Instant::now() >= lookups.until)
    {
        return Some(ms);
    }
    lookups.left = lookups.left.checked_sub(1)?;
    // A record that cannot be read (deleted meanwhile, say) leaves the seconds unknown, not wrong.
    let read = tokio::time::timeout_at(lookups.until, client.fetch_record(&key.1, offset)).await;
    // Records of old producers have no time, which is said as -1.
    let ms = read.ok()?.ok()??.timestamp_ms;
    if ms < 0 {
        return None;
    }
    times.insert(key, (offset, ms));
    Some(ms)
}

#[cfg(test)]
mod tests;
