//! The line from files to indices on one page: rate, lag and latency of each hop, and what holds it up.

mod bottleneck;
mod sample;

use std::sync::Arc;
use std::time::Duration;

use elkfk_broker_client::lag::{Drain, GroupLag, Snapshot};
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
    let hops = vec![
        files(sample, &flow),
        shipper(sample, &flow),
        topics(&facts, &snapshot, in_rate, offline, broker_why.clone()),
        sinks(sample, sink.as_ref(), &groups, out_rate),
        indices(sample, index_rate, end_to_end_s),
    ];
    let line = Line {
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

fn worst(groups: &[&GroupLag]) -> Option<Worst> {
    let all = groups.iter().flat_map(|group| group.topics.iter().map(move |topic| (group, topic)));
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
        "latency_s": null,
        "detail": {},
    })
}

const NO_SHIPPER: &str = "no shipper runs in this process";

fn files(sample: &Sample, flow: &Flow) -> Value {
    let Some(shipper) = &sample.shipper else {
        return hop("files", None, None, NO_SHIPPER.to_owned());
    };
    let rate = flow.rate(|sample| sample.shipper.as_ref().map(|shipper| shipper.lines));
    let files = shipper.files;
    let text = format!("{files} file{}", if files == 1.0 { "" } else { "s" });
    let mut hop = hop("files", rate, Some(true), text);
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
    hop["lag_seconds"] = seconds.reduce(f64::max).into();
    hop["detail"] = json!({
        "topics": shown,
        "partitions": partitions,
        "brokers": facts.brokers.len(),
        "offline": offline,
        "under_replicated": under,
    });
    hop
}

fn sinks(sample: &Sample, sink: Option<&Sink>, groups: &[&GroupLag], rate: Option<f64>) -> Value {
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
        hop["latency_s"] = sink.bulk_seconds_mean.into();
        hop["detail"] = json!({
            "records": sink.records,
            "delivered": sink.delivered,
            "dropped": sink.dropped,
            "dead_letters": sink.dead_letters,
            "grok_failures": sink.grok_failures,
            "blocked_share": sink.blocked_share,
            "bulk_seconds_mean": sink.bulk_seconds_mean,
            "workers": sink.workers,
            "consumers": sink.consumers,
            "groups": sink.groups,
            "last_error": sink.last_error,
        });
    }
    hop
}

fn indices(sample: &Sample, rate: Option<f64>, end_to_end_s: Option<f64>) -> Value {
    match &sample.index {
        None => hop("indices", None, None, "the index is being asked".to_owned()),
        Some(Err(why)) => hop("indices", None, Some(false), why.clone()),
        Some(Ok(index)) => {
            let count = index.indices;
            let text = format!("{count} {}", if count == 1 { "index" } else { "indices" });
            let mut hop = hop("indices", rate, Some(true), text);
            hop["latency_s"] = end_to_end_s.into();
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
        let sink = sinks(&sample, None, &[], None);
        assert_eq!(
            (&sink["ok"], &sink["text"]),
            (&false.into(), &"http://a:1: no answer in 3 s".into())
        );
        let indices = indices(&sample, None, None);
        assert_eq!(
            (&indices["ok"], &indices["text"]),
            (&false.into(), &"http://b does not answer".into())
        );
    }
}
