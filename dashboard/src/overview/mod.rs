//! The line from files to indices on one page: rate, lag and latency of each hop, and what holds it up.

mod bottleneck;
mod sample;

use std::sync::Arc;
use std::time::Duration;

use elkfk_broker_client::lag::{Drain, Figures, GroupLag, Snapshot, State, TopicLag};
use serde_json::{Value, json};

use crate::elastic::Elastic;
use crate::lag::Latest;
use crate::{Shared, hold, now_ms};
use bottleneck::{Line, Worst};
pub(crate) use sample::Flow;
use sample::{Index, Sample, Shipper, Sink};

const EVERY: Duration = Duration::from_secs(3);
/// Who does not answer for this long is shown as away.
const TIMEOUT: Duration = Duration::from_secs(3);
const DECISIONS: usize = 20;

pub(crate) async fn run(shared: Arc<Shared>) {
    let sinks: Vec<(String, Elastic)> =
        shared.config.sinks.iter().map(|url| (url.clone(), Elastic::new(url))).collect();
    loop {
        let sample = tokio::select! {
            () = shared.tasks.stopping() => return,
            sample = look(&shared, &sinks) => sample,
        };
        hold(&shared.flow).push(sample);
        tokio::select! {
            () = shared.tasks.stopping() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn look(shared: &Shared, sinks: &[(String, Elastic)]) -> Sample {
    let at_ms = now_ms();
    let shipper = Shipper::of(&elkfk_base::telemetry::metrics_text());
    let ask_sinks = async {
        let mut answers = Vec::new();
        for (url, sink) in sinks {
            let answer = match tokio::time::timeout(TIMEOUT, sink.get("/_node/stats")).await {
                Ok(Ok(stats)) => Sink::of(&stats).ok_or_else(|| "it is no sink".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer in {} s", TIMEOUT.as_secs())),
            };
            answers.push((url.clone(), answer));
        }
        answers
    };
    let ask_index = async {
        match tokio::time::timeout(TIMEOUT, index(shared)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {} s", TIMEOUT.as_secs())),
        }
    };
    let (sinks, index) = tokio::join!(ask_sinks, ask_index);
    Sample { at_ms, shipper, sinks, index: Some(index) }
}

async fn index(shared: &Shared) -> Result<Index, String> {
    let pattern = &shared.config.index_pattern;
    let cat = format!("/_cat/indices/{pattern}?format=json&bytes=b&h=index,docs.count,store.size");
    let newest = json!({
        "size": 1,
        "_source": false,
        "track_total_hits": false,
        "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "date"}}],
    });
    let told = |error: crate::elastic::ElasticError| error.to_string();
    // No index fits the pattern yet: that is no trouble.
    let cat = match shared.elastic.get(&cat).await {
        Err(crate::elastic::ElasticError::Refused { status: 404, .. }) => {
            return Ok(Index::default());
        }
        cat => cat.map_err(told)?,
    };
    let newest = shared.elastic.post(&shared.search_path(), &newest).await.map_err(told)?;
    Ok(Index::of(&cat, &newest))
}

pub(crate) fn answer(shared: &Shared) -> Value {
    let latest = shared.latest();
    let facts = hold(&shared.cluster).clone();
    let flow = hold(&shared.flow);
    let empty = Sample::default();
    let sample = flow.newest().unwrap_or(&empty);
    let sink = sample.sink();
    let snapshot = latest.as_ref().map(|latest| latest.snapshot.clone()).unwrap_or_default();
    let groups = groups_of(&snapshot, sink.as_ref());
    let docs = |sample: &Sample| sample.known_index().map(|index| index.documents);
    let index_rate = flow.rate(docs);
    let end_to_end_s = sample
        .known_index()
        .and_then(|index| index.newest_ms)
        .filter(|_| index_rate.is_some_and(|rate| rate > 0.0))
        .map(|newest_ms| ((sample.at_ms - newest_ms).max(0)) as f64 / 1000.0);

    let in_rate: Option<f64> = facts
        .topics
        .iter()
        .filter(|topic| !topic.is_internal)
        .filter_map(|topic| topic.in_rate)
        .reduce(|a, b| a + b);
    let offline: usize = facts.topics.iter().map(|topic| topic.offline()).sum();
    let out_rate = flow
        .rate(|sample| sample.sink().map(|sink| sink.records))
        .or_else(|| groups.iter().filter_map(|group| group.figures.out_rate).reduce(|a, b| a + b));
    let broker_why =
        latest.as_ref().and_then(|latest: &Arc<Latest>| latest.broker.as_ref().err().cloned());
    let of_sinks = |of: fn(&Sink) -> Option<(f64, f64)>| {
        flow.mean(|sample| sample.sink().and_then(|sink| of(&sink)))
    };
    let topic_wait_s = sink
        .as_ref()
        .filter(|sink| sink.topic_waits.is_some())
        .map(|_| of_sinks(|sink| sink.topic_wait_s.zip(sink.topic_waits)));
    let bulk_s = of_sinks(|sink| sink.bulk_s.zip(sink.bulks));
    let hops = vec![
        files(sample, &flow),
        shipper(sample, &flow),
        topics(&facts, &snapshot, in_rate, offline, broker_why.clone(), topic_wait_s),
        sinks(sample, sink.as_ref(), &groups, out_rate, bulk_s),
        indices(sample, sink.as_ref(), index_rate, end_to_end_s),
    ];
    let line = Line {
        elsewhere: elsewhere(&snapshot, &groups),
        broker_why,
        index_why: sample.index.as_ref().and_then(|index| index.as_ref().err().cloned()),
        offline,
        worst: worst(&groups),
        in_rate,
        out_rate,
        is_index_away: sink.as_ref().is_some_and(|sink| sink.is_away),
        blocked_share: sink.as_ref().map(|sink| sink.blocked_share),
        workers: sink.as_ref().map(|sink| sink.workers).filter(|workers| *workers > 0),
        unshipped_bytes: sample.shipper.as_ref().map(|shipper| shipper.unshipped_bytes),
        is_unshipped_growing: flow
            .is_growing(|sample| sample.shipper.as_ref().map(|shipper| shipper.unshipped_bytes)),
        is_kafka_up: sample.shipper.as_ref().map(|shipper| shipper.is_kafka_up),
    };
    let decisions = hold(&shared.decisions);
    let bottleneck = bottleneck::find(&line);
    json!({
        "now_ms": now_ms(),
        "hops": hops,
        "bottleneck": bottleneck.as_ref().map(|it| it.sentence.as_str()),
        "bottleneck_hop": bottleneck.as_ref().map(|it| it.hop),
        "end_to_end_s": end_to_end_s,
        "decisions": decisions.newest(DECISIONS, |_| true),
    })
}

/// The groups of the sinks, as far as they say which; else all.
fn groups_of<'a>(snapshot: &'a Snapshot, sink: Option<&Sink>) -> Vec<&'a GroupLag> {
    let of_sink = |group: &&GroupLag| sink.is_some_and(|sink| sink.groups.contains(&group.group));
    let found: Vec<&GroupLag> = snapshot.groups.iter().filter(of_sink).collect();
    if found.is_empty() { snapshot.groups.iter().collect() } else { found }
}

/// The worst of the groups that are none of the sinks' and make no headway with their members there: they
/// stand still, or never catch up. Who has gone and left a group behind holds nobody up.
fn elsewhere(snapshot: &Snapshot, groups: &[&GroupLag]) -> Option<Worst> {
    let others = snapshot
        .groups
        .iter()
        .filter(|group| group.members > 0 && !groups.iter().any(|one| one.group == group.group));
    worst_of(others, |topic| {
        let Figures { state, drain, lag_seconds, .. } = topic.figures;
        let is_behind = lag_seconds.is_some_and(|seconds| seconds >= bottleneck::BEHIND_S);
        state == State::Stalled || drain == Some(Drain::Never) && is_behind
    })
}

fn worst(groups: &[&GroupLag]) -> Option<Worst> {
    worst_of(groups.iter().copied(), |_| true)
}

fn worst_of<'a>(
    groups: impl Iterator<Item = &'a GroupLag>,
    is_wanted: impl Fn(&TopicLag) -> bool,
) -> Option<Worst> {
    let all = groups.flat_map(|group| group.topics.iter().map(move |topic| (group, topic)));
    let all = all.filter(|(_, topic)| is_wanted(topic));
    let behind = all.filter(|(_, topic)| topic.figures.lag.is_some_and(|lag| lag > 0));
    let (group, topic) = behind.max_by(|(_, a), (_, b)| {
        let seconds = |seconds: Option<f64>| seconds.unwrap_or(0.0);
        seconds(a.figures.lag_seconds)
            .total_cmp(&seconds(b.figures.lag_seconds))
            .then(a.figures.lag.cmp(&b.figures.lag))
    })?;
    Some(Worst {
        group: group.group.clone(),
        topic: topic.topic.clone(),
        lag: topic.figures.lag.unwrap_or(0),
        lag_seconds: topic.figures.lag_seconds.unwrap_or(0.0),
        state: topic.figures.state.name().to_owned(),
        members: group.members,
        partitions: topic.partitions.len(),
        drain_s: match topic.figures.drain {
            Some(Drain::Seconds(seconds)) => Some(seconds),
            _ => None,
        },
    })
}

/// One part of the line. `ok` is null where nothing is known of it.
fn hop(name: &str, rate: Option<f64>, ok: Option<bool>, text: String) -> Value {
    json!({
        "name": name,
        "rate": rate.map(|rate| (rate * 1000.0).round() / 1000.0),
        "ok": ok,
        "text": text,
        "lag": null,
        "lag_seconds": null,
        "waiting_bytes": null,
        "latency_s": null,
        "latency_is": null,
        "detail": {},
    })
}

/// How long a record takes there, in seconds, and what that is the time of.
fn takes(hop: &mut Value, latency_s: Option<f64>, what: &str) {
    hop["latency_s"] = latency_s.into();
    hop["latency_is"] = latency_s.map(|_| what).into();
}

const TAKES_FILES: &str = "from when a line stood in its file to when it was read";
const TAKES_SHIPPER: &str = "from the reading of a line to the broker's acknowledgement";
const TAKES_TOPICS: &str = "from the time of a record to when the sink read it";
const TAKES_TOPICS_UNREAD: &str =
    "age of the oldest record that a group has not read, for no sink says how long it waited";
const TAKES_SINK: &str = "from a bulk request to its answer";
const TAKES_INDICES: &str = "from the time of a line to when it was found: the age of the newest";

const NO_SHIPPER: &str = "no shipper runs in this process";

fn files(sample: &Sample, flow: &Flow) -> Value {
    let Some(shipper) = &sample.shipper else {
        return hop("files", None, None, NO_SHIPPER.to_owned());
    };
    let rate = flow.rate(|sample| sample.shipper.as_ref().map(|shipper| shipper.lines));
    let files = shipper.files;
    let text = format!("{files} file{}", if files == 1.0 { "" } else { "s" });
    let mut hop = hop("files", rate, Some(true), text);
    hop["waiting_bytes"] = shipper.unshipped_bytes.into();
    let waits = |shipper: &Shipper| (shipper.file_wait_s, shipper.lines);
    takes(&mut hop, flow.mean(|sample| sample.shipper.as_ref().map(waits)), TAKES_FILES);
    hop["detail"] = json!({"files": files, "unshipped_bytes": shipper.unshipped_bytes});
    hop
}

fn shipper(sample: &Sample, flow: &Flow) -> Value {
    let Some(shipper) = &sample.shipper else {
        return hop("shipper", None, None, NO_SHIPPER.to_owned());
    };
    let rate = flow.rate(|sample| sample.shipper.as_ref().map(|shipper| shipper.acked));
    let text = match (shipper.is_kafka_up, shipper.unshipped_bytes) {
        (false, _) => "the brokers are not reached".to_owned(),
        (true, bytes) if bytes >= 1024.0 => {
            format!("{:.1} MiB to be sent", bytes / f64::from(1 << 20))
        }
        _ => "all is sent".to_owned(),
    };
    let mut hop = hop("shipper", rate, Some(shipper.is_kafka_up), text);
    hop["waiting_bytes"] = shipper.in_flight_bytes.into();
    let acks = |shipper: &Shipper| (shipper.ack_s, shipper.acks);
    takes(&mut hop, flow.mean(|sample| sample.shipper.as_ref().map(acks)), TAKES_SHIPPER);
    hop["detail"] = json!({
        "unshipped_bytes": shipper.unshipped_bytes,
        "in_flight_bytes": shipper.in_flight_bytes,
        "send_failures": shipper.failures,
    });
    hop
}

fn topics(
    facts: &crate::cluster::Facts,
    snapshot: &Snapshot,
    in_rate: Option<f64>,
    offline: usize,
    why: Option<String>,
    // Where a sink says how long: `None` if nothing was read of late.
    wait_s: Option<Option<f64>>,
) -> Value {
    let shown = facts.topics.iter().filter(|topic| !topic.is_internal).count();
    let partitions = facts.partitions();
    let under: usize = facts.topics.iter().map(|topic| topic.under_replicated()).sum();
    let text = match (&why, offline) {
        (Some(why), _) => why.clone(),
        (None, 0) => format!("{shown} topic{}", if shown == 1 { "" } else { "s" }),
        (None, offline) => format!("{offline} partitions have no leader"),
    };
    let ok = (facts.at_ms > 0 || why.is_some()).then_some(why.is_none() && offline == 0);
    let mut hop = hop("topics", in_rate, ok, text);
    let lags = snapshot.groups.iter().filter_map(|group| group.figures.lag);
    hop["lag"] = lags.max().into();
    let seconds = snapshot.groups.iter().filter_map(|group| group.figures.lag_seconds);
    let oldest_s = seconds.reduce(f64::max);
    hop["lag_seconds"] = oldest_s.into();
    match wait_s {
        Some(wait_s) => takes(&mut hop, wait_s, TAKES_TOPICS),
        None => takes(&mut hop, oldest_s, TAKES_TOPICS_UNREAD),
    }
    hop["detail"] = json!({
        "topics": shown,
        "partitions": partitions,
        "brokers": facts.brokers.len(),
        "offline": offline,
        "under_replicated": under,
    });
    hop
}

fn sinks(
    sample: &Sample,
    sink: Option<&Sink>,
    groups: &[&GroupLag],
    rate: Option<f64>,
    bulk_s: Option<f64>,
) -> Value {
    let away: Vec<String> = sample
        .sinks
        .iter()
        .filter_map(|(url, answer)| Some(format!("{url}: {}", answer.as_ref().err()?)))
        .collect();
    let members: usize = groups.iter().map(|group| group.members).sum();
    let (ok, text) = match sink {
        Some(sink) if sink.is_away => (Some(false), "the index is away".to_owned()),
        Some(sink) if away.is_empty() => {
            let (consumers, workers) = (sink.consumers, sink.workers);
            let plural = |count: u64| if count == 1 { "" } else { "s" };
            let (c, w) = (plural(consumers), plural(workers));
            (Some(true), format!("{consumers} consumer{c}, {workers} worker{w}"))
        }
        _ if !away.is_empty() => (Some(false), away.join("; ")),
        _ if groups.is_empty() => (None, "no consumer group".to_owned()),
        _ => (Some(members > 0), format!("{members} members in {} groups", groups.len())),
    };
    let mut hop = hop("sink", rate, ok, text);
    let lags = groups.iter().filter_map(|group| group.figures.lag);
    hop["lag"] = lags.reduce(i64::saturating_add).into();
    let seconds = groups.iter().filter_map(|group| group.figures.lag_seconds);
    hop["lag_seconds"] = seconds.reduce(f64::max).into();
    if let Some(sink) = sink {
        takes(&mut hop, bulk_s, TAKES_SINK);
        hop["detail"] = json!({
            "records": sink.records,
            "delivered": sink.delivered,
            "dropped": sink.dropped,
            "dead_letters": sink.dead_letters,
            "grok_failures": sink.grok_failures,
            "blocked_share": sink.blocked_share,
            "workers": sink.workers,
            "consumers": sink.consumers,
            "groups": sink.groups,
            "last_error": sink.last_error,
        });
    }
    hop
}

fn indices(
    sample: &Sample,
    sink: Option<&Sink>,
    rate: Option<f64>,
    end_to_end_s: Option<f64>,
) -> Value {
    match &sample.index {
        None => hop("indices", None, None, "the index is being asked".to_owned()),
        Some(Err(why)) => hop("indices", None, Some(false), why.clone()),
        Some(Ok(index)) => {
            let count = index.indices;
            let text = format!("{count} {}", if count == 1 { "index" } else { "indices" });
            let mut hop = hop("indices", rate, Some(true), text);
            hop["lag"] = sink.and_then(|sink| sink.in_flight).into();
            takes(&mut hop, end_to_end_s, TAKES_INDICES);
            hop["detail"] = json!({
                "indices": count,
                "documents": index.documents,
                "bytes": index.bytes,
                "newest_ms": index.newest_ms,
            });
            hop
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_says_how_long_a_record_takes_and_what_that_is_the_time_of() {
        let mut flow = Flow::default();
        for n in [0.0, 10.0] {
            let shipper = Shipper {
                lines: n * 10.0,
                file_wait_s: n,
                acks: n * 10.0,
                ack_s: n / 2.0,
                ..Shipper::default()
            };
            flow.push(Sample { at_ms: n as i64, shipper: Some(shipper), ..Sample::default() });
        }
        let sample = flow.newest().unwrap();
        let of = |hop: Value| (hop["latency_s"].as_f64(), hop["latency_is"].clone());
        assert_eq!(of(files(sample, &flow)), (Some(0.1), TAKES_FILES.into()));
        assert_eq!(of(shipper(sample, &flow)), (Some(0.05), TAKES_SHIPPER.into()));

        let figures = Figures { lag: Some(3), lag_seconds: Some(7.0), ..Figures::default() };
        let group = group("billing", 1, figures);
        let snapshot = Snapshot { now_ms: 1, groups: vec![group] };
        let topics = |wait| of(topics(&Default::default(), &snapshot, None, 0, None, wait));
        assert_eq!(topics(Some(Some(0.25))), (Some(0.25), TAKES_TOPICS.into()));
        assert_eq!(topics(Some(None)), (None, Value::Null), "nothing was read of late");
        assert_eq!(topics(None), (Some(7.0), TAKES_TOPICS_UNREAD.into()));

        let sink = Sink { in_flight: Some(40.0), ..Sink::default() };
        let found = Sample { index: Some(Ok(Index::default())), ..Sample::default() };
        let indices = indices(&found, Some(&sink), Some(1.0), Some(1.5));
        assert_eq!(indices["lag"], 40.0);
        assert_eq!(of(indices), (Some(1.5), TAKES_INDICES.into()));
        assert_eq!(
            of(sinks(&found, Some(&sink), &[], None, Some(0.2))),
            (Some(0.2), TAKES_SINK.into())
        );
    }

    fn group(name: &str, members: usize, figures: Figures) -> GroupLag {
        let topic =
            TopicLag { topic: "orders".into(), figures: figures.clone(), ..TopicLag::default() };
        GroupLag {
            group: name.into(),
            state: "Stable".into(),
            members,
            figures,
            topics: vec![topic],
            why: None,
        }
    }

    #[test]
    fn a_group_of_somebody_else_that_makes_no_headway_is_found() {
        let stalled = Figures {
            lag: Some(80),
            lag_seconds: Some(40.0),
            state: State::Stalled,
            ..Figures::default()
        };
        let never = Figures {
            lag: Some(90),
            lag_seconds: Some(20.0),
            drain: Some(Drain::Never),
            ..Figures::default()
        };
        let calm = Figures { lag: Some(0), lag_seconds: Some(0.0), ..Figures::default() };
        let groups = vec![
            group("elkfk-sink", 2, calm.clone()),
            group("left", 0, stalled.clone()),
            group("slow", 1, never),
            group("stuck", 1, stalled),
        ];
        let mut snapshot = Snapshot { now_ms: 1, groups };
        let sink = Sink { groups: vec!["elkfk-sink".into()], ..Sink::default() };
        let found = |snapshot: &Snapshot| {
            elsewhere(snapshot, &groups_of(snapshot, Some(&sink))).map(|it| it.group)
        };
        assert_eq!(found(&snapshot).as_deref(), Some("stuck"));
        snapshot.groups.pop();
        assert_eq!(found(&snapshot).as_deref(), Some("slow"));
        snapshot.groups.pop();
        assert_eq!(found(&snapshot), None, "a group that was left holds nobody up");
    }

    #[test]
    fn what_is_not_known_is_null_and_the_text_says_why() {
        let flow = Flow::default();
        let sample = Sample {
            sinks: vec![("http://a:1".into(), Err("no answer in 3 s".into()))],
            index: Some(Err("http://b does not answer".into())),
            ..Sample::default()
        };
        let files = files(&sample, &flow);
        assert_eq!(
            (&files["ok"], &files["rate"], &files["text"]),
            (&Value::Null, &Value::Null, &NO_SHIPPER.into())
        );
        let sink = sinks(&sample, None, &[], None, None);
        assert_eq!(
            (&sink["ok"], &sink["text"]),
            (&false.into(), &"http://a:1: no answer in 3 s".into())
        );
        let indices = indices(&sample, None, None, None);
        assert_eq!(
            (&indices["ok"], &indices["text"]),
            (&false.into(), &"http://b does not answer".into())
        );
    }
}
