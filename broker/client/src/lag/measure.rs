//! Shell: asks the cluster for offsets, over the Kafka protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use elkfk_base::now_ms;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{GroupSample, PartitionSample, Retention, Sample};
use crate::{
    Client, ClientError, Committed, GroupDescription, ListedOffsets, OffsetAt, TopicPartition,
};

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
/// Up to this many partitions of groups are measured once a second; twice as many half as often.
const PARTITIONS_PER_SECOND: usize = 500;
const EVERY_MAX: Duration = Duration::from_secs(15);
/// In a cluster beyond that, who reads and where partitions begin is asked this often only.
const SLOW_FACTS: Duration = Duration::from_secs(10);

/// How long topics keep their records changes when somebody changes it.
const RETENTIONS_EVERY: Duration = Duration::from_secs(60);
/// How large partitions are changes slowly; a partition that is new to be asked for has less patience.
const SIZES_EVERY: Duration = Duration::from_secs(30);
const NEW_SIZES_EVERY: Duration = Duration::from_secs(5);

/// (group, partition) → (offset, time of its record in ms)
type Times = BTreeMap<(String, TopicPartition), (i64, i64)>;

/// Takes samples of one cluster, round by round.
#[derive(Debug)]
pub struct Meter {
    client: Client,
    times: Times,
    /// Partitions of groups in the last round.
    partitions: usize,
    descriptions: BTreeMap<String, (Instant, GroupDescription)>,
    starts: ListedOffsets,
    starts_at: Option<Instant>,
    /// Of topics that a group is behind on; `None`: the brokers do not say.
    retentions: BTreeMap<String, Option<Retention>>,
    retentions_at: Option<Instant>,
    /// Of partitions of these whose bytes are a reason to delete.
    sizes: BTreeMap<TopicPartition, u64>,
    sizes_at: Option<Instant>,
    /// Listed in the last round; while a broker does not answer, before it too.
    known_groups: BTreeSet<String>,
}

impl Meter {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            times: Times::new(),
            partitions: 0,
            descriptions: BTreeMap::new(),
            starts: ListedOffsets::new(),
            starts_at: None,
            retentions: BTreeMap::new(),
            retentions_at: None,
            sizes: BTreeMap::new(),
            sizes_at: None,
            known_groups: BTreeSet::new(),
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long to wait between two rounds: a second, longer in a large cluster, so that watching it
    /// costs no more than watching a small one.
    pub fn every(&self) -> Duration {
        let seconds = self.partitions as f64 / PARTITIONS_PER_SECOND as f64;
        Duration::from_secs_f64(seconds.max(1.0)).min(EVERY_MAX)
    }

    fn is_large(&self) -> bool {
        self.partitions > PARTITIONS_PER_SECOND
    }

    /// One round. Commits are read before ends: a race can make lag too large by what arrives in
    /// between, never negative.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be asked; what failed for single groups and partitions is in the answer.
    pub async fn sample(&mut self) -> Result<Sample, ClientError> {
        let (described, refused) = self.describe_groups().await?;
        let places: BTreeSet<TopicPartition> = described
            .iter()
            .flat_map(|(group, committed)| {
                committed.keys().cloned().chain(assigned(group).into_keys())
            })
            .collect();
        let places: Vec<_> = places.into_iter().collect();
        self.read_starts(&places).await?;
        let ends = self.client.list_offsets(&places, OffsetAt::End).await?;
        let behind = described.iter().flat_map(|(_, committed)| committed).filter(|(place, at)| {
            at.offset >= 0 && known(&ends, place).is_ok_and(|end| at.offset < end)
        });
        let behind: BTreeSet<&TopicPartition> = behind.map(|(place, _)| place).collect();
        self.read_retentions(&behind).await;
        let mut lookups = Lookups { left: LOOKUPS_MAX, until: Instant::now() + LOOKUPS_TIMEOUT };
        let mut groups = refused;
        self.partitions = 0;
        for (group, committed) in described {
            let assigned = assigned(&group);
            let read: BTreeSet<_> = committed.keys().chain(assigned.keys()).cloned().collect();
            let mut partitions = Vec::with_capacity(read.len());
            for place in read {
                let both = known(&self.starts, &place)
                    .and_then(|start| Ok((start, known(&ends, &place)?)));
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
                    retention: None,
                };
                if let (Some(offset), Some((start, end))) = (offset, partition.ends) {
                    let key = (group.group.clone(), place.clone());
                    if offset.max(start) >= end {
                        self.times.remove(&key);
                    } else {
                        partition.retention = self.retention_of(&place);
                        partition.committed_record_ms =
                            self.time_of(key, offset.max(start), &mut lookups).await;
                    }
                }
                partitions.push(partition);
            }
            self.partitions += partitions.len();
            groups.push(GroupSample {
                group: group.group,
                state: group.state,
                members: group.members.len(),
                partitions,
                why_unknown: None,
            });
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        while self.times.len() > TIMES_MAX {
            self.times.pop_first();
        }
        Ok(Sample { now_ms: now_ms(), groups })
    }

    async fn read_starts(&mut self, places: &[TopicPartition]) -> Result<(), ClientError> {
        let is_fresh = self.starts_at.is_some_and(|at| at.elapsed() < SLOW_FACTS);
        let has_all = || places.iter().all(|place| matches!(self.starts.get(place), Some(Ok(_))));
        if !(self.is_large() && is_fresh && has_all()) {
            self.starts = self.client.list_offsets(places, OffsetAt::Start).await?;
            self.starts_at = Some(Instant::now());
        }
        Ok(())
    }

    /// How long what is behind is kept. A broker that does not say leaves it as it was known.
    async fn read_retentions(&mut self, behind: &BTreeSet<&TopicPartition>) {
        let is_fresh =
            |at: Option<Instant>, every| at.is_some_and(|at: Instant| at.elapsed() < every);
        let has_all = is_fresh(self.retentions_at, RETENTIONS_EVERY);
        let topics: BTreeSet<&str> = behind.iter().map(|place| place.topic.as_str()).collect();
        let wanted: Vec<&str> = topics
            .into_iter()
            .filter(|topic| !has_all || !self.retentions.contains_key(*topic))
            .collect();
        if !wanted.is_empty() {
            let asked = self.client.topic_settings(&wanted, &Retention::SETTINGS);
            let told = tokio::time::timeout(LOOKUPS_TIMEOUT, asked).await;
            if !has_all {
                self.retentions_at = Some(Instant::now());
            }
            match told {
                Ok(Ok(settings)) => {
                    if !has_all {
                        self.retentions.clear();
                    }
                    for topic in wanted {
                        let retention = settings.get(topic).and_then(Retention::of);
                        self.retentions.insert(topic.to_owned(), retention);
                    }
                }
                _ => {
                    for topic in wanted {
                        self.retentions.entry(topic.to_owned()).or_default();
                    }
                }
            }
        }
        let is_sized = |place: &&&TopicPartition| {
            let retention = self.retentions.get(&place.topic).copied().flatten();
            retention.is_some_and(|retention| retention.bytes.is_some())
        };
        let sized: Vec<&TopicPartition> = behind.iter().filter(is_sized).copied().collect();
        let has_all = sized.iter().all(|place| self.sizes.contains_key(*place));
        let every = if has_all { SIZES_EVERY } else { NEW_SIZES_EVERY };
        if !sized.is_empty() && !is_fresh(self.sizes_at, every) {
            let asked = self.client.log_sizes_of(&sized);
            if let Ok(Ok(sizes)) = tokio::time::timeout(LOOKUPS_TIMEOUT, asked).await {
                self.sizes = sizes.partitions;
            }
            self.sizes_at = Some(Instant::now());
        }
    }

    fn retention_of(&self, place: &TopicPartition) -> Option<Retention> {
        let retention = self.retentions.get(&place.topic).copied().flatten()?;
        let size_bytes = retention.bytes.and_then(|_| self.sizes.get(place).copied());
        Some(Retention { size_bytes, ..retention })
    }

    /// What the cluster says of each group, and the groups it says nothing of with why: one that is
    /// being moved, or that may not be read, leaves the others as they are.
    async fn describe_groups(&mut self) -> Result<(Vec<Described>, Vec<GroupSample>), ClientError> {
        let (mut described, mut refused) = (Vec::new(), Vec::new());
        let places = Arc::new(Semaphore::new(GROUPS_AT_ONCE));
        let mut asked = JoinSet::new();
        let is_large = self.is_large();
        let mut before = std::mem::take(&mut self.descriptions);
        let listed = self.client.list_groups().await?;
        let gap = listed.gap();
        let named: BTreeSet<String> =
            listed.groups.iter().map(|group| group.group.clone()).collect();
        if let Some(gap) = &gap {
            // Those of a broker that does not answer are not gone.
            refused.extend(self.known_groups.difference(&named).map(|group| GroupSample {
                group: group.clone(),
                state: "Unknown".into(),
                why_unknown: Some(gap.clone()),
                ..GroupSample::default()
            }));
            self.known_groups.extend(named);
        } else {
            self.known_groups = named;
        }
        for listed in listed.groups {
            let (client, places) = (self.client.clone(), places.clone());
            let known = before
                .remove(&listed.group)
                .filter(|(at, _)| is_large && at.elapsed() < SLOW_FACTS);
            asked.spawn(async move {
                let _place = places.acquire().await;
                let ask = async {
                    let description = match known {
                        Some(known) => known,
                        None => (Instant::now(), client.describe_group(&listed.group).await?),
                    };
                    Ok((description, client.committed_offsets(&listed.group).await?))
                };
                let answer: Result<Result<_, ClientError>, _> =
                    tokio::time::timeout(GROUP_TIMEOUT, ask).await;
                let why = match answer {
                    Ok(Ok(described)) => return Ok(described),
                    Ok(Err(error)) => error.in_one_line(),
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
                Ok(((at, description), committed)) => {
                    if is_large {
                        let name = description.group.clone();
                        self.descriptions.insert(name, (at, description.clone()));
                    }
                    described.push((description, committed));
                }
                Err(unknown) => refused.push(unknown),
            }
        }
        Ok((described, refused))
    }

    /// The time of the record at `offset`: as remembered, or read from the broker.
    async fn time_of(
        &mut self,
        key: (String, TopicPartition),
        offset: i64,
        lookups: &mut Lookups,
    ) -> Option<i64> {
        let remembered = self.times.get(&key).copied();
        if let Some((at, ms)) = remembered
            && (at == offset || lookups.left == 0 || Instant::now() >= lookups.until)
        {
            return Some(ms);
        }
        lookups.left = lookups.left.checked_sub(1)?;
        // A record that cannot be read (deleted meanwhile, say) leaves the seconds unknown, not wrong.
        let read =
            tokio::time::timeout_at(lookups.until, self.client.fetch_record(&key.1, offset)).await;
        // Records of old producers have no time, which is said as -1.
        let ms = read.ok()?.ok()??.timestamp_ms;
        if ms < 0 {
            return None;
        }
        self.times.insert(key, (offset, ms));
        Some(ms)
    }
}

type Described = (GroupDescription, BTreeMap<TopicPartition, Committed>);

/// What may still be looked up in a round.
struct Lookups {
    left: usize,
    until: Instant,
}

fn known(answers: &ListedOffsets, place: &TopicPartition) -> Result<i64, String> {
    match answers.get(place) {
        Some(Ok(listed)) => listed.offset.ok_or_else(|| "the broker named no offset".to_owned()),
        Some(Err(refused)) => Err(refused.to_string()),
        None => Err("the broker did not answer for it".to_owned()),
    }
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
