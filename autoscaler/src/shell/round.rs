//! One round: look, let each ladder decide, write, act.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use elkfk_broker_client::lag::{GroupSample, Meter, Sample};
use elkfk_broker_client::{Client, ClientError, Cluster, OffsetAt, Topic, TopicPartition};
use tracing::{debug, error, info, warn};

use super::act::{Hands, Subject};
use super::decisions::Decisions;
use super::facts::Facts;
use super::ladders::{self, Ladders, Pair};
use super::lock::Lock;
use super::metrics;
use super::observe::{self, Look, Members, Offsets};
use super::record::{Looked, Recorder};
use super::sinks::Sinks;
use super::{Config, MEMORY_MS, now_ms};
use crate::ladder::{self, Decision, Event, Mode, Parameters};

/// Facts are asked for again after this long, sooner where rounds are short.
const FACTS_EVERY: Duration = Duration::from_secs(60);

/// Everything that lasts from round to round, while this instance decides.
#[derive(Debug)]
pub(crate) struct Rounds<'c> {
    config: &'c Config,
    meter: Meter,
    decisions: Decisions,
    sinks: Sinks,
    ladders: Ladders,
    facts: BTreeMap<String, Facts>,
    /// What was last said of trouble, by its place, so that it is said once.
    told: BTreeMap<String, String>,
}

/// What a ladder decided, and what is needed to do it.
#[derive(Debug)]
struct Decided {
    pair: Pair,
    members: Members,
    events: Vec<Event>,
}

impl<'c> Rounds<'c> {
    pub(crate) fn new(config: &'c Config, client: Client) -> Self {
        Self {
            config,
            decisions: Decisions::new(client.clone(), config.decisions_topic.clone()),
            meter: Meter::new(client),
            sinks: Sinks::new(&config.sinks),
            ladders: Ladders::new(ladders::BYTES_MAX),
            facts: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn parameters(&self, topic: &str) -> &Parameters {
        self.config.settings.of(topic)
    }

    /// Reads what earlier instances decided, as far back as it can matter.
    pub(crate) async fn resume(&mut self, now_ms: i64) -> Result<(), ClientError> {
        self.ladders.clear();
        self.decisions.ensure().await?;
        let mut offset = self.decisions.offset_since(now_ms - MEMORY_MS).await?;
        let (mut events, mut foreign) = (0, 0);
        loop {
            let page = self.decisions.read(offset, Duration::ZERO).await?;
            for event in &page.events {
                let (group, topic) = event.of();
                let pair = (group.to_owned(), topic.to_owned());
                let parameters = self.config.settings.of(topic);
                // Before anything is measured it holds next to nothing.
                if let Ok(ladder) = self.ladders.of(&pair, 0, event.at_ms(), parameters) {
                    ladder.remember([event]);
                }
            }
            events += page.events.len();
            foreign += page.foreign;
            if page.is_last() || page.next_offset <= offset {
                break;
            }
            offset = page.next_offset;
        }
        if foreign > 0 {
            warn!(topic = %self.config.decisions_topic, foreign, "records that are no events were passed over");
        }
        info!(topic = %self.config.decisions_topic, events, "earlier decisions read");
        Ok(())
    }

    /// Says `trouble` once, until it is another or none.
    fn tell(&mut self, place: &str, trouble: Option<String>) {
        match trouble {
            None => {
                if self.told.remove(place).is_some() {
                    info!(place, "can be looked at again");
                }
            }
            Some(why) => {
                if self.told.get(place) != Some(&why) {
                    warn!(place, error = %why, "cannot be looked at");
                    self.told.insert(place.to_owned(), why);
                }
            }
        }
    }

    pub(crate) async fn round(&mut self, lock: &Lock, recorder: &mut Option<Recorder>) {
        // What cannot be asked now may well be the lock's own trouble: nothing is decided meanwhile.
        if let Err(error) = lock.check().await {
            metrics::FAILED_ROUNDS.inc();
            self.tell("lock", Some(error.to_string()));
            return;
        }
        self.tell("lock", None);
        self.sinks.look().await;
        let looked = self.look().await;
        let (sample, cluster) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                metrics::FAILED_ROUNDS.inc();
                return self.tell("cluster", Some(error.in_one_line()));
            }
        };
        metrics::ROUNDS.inc();
        self.tell("cluster", None);
        let mut decided = Vec::new();
        for pair in self.pairs(&sample) {
            let place = format!("{}/{}", pair.0, pair.1);
            match self.decide(&pair, &sample, &cluster, recorder).await {
                Ok(one) => {
                    self.tell(&place, None);
                    decided.push(one);
                }
                Err(why) => self.tell(&place, Some(why)),
            }
        }
        self.forget(&cluster);
        self.carry_out(lock, decided).await;
    }

    /// Offsets, then metadata: partitions made in between are then asked for apart.
    async fn look(&mut self) -> Result<(Sample, Cluster), ClientError> {
        let sample = self.meter.sample().await?;
        let cluster = self.meter.client().metadata(None).await?;
        Ok((sample, cluster))
    }

    /// Which group reads which topic, as far as it is to be watched.
    fn pairs(&self, sample: &Sample) -> BTreeSet<Pair> {
        let config = self.config;
        let is_wanted = |topic: &str| {
            (config.topics.is_empty() || config.topics.iter().any(|wanted| wanted == topic))
                && topic != config.decisions_topic
                && !topic.starts_with("__")
        };
        let figures = self.sinks.sinks.iter().filter_map(|sink| sink.figures.as_ref());
        let inputs: Vec<_> = figures.flat_map(|figures| &figures.inputs).collect();
        let groups: BTreeSet<&str> = match config.groups.as_slice() {
            [] => inputs.iter().map(|input| input.group.as_str()).collect(),
            named => named.iter().map(String::as_str).collect(),
        };
        let mut pairs = BTreeSet::new();
        for group in groups {
            let own = inputs.iter().filter(|input| input.group == group);
            let mut topics: BTreeSet<&str> =
                own.flat_map(|input| &input.topics).map(String::as_str).collect();
            // Of a group that is not a sink's, or whose sink has not said yet: what it has read.
            if topics.is_empty() {
                let read = sample.groups.iter().filter(|sampled| sampled.group == group);
                topics.extend(read.flat_map(|one| &one.partitions).map(|p| p.topic.as_str()));
            }
            let topics = topics.into_iter().filter(|topic| is_wanted(topic));
            pairs.extend(topics.map(|topic| (group.to_owned(), topic.to_owned())));
        }
        pairs
    }

    async fn decide(
        &mut self,
        pair: &Pair,
        sample: &Sample,
        cluster: &Cluster,
        recorder: &mut Option<Recorder>,
    ) -> Result<Decided, String> {
        let (group, topic) = pair;
        let client = self.meter.client().clone();
        let found = cluster.topic(topic).filter(|topic| !topic.partitions.is_empty());
        let found = found.ok_or_else(|| format!("there is no topic {topic}"))?;
        let nobody =
            GroupSample { group: group.clone(), state: "Dead".into(), ..GroupSample::default() };
        let known = sample.groups.iter().find(|one| one.group == *group);
        if let Some(why) = known.and_then(|sampled| sampled.why_unknown.as_ref()) {
            return Err(why.clone());
        }
        // A group that is not there is not asked for: the question alone would make brokers keep groups.
        let members = match known {
            None => Members::default(),
            Some(_) => {
                let described = client.describe_group(group).await;
                Members::of(&described.map_err(|error| error.in_one_line())?, topic)
            }
        };
        let sampled = known.unwrap_or(&nobody);
        let missing = ends_of(&client, found, &observe::missing(sampled, found)).await?;
        let offsets = Offsets::of(sampled, found, &missing)?;

        let interval = Duration::from_secs_f64(self.parameters(topic).interval_s);
        let facts = self.facts.entry(topic.clone()).or_default();
        let refreshed = facts.refresh(&client, found, &offsets.ends, FACTS_EVERY.min(interval * 4));
        if let Err(error) = refreshed.await {
            debug!(topic, %error, "facts not asked");
            if !facts.are_known() {
                return Err(error.in_one_line());
            }
        }
        if !facts.are_known() {
            return Err("settings and keys of the topic are not known".to_owned());
        }
        let reading: Vec<_> = self.sinks.reading(group, topic).collect();
        let counted = ladder::Cluster {
            brokers: observe::count(cluster.brokers.len()),
            replicas: replicas(cluster),
        };
        let look = Look {
            sample,
            group: sampled,
            members,
            topic: found,
            offsets: &offsets,
            facts,
            cluster: &counted,
            sinks: &reading,
        };
        let observation = look.observation();
        // A sink that does not answer cannot say that Elasticsearch blocks it: then nothing is done, only said.
        let is_blind = observation.sink.is_none() && !self.config.sinks.is_empty();
        let mut parameters = self.parameters(topic).clone();
        if is_blind && parameters.mode == Mode::Auto {
            parameters.mode = Mode::Advise;
        }
        let now_ms = now_ms();
        if let Some(recorder) = recorder {
            let (group, topic) = pair.clone();
            recorder.write(&Looked {
                at_ms: now_ms,
                group,
                topic,
                observation: observation.clone(),
            });
        }
        let of_topic = self.config.settings.of(topic);
        let ladder = self.ladders.of(pair, found.partitions.len(), now_ms, of_topic)?;
        ladder.set_parameters(parameters);
        let events = ladder.step(now_ms, &observation);
        Ok(Decided { pair: pair.clone(), members, events })
    }

    /// Topics that are gone need no facts and no ladder, groups that are gone no ladder.
    fn forget(&mut self, cluster: &Cluster) {
        self.facts.retain(|topic, _| cluster.topic(topic).is_some());
        self.ladders.forget(now_ms(), |topic| cluster.topic(topic).is_some());
    }

    /// Writes every event of the round, then performs the actions among them.
    async fn carry_out(&mut self, lock: &Lock, decided: Vec<Decided>) {
        let events: Vec<Event> = decided.iter().flat_map(|one| one.events.clone()).collect();
        if events.is_empty() {
            return;
        }
        for event in &events {
            say(event);
        }
        let written = self.write(&events).await;
        let mut effects = Vec::new();
        for Decided { pair, members, events } in &decided {
            for event in events {
                let Event::Decision(decision) = event else { continue };
                let Some(action) = decision.action else { continue };
                let done = match &written {
                    Ok(()) => {
                        let hands = Hands { client: self.meter.client(), sinks: &self.sinks, lock };
                        let subject = Subject { group: &pair.0, topic: &pair.1, members: *members };
                        hands.perform(subject, action).await
                    }
                    Err(why) => Err(format!("the decision could not be written: {why}")),
                };
                match done {
                    Ok(()) => metrics::ACTIONS.inc(),
                    Err(why) => {
                        metrics::FAILED_ACTIONS.inc();
                        effects.extend(self.failed(pair, decision, &why));
                    }
                }
            }
        }
        if !effects.is_empty() {
            // What fails here is in the log already.
            let _ = self.write(&effects).await;
        }
    }

    fn failed(&mut self, pair: &Pair, decision: &Decision, why: &str) -> Option<Event> {
        error!(group = %pair.0, topic = %pair.1, rule = decision.rule.name(), error = why, "not carried out");
        self.ladders.get_mut(pair)?.not_carried_out(now_ms(), decision, why)
    }

    async fn write(&mut self, events: &[Event]) -> Result<(), String> {
        let written = self.decisions.write(events).await.map_err(|error| error.in_one_line());
        let place = format!("topic {}", self.config.decisions_topic);
        self.tell(&place, written.clone().err());
        if written.is_ok() {
            metrics::EVENTS.inc_by(events.len() as u64);
        }
        written
    }
}

fn say(event: &Event) {
    match event {
        Event::Decision(decision) => {
            let (group, topic, rule) = (&decision.group, &decision.topic, decision.rule.name());
            let alarms: Vec<_> = decision.alarms.iter().map(ladder::Alarm::name).collect();
            let alarms = alarms.join(", ");
            if !alarms.is_empty() {
                warn!(%group, %topic, rule, %alarms, why = %decision.why, "alarm");
            } else if decision.action.is_some() || decision.advised.is_some() {
                info!(%group, %topic, rule, mode = decision.mode.name(), why = %decision.why, "decided");
            } else {
                debug!(%group, %topic, rule, why = %decision.why, "decided");
            }
        }
        Event::Effect(effect) => {
            info!(group = %effect.group, topic = %effect.topic, verdict = effect.verdict.name(), why = %effect.why, "effect");
        }
    }
}

/// Start and end of some partitions of a topic.
async fn ends_of(
    client: &Client,
    topic: &Topic,
    partitions: &[i32],
) -> Result<BTreeMap<i32, (i64, i64)>, String> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let places: Vec<_> =
        partitions.iter().map(|at| TopicPartition::new(topic.name.clone(), *at)).collect();
    let ask = async |at| client.list_offsets(&places, at).await.map_err(|e| e.in_one_line());
    let (starts, ends) = (ask(OffsetAt::Start).await?, ask(OffsetAt::End).await?);
    let known = |answers: &elkfk_broker_client::ListedOffsets, place| {
        answers.get(place).and_then(|answer| answer.as_ref().ok()?.offset)
    };
    let both = places.iter().filter_map(|place| {
        Some((place.partition, (known(&starts, place)?, known(&ends, place)?)))
    });
    Ok(both.collect())
}

fn replicas(cluster: &Cluster) -> u64 {
    let partitions = cluster.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.replicas.len() as u64).sum()
}
