//! The documents of the API. Pure: facts in, JSON out.

use std::net::SocketAddr;

use elkfk_base::mistakes::did_you_mean;
use serde_json::{Map, Value, json};

use super::machine::{self, Process};
use crate::crew::ScaleError;
use crate::status::Status;

/// The Logstash whose fields these are. Clients look at it for what they may ask.
const VERSION: &str = "8.19.8";
/// The one pipeline of a sink, under the name that Logstash gives one from `-f`.
const PIPELINE: &str = "main";
/// Where a change is put.
pub(super) const CHANGED: &str = "/_node/pipelines/main";

/// Who answers.
#[derive(Debug, Clone)]
pub(super) struct Node {
    name: String,
    address: SocketAddr,
    /// Drawn at the start, as nothing of a sink outlives it.
    id: String,
    system: (String, String),
}

impl Node {
    pub(super) fn new(name: String, address: SocketAddr) -> Self {
        let hex = format!("{:032x}", rand::random::<u128>());
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Self { name, address, id: parts.join("-"), system: machine::system() }
    }
}

/// What is to be told.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) status: Status,
    pub(super) process: Process,
    /// Logstash's `flow`.
    pub(super) rates: Value,
    /// Processors in use.
    pub(super) cpu: f64,
}

/// Why a request is not granted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    pub(super) status: u16,
    message: String,
    pub(super) allow: Option<&'static str>,
    /// What is in force all the same.
    in_force: Option<Value>,
}

impl Problem {
    pub(super) fn new(status: u16, message: &str) -> Self {
        Self { status, message: message.to_owned(), allow: None, in_force: None }
    }

    pub(super) fn method(path: &str) -> Self {
        match path {
            CHANGED => Self {
                allow: Some("GET, HEAD, PUT"),
                ..Self::new(405, "a pipeline is read with GET and changed with PUT")
            },
            _ => Self {
                allow: Some("GET, HEAD"),
                ..Self::new(405, &format!("this is only read; a change is a PUT to {CHANGED}"))
            },
        }
    }

    /// In Logstash's shape.
    pub(super) fn body(&self, path: &str) -> Value {
        let mut body = Map::new();
        body.insert("path".into(), path.into());
        body.insert("status".into(), self.status.into());
        body.insert("error".into(), json!({ "message": self.message }));
        if let Some(in_force) = &self.in_force {
            body.insert("in_force".into(), in_force.clone());
        }
        body.into()
    }
}

/// The answer to a change that was not made.
pub(super) fn not_scaled(error: &ScaleError, status: &Status) -> Problem {
    let code = match error {
        ScaleError::Refused(_) => 400,
        ScaleError::StillLeaving { .. } | ScaleError::Stopping => 503,
        ScaleError::Kafka { .. } | ScaleError::Thread { .. } => 500,
    };
    let in_force = json!({
        "workers": status.workers, "workers_max": status.workers_max,
        "consumers": status.consumers, "consumers_max": status.consumers_max,
    });
    Problem { in_force: Some(in_force), ..Problem::new(code, &error.to_string()) }
}

/// The document at a path.
pub(super) fn get(path: &str, node: &Node, facts: &Facts) -> Result<Value, Problem> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut document = base(node, facts);
    let (mut sections, wanted) = match &parts[..] {
        [] => return Ok(document.into()),
        ["_node", "stats", wanted @ ..] => (stats(facts), wanted),
        ["_node", wanted @ ..] => (info(node, facts), wanted),
        _ => return Err(Problem::new(404, "there are /, /_node, /_node/stats and /metrics")),
    };
    let names: Vec<String> = match wanted {
        [] => sections.keys().cloned().collect(),
        ["pipelines", PIPELINE] => vec!["pipelines".into()],
        ["pipelines", other] => {
            let text = format!("no pipeline \"{other}\": a sink has one, \"{PIPELINE}\"");
            return Err(Problem::new(404, &text));
        }
        [names] => names.split(',').map(str::to_owned).collect(),
        _ => return Err(Problem::new(404, "there is nothing so far below")),
    };
    for name in names {
        let Some(section) = sections.remove(&name) else {
            let known: Vec<&str> = sections.keys().map(String::as_str).collect();
            let hint = did_you_mean(&name, known.iter().copied());
            let text = format!("no section \"{name}\"{hint}; there are {}", known.join(", "));
            return Err(Problem::new(404, &text));
        };
        document.insert(name, section);
    }
    Ok(document.into())
}

/// What every answer begins with.
fn base(node: &Node, facts: &Facts) -> Map<String, Value> {
    let Node { name, address, id, .. } = node;
    let status = &facts.status;
    // The words of Logstash's health report: an outage; in need of a look; well.
    let health = match (status.is_unauthorised, status.is_elasticsearch_away) {
        (true, _) => "red",
        (false, true) => "yellow",
        (false, false) => "green",
    };
    object(json!({
        "host": name, "version": VERSION, "http_address": address.to_string(),
        "id": id, "name": name, "ephemeral_id": id, "status": health, "snapshot": false,
        "pipeline": { "workers": status.workers },
    }))
}

/// `/_node`
fn info(node: &Node, facts: &Facts) -> Map<String, Value> {
    let (system, release) = &node.system;
    object(json!({
        "pipelines": { PIPELINE: {
            "ephemeral_id": node.id,
            "workers": facts.status.workers,
            "consumers": facts.status.consumers,
            "config_reload_automatic": false,
            "dead_letter_queue_enabled": true,
        } },
        "os": {
            "name": system, "arch": std::env::consts::ARCH, "version": release,
            "available_processors": processors(),
        },
    }))
}

/// `/_node/stats`
fn stats(facts: &Facts) -> Map<String, Value> {
    let Facts { status, process, rates, cpu } = facts;
    let millis = |seconds: f64| (seconds * 1000.0) as u64;
    let events = json!({
        "in": status.records,
        "filtered": status.events,
        "out": status.delivered + status.printed,
        "duration_in_millis": millis(status.worked_s),
        "queue_push_duration_in_millis": millis(status.blocked_s),
    });
    let reloads = json!({ "successes": 0, "failures": 0 });
    let in_flight: usize = status.partitions.iter().map(|partition| partition.in_flight).sum();
    let queue = json!({
        "type": "memory", "events_count": in_flight,
        "queue_size_in_bytes": status.held_bytes,
        "max_queue_size_in_bytes": status.held_bytes_max,
    });
    let mut mem = Map::new();
    set(&mut mem, "total_virtual_in_bytes", process.virtual_bytes);
    set(&mut mem, "resident_in_bytes", process.resident_bytes);
    let load =
        process.load.map(|[one, five, fifteen]| json!({ "1m": one, "5m": five, "15m": fifteen }));
    let mut cpu = object(json!({
        "total_in_millis": millis(process.cpu.as_secs_f64()),
        "percent": (cpu * 100.0 / processors() as f64).round() as u64,
    }));
    set(&mut cpu, "load_average", load);
    let mut used = object(json!({ "mem": mem, "cpu": cpu }));
    set(&mut used, "open_file_descriptors", process.open_files);
    set(&mut used, "max_file_descriptors", process.open_files_max);
    object(json!({
        "process": used,
        "events": events,
        "flow": rates,
        "pipelines": { PIPELINE: {
            "events": events, "flow": rates, "reloads": reloads, "queue": queue,
            "pipeline": { "workers": status.workers },
        } },
        "reloads": reloads,
        "queue": { "events_count": in_flight },
        "elkfk": elkfk(status),
    }))
}

/// What only elkfk tells. The autoscaler and the dashboard go by it.
fn elkfk(status: &Status) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": status.uptime_s,
        "records": status.records,
        "events": status.events,
        "delivered": status.delivered,
        "already_there": status.already_there,
        "salvaged": status.salvaged,
        "dead_letters": status.dead_letters,
        "lost": status.lost,
        "skipped": status.skipped,
        "dropped": status.dropped,
        "grok_failures": status.grok_failures,
        "throttled": status.throttled,
        "blocked_s": status.blocked_s,
        "blocked_share": status.blocked_share,
        "worked_s": status.worked_s,
        "is_elasticsearch_away": status.is_elasticsearch_away,
        "is_unauthorised": status.is_unauthorised,
        "workers": status.workers,
        "workers_max": status.workers_max,
        "consumers": status.consumers,
        "consumers_max": status.consumers_max,
        "group": status.groups(),
        "topics": status.topics(),
        "inputs": status.inputs,
        "topic_wait_s": status.topic_wait_s,
        "topic_wait_records": status.topic_wait_records,
        "bulks": status.bulks,
        "bulk_s": status.bulk_s,
        "bulks_in_flight": status.bulks_in_flight,
        "bulk_seconds_mean": status.bulk_seconds_mean,
        "held_bytes": status.held_bytes,
        "held_bytes_max": status.held_bytes_max,
        "last_error": status.last_error,
    })
}

/// Whether `?pretty` or `?pretty=true` is asked for.
pub(super) fn is_pretty(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "pretty" | "pretty=" | "pretty=true"))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn set(fields: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(name.into(), value.into());
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::Refused;
    use crate::status::{InputStatus, PartitionStatus};

    fn facts() -> Facts {
        let partition = |partition| PartitionStatus {
            group: "g".into(),
            topic: "logs".into(),
            partition,
            in_flight: 2,
            committed: None,
        };
        let input = |topic: &str| InputStatus {
            group: "g".into(),
            topics: vec![topic.into()],
            consumers: 2,
            consumers_configured: 1,
        };
        Facts {
            status: Status {
                uptime_s: 60.0,
                records: 100,
                events: 120,
                dropped: 10,
                skipped: 1,
                grok_failures: 3,
                lost: 0,
                delivered: 90,
                already_there: 5,
                printed: 9,
                salvaged: 0,
                dead_letters: 4,
                throttled: 0,
                topic_wait_s: 2.5,
                topic_wait_records: 100,
                bulks: 7,
                bulks_in_flight: 1,
                bulk_s: 1.75,
                bulk_seconds_mean: 0.25,
                worked_s: 1.5,
                blocked_s: 0.25,
                blocked_share: 0.5,
                held_bytes: 1000,
                held_bytes_max: 2000,
                is_elasticsearch_away: false,
                is_unauthorised: false,
                workers: 2,
                workers_max: 32,
                consumers: 2,
                consumers_max: 32,
                inputs: vec![input("logs"), input("access")],
                partitions: vec![partition(0), partition(1)],
                last_error: None,
            },
            process: Process { open_files: Some(12), ..Process::default() },
            rates: json!({ "input_throughput": { "lifetime": 1.5 } }),
            cpu: 0.0,
        }
    }

    fn ask(path: &str) -> Result<Value, Problem> {
        let node = Node::new("shop-1".into(), SocketAddr::from(([127, 0, 0, 1], 9600)));
        get(path, &node, &facts())
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn every_answer_begins_as_logstashs() {
        for path in ["/", "/_node", "/_node/", "/_node/stats", "/_node/stats/events"] {
            let answer = ask(path).unwrap();
            assert_eq!(answer["host"], "shop-1", "{path}");
            assert_eq!(answer["http_address"], "127.0.0.1:9600");
            assert_eq!(answer["status"], "green");
            assert_eq!(answer["id"].as_str().unwrap().len(), 36);
            assert_eq!(answer["pipeline"]["workers"], 2);
        }
        assert_eq!(ask("/").unwrap().get("pipelines"), None);
    }

    #[test]
    fn stats_have_logstashs_names() {
        let stats = ask("/_node/stats").unwrap();
        let events = json!({
            "in": 100, "filtered": 120, "out": 99,
            "duration_in_millis": 1500, "queue_push_duration_in_millis": 250,
        });
        assert_eq!(stats["events"], events);
        let main = &stats["pipelines"]["main"];
        assert_eq!(main["events"], events);
        assert_eq!(main["flow"]["input_throughput"]["lifetime"], 1.5);
        assert_eq!(main["queue"]["events_count"], 4);
        assert_eq!(stats["process"]["open_file_descriptors"], 12);
        assert!(stats["process"]["cpu"]["percent"].is_u64());
        assert_eq!(stats["process"]["mem"], json!({}), "unknown is not zero");
        assert_eq!(stats.get("jvm"), None);
        assert_eq!(ask("/_node").unwrap()["pipelines"]["main"]["workers"], 2);
        assert_eq!(ask("/_node/pipelines").unwrap()["pipelines"]["main"]["consumers"], 2);
    }

    #[test]
    fn what_the_autoscaler_goes_by_keeps_its_names() {
        let stats = ask("/_node/stats").unwrap();
        let elkfk = &stats["elkfk"];
        let wanted = json!({
            "records": 100, "blocked_s": 0.25, "blocked_share": 0.5,
            "is_elasticsearch_away": false, "workers": 2, "workers_max": 32, "consumers": 2,
            "consumers_max": 32, "group": ["g"], "topics": ["access", "logs"], "dead_letters": 4,
            "lost": 0, "skipped": 1, "dropped": 10, "grok_failures": 3, "bulks_in_flight": 1,
            "bulk_seconds_mean": 0.25, "held_bytes": 1000,
        });
        for name in keys(&wanted) {
            assert_eq!(elkfk[name], wanted[name], "{name}");
        }
    }

    #[test]
    fn sections_are_chosen_by_the_path() {
        let base = keys(&ask("/").unwrap()).len();
        let added = |path| keys(&ask(path).unwrap()).len() - base;
        assert_eq!(added("/_node/stats/process,events"), 2);
        assert_eq!(added("/_node/stats/pipelines/main"), 1);
        assert_eq!(added("/_node/pipelines/main"), 1);
        assert_eq!(added("/_node/os"), 1);
        for (path, text) in [
            ("/_node/stats/jvm", "no section \"jvm\""),
            ("/_node/stats/event", "no section \"event\", did you mean \"events\"?"),
            ("/_node/pipelines/other", "no pipeline \"other\": a sink has one, \"main\""),
            ("/_node/stats/pipelines/main/x", "there is nothing so far below"),
            ("/_cat", "there are /, /_node"),
        ] {
            let problem = ask(path).unwrap_err();
            assert_eq!(problem.status, 404, "{path}");
            let body = problem.body(path);
            assert_eq!((&body["path"], &body["status"]), (&json!(path), &json!(404)));
            assert!(body["error"]["message"].as_str().unwrap().starts_with(text), "{body}");
        }
    }

    #[test]
    fn a_refusal_names_the_cause_and_what_is_in_force() {
        let refused = Refused::OutOfBounds { what: "workers", wanted: 40, max: 32 };
        let problem = not_scaled(&refused.into(), &facts().status);
        let body = problem.body(CHANGED);
        assert_eq!(body["status"], 400);
        assert_eq!(body["error"]["message"], "workers 40: there may be 1 to 32");
        assert_eq!(body["in_force"]["workers"], 2);
        assert_eq!(not_scaled(&ScaleError::Stopping, &facts().status).status, 503);
        assert_eq!(Problem::method(CHANGED).allow, Some("GET, HEAD, PUT"));
        assert_eq!(Problem::method("/").status, 405);
    }

    #[test]
    fn health_follows_the_outputs() {
        let mut facts = facts();
        let node = Node::new("a".into(), SocketAddr::from(([127, 0, 0, 1], 9600)));
        facts.status.is_elasticsearch_away = true;
        assert_eq!(get("/", &node, &facts).unwrap()["status"], "yellow");
        facts.status.is_unauthorised = true;
        assert_eq!(get("/", &node, &facts).unwrap()["status"], "red");
    }

    #[test]
    fn pretty_is_asked_for() {
        assert!(is_pretty("pretty") && is_pretty("a=b&pretty=true"));
        assert!(!is_pretty("") && !is_pretty("pretty=false"));
    }
}
