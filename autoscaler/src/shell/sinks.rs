//! The sinks' own API: how busy they are, and asking them for workers and consumers.
//!
//! `GET /_node/stats` holds their figures under the key `elkfk`; `PUT /_node/pipelines/main` takes
//! `{"workers": n}` or `{"consumers": n}`. What a sink says is bounded before it is believed.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

/// A larger answer is refused rather than held in memory.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);
/// No process has more threads or consumers than this, whatever it says.
const COUNT_MAX: u32 = 10_000;
/// Inputs taken from one sink, topics of each, and bytes of a name.
const INPUTS_MAX: usize = 100;
const NAMES_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 249;
/// Of a refusal, for the log and for events.
const REASON_CHARS_MAX: usize = 200;

/// Why a sink could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkError {
    #[error("{url} does not answer: {source}")]
    Unreachable { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} did not answer within {} s", TIMEOUT.as_secs())]
    Slow { url: String },
    #[error("{url} answered {status}: {reason}")]
    Refused { url: String, status: u16, reason: String },
    #[error("{url}: no figures of a sink in the answer: {reason}")]
    Foreign { url: String, reason: String },
}

/// What a sink says of itself.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub(crate) struct Figures {
    /// Seconds in which reading waited for Elasticsearch, summed over consumers, since the sink started;
    /// never falls.
    pub blocked_s: f64,
    /// The sink's own idea of the share, lately.
    #[serde(default)]
    pub blocked_share: f64,
    #[serde(default)]
    pub is_elasticsearch_away: bool,
    pub workers: u32,
    pub workers_max: u32,
    /// Of each input.
    pub consumers: u32,
    pub consumers_max: u32,
    /// Who reads what; left out, every group reads every topic.
    #[serde(default)]
    pub inputs: Vec<Input>,
    #[serde(default, rename = "group", deserialize_with = "one_or_many")]
    pub groups: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub topics: Vec<String>,
}

/// One of a sink's inputs.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub(crate) struct Input {
    pub group: String,
    #[serde(default)]
    pub topics: Vec<String>,
    #[serde(default)]
    pub consumers: u32,
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(name) => vec![name],
        OneOrMany::Many(names) => names,
    })
}

impl Figures {
    /// From an answer, within what can be.
    fn read(answer: &[u8]) -> Result<Self, String> {
        let mut answer: Value =
            serde_json::from_slice(answer).map_err(|error| format!("not JSON: {error}"))?;
        let of_sink = answer.get_mut("elkfk").map(Value::take).ok_or("no key elkfk")?;
        let mut figures: Self =
            serde_json::from_value(of_sink).map_err(|error| error.to_string())?;
        if !(figures.blocked_s.is_finite() && figures.blocked_s >= 0.0) {
            return Err(format!("blocked_s = {}", figures.blocked_s));
        }
        figures.blocked_share = share(figures.blocked_share);
        let most = |count: &mut u32| *count = (*count).min(COUNT_MAX);
        most(&mut figures.workers);
        most(&mut figures.workers_max);
        most(&mut figures.consumers);
        most(&mut figures.consumers_max);
        // A maximum below what is there would make less of it than is.
        figures.workers_max = figures.workers_max.max(figures.workers);
        figures.consumers_max = figures.consumers_max.max(figures.consumers);
        if figures.inputs.is_empty() {
            let (groups, topics) = (figures.groups.iter().cloned(), &figures.topics);
            let consumers = figures.consumers;
            figures.inputs =
                groups.map(|group| Input { group, topics: topics.clone(), consumers }).collect();
        }
        let is_name = |name: &String| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        figures.inputs.retain(|input| is_name(&input.group));
        figures.inputs.truncate(INPUTS_MAX);
        for input in &mut figures.inputs {
            most(&mut input.consumers);
            input.topics.retain(is_name);
            input.topics.truncate(NAMES_MAX);
        }
        Ok(figures)
    }

    pub(crate) fn reads(&self, group: &str, topic: &str) -> bool {
        self.inputs.iter().any(|input| {
            input.group == group
                && (input.topics.is_empty() || input.topics.iter().any(|name| name == topic))
        })
    }

    /// Consumers of all inputs.
    fn all_consumers(&self) -> u32 {
        let all = self.inputs.iter().map(|input| input.consumers).fold(0, u32::saturating_add);
        if all == 0 { self.consumers } else { all }
    }
}

fn share(share: f64) -> f64 {
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
}

/// One sink, as it was last seen.
#[derive(Debug)]
pub(crate) struct Sink {
    pub url: String,
    /// The last that it said; also while it does not answer.
    pub figures: Option<Figures>,
    pub is_answering: bool,
    /// Share of the time since the last look in which it waited for Elasticsearch.
    pub blocked_share: f64,
    looked: Option<(Instant, f64)>,
    was_told: bool,
}

impl Sink {
    fn new(url: String) -> Self {
        Self {
            url,
            figures: None,
            is_answering: false,
            blocked_share: 0.0,
            looked: None,
            was_told: false,
        }
    }

    /// Figures, if they are of now.
    pub(crate) fn now(&self) -> Option<&Figures> {
        self.figures.as_ref().filter(|_| self.is_answering)
    }

    fn take(&mut self, now: Instant, answer: Result<Figures, SinkError>) {
        match answer {
            Ok(figures) => {
                self.blocked_share = match self.looked {
                    Some((then, before)) if figures.blocked_s >= before && now > then => {
                        let consumers = f64::from(figures.all_consumers().max(1));
                        let waited_s = figures.blocked_s - before;
                        share(waited_s / ((now - then).as_secs_f64() * consumers))
                    }
                    // The first look, or the sink was started anew.
                    _ => figures.blocked_share,
                };
                self.looked = Some((now, figures.blocked_s));
                if !self.is_answering && self.was_told {
                    info!(peer = %self.url, "sink answers again");
                }
                (self.is_answering, self.was_told) = (true, false);
                self.figures = Some(figures);
            }
            Err(error) => {
                if !self.was_told {
                    warn!(peer = %self.url, %error, "sink cannot be asked");
                }
                (self.is_answering, self.was_told) = (false, true);
                self.looked = None;
            }
        }
    }
}

/// All sinks there are to ask.
#[derive(Debug)]
pub(crate) struct Sinks {
    client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) sinks: Vec<Sink>,
}

/// Why a URL is none of a sink's API.
pub(crate) fn url_mistake(url: &str) -> Option<String> {
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => None,
        Ok(_) => Some(format!("sink {url}: give http://HOST:PORT of its API")),
        Err(error) => Some(format!("sink {url}: {error}; give http://HOST:PORT of its API")),
    }
}

impl Sinks {
    pub(crate) fn new(urls: &[String]) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let sinks = urls.iter().map(|url| Sink::new(url.trim_end_matches('/').to_owned()));
        Self { client, sinks: sinks.collect() }
    }

    /// Asks every sink how it is.
    pub(crate) async fn look(&mut self) {
        let mut asked = JoinSet::new();
        for (at, sink) in self.sinks.iter().enumerate() {
            let (client, url) = (self.client.clone(), sink.url.clone());
            asked.spawn(async move {
                let answer = call(&client, &url, Method::GET, "/_node/stats", Bytes::new()).await;
                let figures = answer.and_then(|body| {
                    Figures::read(&body).map_err(|reason| SinkError::Foreign { url, reason })
                });
                (at, Instant::now(), figures)
            });
        }
        while let Some(answer) = asked.join_next().await {
            let (at, now, figures) = answer.expect("asking a sink neither panics nor is cancelled");
            self.sinks[at].take(now, figures);
        }
    }

    /// Those that read `topic` in `group`, as they last said.
    pub(crate) fn reading<'a>(
        &'a self,
        group: &'a str,
        topic: &'a str,
    ) -> impl Iterator<Item = &'a Sink> {
        self.sinks
            .iter()
            .filter(move |sink| sink.figures.as_ref().is_some_and(|f| f.reads(group, topic)))
    }

    /// Asks for a count of `what`: `workers` or `consumers`.
    pub(crate) async fn ask_for(&self, url: &str, what: &str, count: u32) -> Result<(), SinkError> {
        let body = json!({ what: count }).to_string();
        call(&self.client, url, Method::PUT, "/_node/pipelines/main", body.into()).await.map(drop)
    }
}

async fn call(
    client: &Client<HttpConnector, Full<Bytes>>,
    url: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, SinkError> {
    let unreachable = |source| SinkError::Unreachable { url: url.to_owned(), source };
    let request = Request::builder()
        .method(method)
        .uri(format!("{url}{path}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| unreachable(error.into()))?;
    let exchange = async {
        let answer = client.request(request).await.map_err(|error| unreachable(error.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(unreachable)?.to_bytes()))
    };
    let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| SinkError::Slow { url: url.to_owned() })??;
    if status.is_success() {
        return Ok(body);
    }
    let reason = String::from_utf8_lossy(&body).chars().take(REASON_CHARS_MAX).collect();
    Err(SinkError::Refused { url: url.to_owned(), status: status.as_u16(), reason })
}

/// How many of `total` each sink gets, in their order: evenly, one at least, none above its maximum.
pub(crate) fn spread(total: u32, maxima: &[u32]) -> Vec<u32> {
    let mut shares = vec![1; maxima.len()];
    for _ in maxima.len() as u32..total.min(COUNT_MAX) {
        let open = (0..maxima.len()).filter(|&at| shares[at] < maxima[at]);
        let Some(least) = open.min_by_key(|&at| shares[at]) else { break };
        shares[least] += 1;
    }
    shares
}

#[cfg(test)]
mod tests;
