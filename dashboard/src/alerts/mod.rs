//! Rules over the lag, judged with each measurement; receivers that are told.

mod measure;
pub(crate) mod notify;
mod page_url;
mod post;
mod rule;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use elkfk_base::durable;
use elkfk_broker_client::lag::Snapshot;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;

use crate::api::{Answer, Problem};
use crate::ask::Params;
use crate::marks::{Kind, Mark};
use crate::{Shared, hold, now_ms};
use measure::Metric;
use notify::Note;
use rule::Rule;
use watch::{Change, Held, Watch};

const RULES_MAX: usize = 200;
const RECEIVERS_MAX: usize = 20;
/// Targets told of one rule.
const TARGETS_MAX: usize = 20;
/// Series that a preview looks at, and spans it tells.
const SERIES_MAX: usize = 2_000;
const SPANS_MAX: usize = 200;
const SILENCE_S_MAX: i64 = 30 * 86_400;
/// Changes in one message.
const CHANGES_MAX: usize = 50;
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receiver {
    pub(crate) name: String,
    pub(crate) kind: ReceiverKind,
    pub(crate) url: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReceiverKind {
    Webhook,
}

/// What is kept on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    rules: Vec<Rule>,
    #[serde(default)]
    receivers: Vec<Receiver>,
    /// Rule → until when, in milliseconds.
    #[serde(default)]
    silences: BTreeMap<String, i64>,
    /// Where the page was when somebody last changed rules or receivers: messages lead there.
    #[serde(default)]
    page_url: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Alerts {
    kept: Kept,
    watch: Watch,
    /// Receiver → when it was last told, or why it could not be.
    told: BTreeMap<String, (i64, Result<(), String>)>,
    measured_ms: i64,
    /// What began while its rule was silenced, to be told when that ends.
    untold: BTreeMap<(String, measure::Target), Change>,
    path: Option<PathBuf>,
    /// Held while the file is written, so that the newest is the last.
    writing: Arc<Mutex<()>>,
}

/// Reads the rules that were kept, and adds those that came with the program.
pub(crate) fn open(data: Option<&Path>) -> Alerts {
    let path = data.map(|data| data.join("alerts.json"));
    let mut kept = path.as_deref().map(read).unwrap_or_default();
    for shipped in rule::shipped() {
        if !kept.rules.iter().any(|rule| rule.id == shipped.id) {
            kept.rules.push(shipped);
        }
    }
    Alerts {
        kept,
        watch: Watch::default(),
        told: BTreeMap::new(),
        measured_ms: now_ms(),
        untold: BTreeMap::new(),
        path,
        writing: Arc::default(),
    }
}

fn read(path: &Path) -> Kept {
    let read = || -> std::io::Result<Kept> {
        if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other("it is too large"));
        }
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    };
    match read() {
        Ok(mut kept) => {
            kept.rules.retain(|rule| rule.check().is_ok() && !rule.id.is_empty());
            kept.rules.truncate(RULES_MAX);
            kept.receivers.truncate(RECEIVERS_MAX);
            kept
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
        Err(error) => {
            warn!(path = %path.display(), %error, "the alert rules cannot be read; the shipped ones are in force");
            Kept::default()
        }
    }
}

impl Alerts {
    /// Judges all rules; `measured` is none where the cluster did not answer: then only how long that is
    /// can be judged.
    fn judge(
        &mut self,
        now_ms: i64,
        measured: Option<(&Snapshot, &crate::cluster::Facts)>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if measured.is_some() {
            self.measured_ms = now_ms;
        }
        for rule in self.kept.rules.iter().filter(|rule| rule.enabled) {
            let values = match measured {
                _ if rule.metric == Metric::SilentSeconds => {
                    let silent_s = (now_ms - self.measured_ms).max(0) as f64 / 1000.0;
                    vec![(measure::Target::new("", ""), Some(silent_s))]
                }
                Some((snapshot, facts)) => {
                    measure::values(rule.metric, snapshot, facts, |group, topic| {
                        rule.fits(group, topic)
                    })
                }
                None => continue,
            };
            self.watch.step(now_ms, rule, values, &mut changes);
        }
        changes
    }

    /// The messages that `changes` make, one for each receiver. What begins while its rule is silenced is
    /// told when the silence ends, unless it is over by then.
    fn notes(&mut self, now_ms: i64, changes: &[Change], page_url: &str) -> Vec<Note> {
        let silences = &self.kept.silences;
        let is_silenced = |id: &str| silences.get(id).is_some_and(|until_ms| *until_ms > now_ms);
        let key = |change: &Change| (change.rule.id.clone(), change.target.clone());
        let mut due: Vec<Change> = Vec::new();
        for change in changes {
            if change.is_over {
                // That it is over interests who was told that it began.
                if self.untold.remove(&key(change)).is_none() {
                    due.push(change.clone());
                }
            } else if is_silenced(&change.rule.id) {
                self.untold.insert(key(change), change.clone());
            } else {
                due.push(change.clone());
            }
        }
        let (later, now): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.untold).into_iter().partition(|((id, _), _)| is_silenced(id));
        self.untold = later;
        due.extend(now.into_values());
        let note = |receiver: &Receiver| {
            let of_it: Vec<&Change> =
                due.iter().filter(|change| change.rule.receiver == receiver.name).collect();
            (!of_it.is_empty()).then(|| notify::note(receiver, &of_it, page_url, now_ms))
        };
        self.kept.receivers.iter().filter_map(note).collect()
    }

    /// A rule that was changed or removed begins anew: answers with what is over thereby. It is told as it
    /// was told that it began, to the receiver that the rule had.
    fn forget(&mut self, rule: &Rule) -> Vec<Change> {
        let mut over = Vec::new();
        self.watch.forget(rule, &mut over);
        // What was never told that it began is not told that it is over either.
        over.retain(|change| {
            !self.untold.contains_key(&(change.rule.id.clone(), change.target.clone()))
        });
        self.untold.retain(|(id, _), _| *id != rule.id);
        over
    }

    pub(crate) fn told(&mut self, receiver: &str, now_ms: i64, result: Result<(), String>) {
        if self.kept.receivers.iter().any(|one| one.name == receiver) {
            self.told.insert(receiver.to_owned(), (now_ms, result));
        }
    }

    fn row(&self, rule: &Rule, now_ms: i64) -> Value {
        let mut held: Vec<(&measure::Target, &Held)> = self.watch.of(&rule.id).collect();
        let silenced_until = self.kept.silences.get(&rule.id).copied().filter(|ms| *ms > now_ms);
        let is_firing = held.iter().any(|(_, held)| held.is_firing);
        let state = match (silenced_until, is_firing, held.is_empty()) {
            (Some(_), ..) => "silenced",
            (None, true, _) => "firing",
            (None, false, false) => "pending",
            (None, false, true) => "ok",
        };
        held.sort_by_key(|(_, held)| (!held.is_firing, held.since_ms));
        let text = held.first().map(|(target, held)| {
            let value = if held.value.is_infinite() {
                "never".into()
            } else {
                format!("{:.1}", held.value)
            };
            let more = held_more(&self.watch, &rule.id);
            format!("{}: {} is {value}{more}", target.text(), rule.metric.name())
        });
        let mut row = serde_json::to_value(rule).unwrap_or_default();
        row["state"] = state.into();
        row["since_ms"] = held.first().map(|(_, held)| held.since_ms).into();
        row["text"] = text.unwrap_or_else(|| rule.text()).into();
        row["silenced_until_ms"] = silenced_until.into();
        row["targets_total"] = held.len().into();
        let targets = held.iter().take(TARGETS_MAX).map(|(target, held)| {
            json!({
                "group": target.group,
                "topic": target.topic,
                "place": target.place,
                "since_ms": held.since_ms,
                "firing": held.is_firing,
                "value": held.value.is_finite().then_some(held.value),
            })
        });
        row["targets"] = targets.collect::<Vec<_>>().into();
        row
    }
}

fn held_more(watch: &Watch, id: &str) -> String {
    match watch.of(id).count() {
        0 | 1 => String::new(),
        count => format!(", and {} more", count - 1),
    }
}

/// Judges the rules with a new measurement, marks what begins or ends, and has receivers told.
pub(crate) fn look(shared: &Shared, snapshot: Option<&Snapshot>) {
    let facts = hold(&shared.cluster).clone();
    let now_ms = now_ms();
    let (changes, notes) = {
        let mut alerts = hold(&shared.alerts);
        let changes = alerts.judge(now_ms, snapshot.map(|snapshot| (snapshot, &*facts)));
        let page_url = page_url::of(&shared.config, &alerts);
        let notes = alerts.notes(now_ms, &changes, &page_url);
        (changes, notes)
    };
    tell(shared, now_ms, &changes, notes);
}

/// Marks what began or ended, and sends the messages on their way.
fn tell(shared: &Shared, now_ms: i64, changes: &[Change], notes: Vec<Note>) {
    for change in changes.iter().take(CHANGES_MAX) {
        let mut mark = Mark::new(now_ms, Kind::Alert, notify::summary(change));
        if !change.target.group.is_empty() {
            mark = mark.of_group(&change.target.group);
        }
        if !change.target.topic.is_empty() {
            mark = mark.of_topic(&change.target.topic);
        }
        hold(&shared.marks).add(mark);
    }
    for note in notes {
        if let Err(error) = shared.notes.try_send(note) {
            warn!(%error, "a message of an alert is left out, for too many wait");
        }
    }
}

pub(crate) fn list(shared: &Shared) -> Value {
    let alerts = hold(&shared.alerts);
    let now_ms = now_ms();
    let rules: Vec<Value> = alerts.kept.rules.iter().map(|rule| alerts.row(rule, now_ms)).collect();
    let receivers = alerts.kept.receivers.iter().map(|receiver| {
        let mut row = serde_json::to_value(receiver).unwrap_or_default();
        let told = alerts.told.get(&receiver.name);
        row["told_ms"] = told.map(|(at_ms, _)| *at_ms).into();
        row["why"] = told.and_then(|(_, result)| result.as_ref().err().cloned()).into();
        row
    });
    json!({
        "rules": rules,
        "receivers": receivers.collect::<Vec<_>>(),
        "metrics": Metric::ALL.map(Metric::name),
        "can_edit": true,
        "is_kept": alerts.path.is_some(),
    })
}

pub(crate) async fn put_rule(shared: &Arc<Shared>, body: Value) -> Answer {
    let mut rule: Rule = serde_json::from_value(body)
        .map_err(|error| Problem::wrong(format!("this is no rule: {error}")))?;
    rule.check().map_err(Problem::wrong)?;
    let mut over = Default::default();
    let row = {
        let mut alerts = hold(&shared.alerts);
        let kept = &mut alerts.kept;
        if !rule.receiver.is_empty() && !kept.receivers.iter().any(|one| one.name == rule.receiver)
        {
            return Err(Problem::wrong(format!("there is no receiver {:?}", rule.receiver)));
        }
        if rule.id.is_empty() {
            rule.id = new_id(&rule.name, &kept.rules);
        }
        let at = kept.rules.iter().position(|one| one.id == rule.id);
        let before = at.map(|at| kept.rules[at].clone());
        rule.shipped = before.as_ref().is_some_and(|before| before.shipped);
        match at {
            Some(at) => kept.rules[at] = rule.clone(),
            None if kept.rules.len() >= RULES_MAX => {
                return Err(Problem::wrong(format!("there are no more than {RULES_MAX} rules")));
            }
            None => kept.rules.push(rule.clone()),
        }
        // What is saved as it was goes on as it was.
        if let Some(before) = before.filter(|before| *before != rule) {
            over = begin_anew(shared, &mut alerts, &before);
        }
        alerts.row(&rule, now_ms())
    };
    tell(shared, now_ms(), &over.0, over.1);
    keep(shared).await?;
    Ok(json!({ "rule": row }))
}

/// What is over because its rule was changed or removed, and who is told.
fn begin_anew(shared: &Shared, alerts: &mut Alerts, before: &Rule) -> (Vec<Change>, Vec<Note>) {
    let over = alerts.forget(before);
    let page_url = page_url::of(&shared.config, alerts);
    let notes = alerts.notes(now_ms(), &over, &page_url);
    (over, notes)
}

/// A name that is free, made of the rule's own.
fn new_id(name: &str, rules: &[Rule]) -> String {
    let plain = name
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '-' });
    let plain: String = plain.take(60).collect();
    let mut id = plain.clone();
    let mut count = 2;
    while rules.iter().any(|rule| rule.id == id) {
        id = format!("{plain}-{count}");
        count += 1;
    }
    id
}

pub(crate) async fn delete_rule(shared: &Arc<Shared>, params: &Params) -> Answer {
    let id = params.text("id");
    let (over, notes) = {
        let mut alerts = hold(&shared.alerts);
        let rules = &mut alerts.kept.rules;
        let before = match rules.iter().position(|rule| rule.id == id) {
            None => return Err(Problem::missing(format!("there is no rule {id:?}"))),
            Some(at) if rules[at].shipped => {
                return Err(Problem::wrong(
                    "a rule that came with the program is switched off, not removed",
                ));
            }
            Some(at) => rules.remove(at),
        };
        let over = begin_anew(shared, &mut alerts, &before);
        alerts.kept.silences.remove(id);
        over
    };
    tell(shared, now_ms(), &over, notes);
    keep(shared).await?;
    Ok(json!({"removed": id}))
}

pub(crate) async fn preview(shared: &Arc<Shared>, mut body: Value) -> Answer {
    // It is tried while it is written: its name may come last.
    if body["name"].as_str().is_none_or(|name| name.trim().is_empty()) && body.is_object() {
        body["name"] = "preview".into();
    }
    let rule: Rule = serde_json::from_value(body)
        .map_err(|error| Problem::wrong(format!("this is no rule: {error}")))?;
    rule.check().map_err(Problem::wrong)?;
    if !rule.metric.is_in_history() {
        let why =
            "The history holds lag, seconds behind and rates; this metric is judged from now on.";
        return Ok(json!({"would_have_fired": null, "spans": [], "over_s": 0, "why": why}));
    }
    let shared = shared.clone();
    let look_back = tokio::task::spawn_blocking(move || {
        let wanted = |group: &str, topic: &str| rule.fits(group, topic);
        let mut series = hold(&shared.memory).histories.series(wanted);
        series.truncate(SERIES_MAX);
        let (mut oldest, mut spans) = (None, Vec::new());
        for one in &series {
            // One by one: all points together are large, and others wait for what is held here.
            let points = hold(&shared.memory).histories.past(one);
            let first = points.first().map(|(at_ms, _)| *at_ms);
            oldest = first.into_iter().chain(oldest).min();
            spans.extend(watch::spans(&rule, &points));
        }
        spans.sort_unstable();
        let count = spans.len();
        // The newest are those that are remembered.
        let spans = spans.split_off(count.saturating_sub(SPANS_MAX));
        let over_s = oldest.map_or(0, |oldest| (now_ms() - oldest) / 1000);
        json!({"would_have_fired": count, "spans": spans, "over_s": over_s, "series": series.len()})
    });
    look_back.await.map_err(|error| Problem::away(error.to_string()))
}

pub(crate) async fn silence(shared: &Arc<Shared>, body: Value) -> Answer {
    let (id, for_s) = (body["id"].as_str().unwrap_or_default(), body["for_s"].as_i64());
    let for_s = for_s.filter(|for_s| (0..=SILENCE_S_MAX).contains(for_s));
    let for_s =
        for_s.ok_or_else(|| Problem::wrong("silence for up to 30 days, in seconds; 0 ends it"))?;
    let until_ms = now_ms() + for_s * 1000;
    let row = {
        let mut alerts = hold(&shared.alerts);
        let rule = alerts.kept.rules.iter().find(|rule| rule.id == id).cloned();
        let rule = rule.ok_or_else(|| Problem::missing(format!("there is no rule {id:?}")))?;
        if for_s == 0 {
            alerts.kept.silences.remove(id);
        } else {
            alerts.kept.silences.insert(id.to_owned(), until_ms);
        }
        alerts.row(&rule, now_ms())
    };
    keep(shared).await?;
    Ok(json!({"rule": row, "until_ms": (for_s > 0).then_some(until_ms)}))
}

pub(crate) async fn put_receiver(shared: &Arc<Shared>, body: Value) -> Answer {
    let receiver: Receiver = serde_json::from_value(body)
        .map_err(|error| Problem::wrong(format!("this is no receiver: {error}")))?;
    if receiver.name.trim().is_empty() || receiver.name.len() > 100 {
        return Err(Problem::wrong("a receiver needs a name of at most 100 bytes"));
    }
    post::check_url(&receiver.url).map_err(Problem::wrong)?;
    {
        let mut alerts = hold(&shared.alerts);
        let receivers = &mut alerts.kept.receivers;
        match receivers.iter().position(|one| one.name == receiver.name) {
            Some(at) => receivers[at] = receiver.clone(),
            None if receivers.len() >= RECEIVERS_MAX => {
                let text = format!("there are no more than {RECEIVERS_MAX} receivers");
                return Err(Problem::wrong(text));
            }
            None => receivers.push(receiver.clone()),
        }
        alerts.told.remove(&receiver.name);
    }
    keep(shared).await?;
    Ok(json!({ "receiver": receiver }))
}

pub(crate) async fn delete_receiver(shared: &Arc<Shared>, params: &Params) -> Answer {
    let name = params.text("name");
    {
        let mut alerts = hold(&shared.alerts);
        let before = alerts.kept.receivers.len();
        alerts.kept.receivers.retain(|receiver| receiver.name != name);
        if alerts.kept.receivers.len() == before {
            return Err(Problem::missing(format!("there is no receiver {name:?}")));
        }
        alerts.told.remove(name);
        for rule in alerts.kept.rules.iter_mut().filter(|rule| rule.receiver == name) {
            rule.receiver.clear();
        }
    }
    keep(shared).await?;
    Ok(json!({"removed": name}))
}

/// Remembers where the page is, of a request that changes rules or receivers.
pub(crate) fn seen_at(shared: &Shared, host: Option<&str>, origin: Option<&str>) {
    if let Some(url) = page_url::of_request(host, origin) {
        hold(&shared.alerts).kept.page_url = Some(url);
    }
}

/// Writes rules and receivers to disk, where there is one.
async fn keep(shared: &Arc<Shared>) -> Result<(), Problem> {
    let shared = shared.clone();
    let write = move || -> std::io::Result<()> {
        let writing = hold(&shared.alerts).writing.clone();
        let _writing = hold(&writing);
        let (path, json) = {
            let alerts = hold(&shared.alerts);
            let Some(path) = alerts.path.clone() else { return Ok(()) };
            (path, serde_json::to_vec_pretty(&alerts.kept)?)
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        durable::replace(&path, &json)
    };
    let written = tokio::task::spawn_blocking(write).await;
    let written = written.map_err(|error| Problem::away(error.to_string()))?;
    written.map_err(|error| {
        Problem::away(format!(
            "it is in force, but cannot be kept on disk for after a restart: {error}"
        ))
    })
}

#[cfg(test)]
mod tests;
