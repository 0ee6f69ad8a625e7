//! What the dashboard's server answers, over our own boxes in this process and over a real Kafka and
//! ZooKeeper: lag, topics, groups and their reset, alerts, the ensemble, metrics, and a history that
//! outlives its process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use elkfk_broker_client::{Client, NewTopic, TopicPartition};
use elkfk_tests::boxes::Boxes;
use elkfk_tests::line::{Index, TestDir};
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::{Process, elkfk};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const RECORDS: i64 = 100;
const COMMITTED: [(i32, i64); 2] = [(0, 10), (1, 20)];
const LONG: Duration = Duration::from_secs(60);

/// Its number shows on the page.
const BROKER: [(&str, &str); 2] = [("broker.id", "7"), ("offsets.topic.num.partitions", "4")];

/// A dashboard in this process, and its answers.
struct Page {
    running: elkfk_dashboard::Running,
    url: String,
    agent: ureq::Agent,
}

impl Page {
    async fn start(bootstrap: &str, zookeeper: Option<&str>, data: Option<&Path>) -> Self {
        let config = elkfk_dashboard::Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bootstrap_servers: bootstrap.to_owned(),
            elasticsearch: "http://127.0.0.1:1".to_owned(),
            zookeeper: zookeeper.map(str::to_owned),
            data: data.map(Path::to_path_buf),
            ..elkfk_dashboard::Config::default()
        };
        let running = elkfk_dashboard::start(config).await.unwrap();
        let url = format!("http://{}", running.local_addr());
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false);
        Self { running, url, agent: agent.build().into() }
    }

    fn text(&self, path: &str) -> (u16, String) {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    fn get(&self, path: &str) -> Value {
        let (status, text) = self.text(path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let mut answer = self.agent.post(format!("{}{path}", self.url)).send_json(body).unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.body_mut().read_json().unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn delete(&self, path: &str) -> (u16, Value) {
        let request = self.agent.delete(format!("{}{path}", self.url));
        let mut answer = request.header("content-type", "application/json").call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut answer = self.agent.put(format!("{}{path}", self.url)).send_json(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    /// Status and body of a request as it is written here.
    fn raw(&self, request: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.running.local_addr()).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What `path` answers once it `is_wanted`.
    fn until(&self, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let (_, text) = self.text(path);
            let answer = serde_json::from_str(&text).unwrap_or_default();
            if is_wanted(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < LONG, "{path} after {LONG:?}: {text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A topic of three partitions with a hundred records each; a group has committed in two of them.
async fn fill(bootstrap: &str) -> Client {
    let client = Client::new(elkfk_broker_client::Config::to(bootstrap));
    for (name, partitions) in [(TOPIC, 3), ("elkfk-autoscaler", 1)] {
        let topic = NewTopic {
            name: name.into(),
            partitions: Some(partitions),
            replication_factor: Some(1),
            ..NewTopic::default()
        };
        assert_eq!(client.create_topic(&topic, false).await.unwrap(), Ok(()));
    }
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let mut sent = Vec::new();
    for partition in 0..3 {
        for n in 0..RECORDS {
            let payload = format!("order {n} <script>alert(1)</script>");
            let record = FutureRecord::<(), _>::to(TOPIC).partition(partition).payload(&payload);
            sent.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
        }
    }
    for (at_ms, action) in
        [(1_000, Value::Null), (2_000, json!({"do": "workers", "from": 1, "to": 2}))]
    {
        let event = json!({"event": "decision", "at_ms": at_ms, "group": GROUP, "topic": TOPIC,
            "mode": "auto", "rule": "workers", "action": action, "inputs": {}, "why": "<b>as a test</b>"});
        let payload = event.to_string();
        let record = FutureRecord::<(), _>::to("elkfk-autoscaler").payload(&payload);
        sent.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    for each in sent {
        each.await.unwrap().unwrap();
    }
    let offsets: BTreeMap<_, _> =
        COMMITTED.iter().map(|(p, offset)| (TopicPartition::new(TOPIC, *p), *offset)).collect();
    let results = client.commit_offsets(GROUP, &offsets).await.unwrap();
    assert!(results.values().all(Result::is_ok), "{results:?}");
    client
}

async fn committed(client: &Client) -> Vec<(i32, i64)> {
    let committed = client.committed_offsets(GROUP).await.unwrap();
    committed.into_iter().map(|(place, one)| (place.partition, one.offset)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_are_answered_on_our_boxes() {
    let dir = TestDir::new();
    let pair = Boxes::start(&dir.path(), &BROKER).await;
    let (bootstrap, zookeeper) =
        (pair.broker.local_addr().to_string(), pair.coordinator.local_addr().to_string());
    walk(&bootstrap, &zookeeper, &dir.path()).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_are_answered_on_a_real_kafka() {
    if !peers::have("the_pages_are_answered_on_a_real_kafka", &[Peer::ZooKeeper, Peer::Kafka]) {
        return;
    }
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zk"), "").unwrap();
    let zookeeper_at = zookeeper.addr.to_string();
    let kafka = peers::kafka(&dir.path().join("kafka"), &zookeeper_at, &[]).unwrap();
    walk(&kafka.addr.to_string(), &zookeeper_at, &dir.path()).await;
}

async fn walk(bootstrap: &str, zookeeper: &str, dir: &Path) {
    let client = fill(bootstrap).await;
    let page = Page::start(bootstrap, Some(zookeeper), Some(&dir.join("dashboard"))).await;
    lag(&page);
    topics(&page);
    groups(&page);
    decisions(&page);
    ensemble(&page);
    metrics(&page);
    guards(&page);
    numbers(&page);
    reset(&page, &client, bootstrap).await;
    alerts(&page);
    let overview = page.get("/api/v1/overview");
    let names: Vec<_> =
        overview["hops"].as_array().unwrap().iter().map(|hop| &hop["name"]).collect();
    assert_eq!(names, ["files", "shipper", "topics", "sink", "indices"]);
    assert_eq!(overview["hops"][4]["ok"], false);
    assert!(overview["bottleneck"].is_string(), "{overview}");
    page.running.stop().await;

    // Rules are there after a restart, and so is the way back of a reset.
    let again = Page::start(bootstrap, None, Some(&dir.join("dashboard"))).await;
    let group = format!("/api/v1/group?group={GROUP}");
    again.until(&group, |group| group["undo"]["text"] == "1 partitions of billing were reset");
    let undone = again.post("/api/v1/group/undo", &json!({"group": GROUP}));
    assert_eq!(undone["executed"], true, "{undone}");
    assert_eq!(committed(&client).await, COMMITTED);
    assert_eq!(again.get(&group)["undo"], Value::Null);
    let rules = again.get("/api/v1/alerts")["rules"].as_array().unwrap().clone();
    assert!(rules.iter().any(|rule| rule["name"] == "Billing stopped"));
    again.running.stop().await;
}

fn lag(page: &Page) {
    let path = format!("/api/v1/lag/partitions?group={GROUP}&topic={TOPIC}&sort=lag&desc=1");
    let is_measured =
        |answer: &Value| answer["total"] == 2 && answer["rows"][0]["leader"].is_number();
    let answer = page.until(&path, is_measured);
    let rows: Vec<_> = answer["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["partition"], &row["lag"], &row["state"]))
        .collect();
    let (zero, one, stopped) = (json!(0), json!(1), json!("stopped"));
    assert_eq!(rows, [(&zero, &json!(90), &stopped), (&one, &json!(80), &stopped)]);
    let one = page.get(&format!("{path}&limit=1&offset=1"));
    assert_eq!((&one["total"], &one["rows"][0]["partition"]), (&json!(2), &json!(1)));

    let whatif = page
        .get(&format!("/api/v1/lag/whatif?group={GROUP}&topic={TOPIC}&partitions=9&consumers=9"));
    assert!(whatif["drain"].is_null() && whatif["why"].is_string(), "{whatif}");
    let heat_path = format!("/api/v1/lag/heat?group={GROUP}&topic={TOPIC}&minutes=30");
    let heat = page.until(&heat_path, |heat| heat["partitions"] == json!([0, 1]));
    assert_eq!(heat["seconds"].as_array().unwrap().len(), 2);

    // The stream has the same without the partitions.
    let socket = TcpStream::connect(page.running.local_addr()).unwrap();
    (&socket).write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(&socket).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "event: snapshot"));
    let data = lines.next().unwrap();
    let snapshot: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    let group = &snapshot["groups"][0];
    assert_eq!((&snapshot["groups_total"], &group["group"]), (&json!(1), &json!(GROUP)));
    assert_eq!((&group["group_state"], &group["state"]), (&json!("Empty"), &json!("stopped")));
    assert_eq!(
        (&group["topics"][0]["partitions"], &group["topics"][0]["lag"]),
        (&json!(2), &json!(170))
    );
}

fn topics(page: &Page) {
    let is_measured =
        |answer: &Value| answer["rows"][0]["size_bytes"].as_i64().is_some_and(|bytes| bytes > 0);
    let answer = page.until("/api/v1/topics?q=ORD&sort=lag&desc=1", is_measured);
    let row = &answer["rows"][0];
    assert_eq!((&answer["total"], &row["topic"]), (&json!(1), &json!(TOPIC)));
    assert_eq!(
        (&row["partitions"], &row["records"], &row["isr_ok"]),
        (&json!(3), &json!(300), &json!(true))
    );
    assert_eq!(
        (&row["groups"][0]["group"], &row["groups"][0]["lag"]),
        (&json!(GROUP), &json!(170))
    );
    let topic = page.get(&format!("/api/v1/topic?topic={TOPIC}"));
    assert_eq!(
        (&topic["partitions_total"], &topic["partitions"][2]["end"]),
        (&json!(3), &json!(RECORDS))
    );
    let configs = topic["configs"].as_array().unwrap();
    let retention = configs.iter().find(|config| config["name"] == "retention.ms").unwrap();
    assert!(retention["value"].is_string() && retention["source"].is_string(), "{retention}");
    assert_eq!(page.text("/api/v1/topic?topic=none").0, 404);
}

fn groups(page: &Page) {
    let answer = page.get("/api/v1/groups?q=bill&sort=lag&desc=1");
    let row = &answer["rows"][0];
    assert_eq!(
        (&answer["total"], &row["group"], &row["lag"]),
        (&json!(1), &json!(GROUP), &json!(170))
    );
    let group = page.get(&format!("/api/v1/group?group={GROUP}"));
    assert_eq!(
        (&group["members"], &group["group_state"], &group["undo"]),
        (&json!([]), &json!("Empty"), &Value::Null)
    );
    assert!(group["coordinator"].is_string() && group["topics"][0]["topic"] == TOPIC, "{group}");
    assert_eq!(page.text("/api/v1/group?group=none").0, 404);
}

fn decisions(page: &Page) {
    let answer = page.until("/api/v1/decisions", |answer| {
        answer["decisions"].as_array().is_some_and(|all| all.len() == 2)
    });
    assert_eq!((&answer["decisions"][0]["at_ms"], &answer["why"]), (&json!(2_000), &Value::Null));
    assert_eq!(answer["decisions"][0]["why"], "<b>as a test</b>");
    let acted = page.get(&format!("/api/v1/decisions?acted=1&topic={TOPIC}"));
    assert_eq!(acted["decisions"].as_array().unwrap().len(), 1);
    let none = page.get("/api/v1/decisions?topic=none");
    assert!(none["why"].is_string(), "{none}");
    let marks = page.get("/api/v1/marks?from_ms=0&to_ms=5000");
    assert_eq!(marks["marks"][0]["kind"], "scaling", "{marks}");
}

fn ensemble(page: &Page) {
    let answer = page.until("/api/v1/ensemble", |answer| answer["servers"][0]["ok"] == true);
    let server = &answer["servers"][0];
    assert!(server["mode"].is_string() && server["version"].is_string(), "{server}");
    assert!(server["zxid"].is_string() && server["latency_ms"]["avg"].is_number(), "{server}");
    let ids = page.get("/api/v1/ensemble/znode?path=/brokers/ids");
    let id = ids["children"][0].as_str().unwrap();
    let broker = page.get(&format!("/api/v1/ensemble/znode?path=/brokers/ids/{id}"));
    assert!(broker["data"]["json"]["port"].is_number(), "{broker}");
    assert!(broker["stat"]["ephemeral_owner"].is_string(), "{broker}");
    assert_eq!(broker["acl"][0]["id"], "anyone");
    assert_eq!(page.text("/api/v1/ensemble/znode?path=/none").0, 404);
    assert_eq!(page.text("/api/v1/ensemble/znode?path=none").0, 400);
}

fn metrics(page: &Page) {
    let (status, text) = page.text("/metrics");
    assert_eq!(status, 200);
    for line in [
        "kafka_brokers 1".to_owned(),
        format!("kafka_topic_partitions{{topic=\"{TOPIC}\"}} 3"),
        format!("kafka_topic_partition_current_offset{{topic=\"{TOPIC}\",partition=\"0\"}} 100"),
        format!("kafka_topic_partition_oldest_offset{{topic=\"{TOPIC}\",partition=\"0\"}} 0"),
        format!("kafka_topic_partition_in_sync_replica{{topic=\"{TOPIC}\",partition=\"0\"}} 1"),
        format!(
            "kafka_consumergroup_current_offset{{consumergroup=\"{GROUP}\",topic=\"{TOPIC}\",partition=\"0\"}} 10"
        ),
        format!(
            "kafka_consumergroup_lag{{consumergroup=\"{GROUP}\",topic=\"{TOPIC}\",partition=\"0\"}} 90"
        ),
        format!("kafka_consumergroup_lag_sum{{consumergroup=\"{GROUP}\",topic=\"{TOPIC}\"}} 170"),
        format!("kafka_consumergroup_members{{consumergroup=\"{GROUP}\"}} 0"),
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    for name in [
        "group_lag_seconds",
        "group_max_lag",
        "group_max_lag_seconds",
        "group_sum_lag",
        "group_offset",
    ] {
        assert!(
            text.contains(&format!("\nkafka_consumergroup_{name}{{cluster_name=")),
            "{name}\n{text}"
        );
    }
}

/// Nothing is changed for another site's page, nor by a plain form.
fn guards(page: &Page) {
    let body = json!({"group": GROUP, "topics": [{"topic": TOPIC, "partitions": null}], "to": {"kind": "latest"}, "execute": true}).to_string();
    let request = |headers: &str| {
        format!(
            "POST /api/v1/group/reset HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(page.raw(&request("content-type: text/plain")).0, 415);
    assert_eq!(
        page.raw(&request("content-type: application/json\r\norigin: https://evil.example")).0,
        403
    );
    assert_eq!(
        page.raw(&request("content-type: application/json\r\nsec-fetch-site: cross-site")).0,
        403
    );
    let rebound =
        request("content-type: application/json").replace("host: localhost", "host: evil.example");
    assert_eq!(page.raw(&rebound).0, 403);
    let elsewhere = request("content-type: application/json").replace("/group/reset", "/lag");
    assert_eq!(page.raw(&elsewhere).0, 405);
    assert_eq!(page.text("/api/v1/none").0, 404);
}

/// A number that is none is told with the parameter, its value and what is allowed.
fn numbers(page: &Page) {
    let lag = format!("/api/v1/lag/partitions?group={GROUP}&topic={TOPIC}");
    for (path, name, value, allowed) in [
        (lag.as_str(), "limit", "ten", "a whole number from 1 to 500"),
        (&lag, "limit", "501", "a whole number from 1 to 500"),
        (&lag, "offset", "-1", "a whole number from 0 to "),
        ("/api/v1/topics?", "limit", "0", "a whole number from 1 to 500"),
        ("/api/v1/groups?", "offset", "1e3", "a whole number from 0 to "),
        ("/api/v1/decisions?", "limit", "1.5", "a whole number from 1 to 500"),
        ("/api/v1/marks?", "from_ms", "yesterday", "a time in whole milliseconds since 1970"),
        ("/api/v1/lag/history?", "to_ms", "9e9", "a time in whole milliseconds since 1970"),
        ("/api/v1/lag/heat?", "minutes", "31", "a whole number from 1 to 30"),
        ("/api/v1/lag/whatif?", "consumers", "0", "a whole number from 1 to 100000"),
        ("/api/v1/tail?", "known", "x", "a whole number from 0 to "),
        ("/api/v1/search?", "size", "1001", "a number up to 1000"),
    ] {
        let (status, text) = page.text(&format!("{path}&{name}={value}"));
        let answer: Value = serde_json::from_str(&text).unwrap();
        let told = answer["error"].as_str().unwrap();
        assert_eq!(status, 400, "{path} {name}={value}: {text}");
        assert!(told.starts_with(&format!("{name}={value:?} is not {allowed}")), "{told}");
    }
}

async fn reset(page: &Page, client: &Client, bootstrap: &str) {
    let wanted = |kind: &str, value: Value, execute: bool| {
        json!({"group": GROUP, "topics": [{"topic": TOPIC, "partitions": null}],
            "to": {"kind": kind, "value": value}, "execute": execute})
    };
    let before = COMMITTED.to_vec();
    assert_eq!(committed(client).await, before);

    let preview = page.post("/api/v1/group/reset", &wanted("latest", Value::Null, false));
    assert_eq!((&preview["executed"], &preview["refused"]), (&json!(false), &Value::Null));
    let rows: Vec<_> = preview["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["from"].as_i64(), row["to"].as_i64(), row["delta"].as_i64()))
        .collect();
    assert_eq!(
        rows,
        [(Some(10), Some(100), Some(90)), (Some(20), Some(100), Some(80)), (None, Some(100), None)]
    );
    assert_eq!(committed(client).await, before);

    let done = page.post("/api/v1/group/reset", &wanted("latest", Value::Null, true));
    assert_eq!(done["executed"], true, "{done}");
    assert!(done["undo_until_ms"].is_i64());
    assert_eq!(committed(client).await, [(0, 100), (1, 100), (2, 100)]);
    let group = page.get(&format!("/api/v1/group?group={GROUP}"));
    assert!(group["undo"]["text"].is_string(), "{group}");

    let undone = page.post("/api/v1/group/undo", &json!({"group": GROUP}));
    assert_eq!(undone["executed"], true, "{undone}");
    assert_eq!(committed(client).await, before);
    let marks = page.get("/api/v1/marks");
    let resets =
        marks["marks"].as_array().unwrap().iter().filter(|mark| mark["kind"] == "reset").count();
    assert!(resets >= 2, "{marks}");

    let part = json!({"group": GROUP, "topics": [{"topic": TOPIC, "partitions": [1]}],
        "to": {"kind": "shift", "value": -5}, "execute": true});
    assert_eq!(page.post("/api/v1/group/reset", &part)["rows"].as_array().unwrap().len(), 1);
    assert_eq!(committed(client).await, [(0, 10), (1, 15)]);

    // While somebody reads, what they read next would be committed over it.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&[TOPIC]).unwrap();
    let begun = Instant::now();
    while consumer.assignment().unwrap().count() < 3 {
        let _ = consumer.poll(Duration::from_millis(100));
        assert!(begun.elapsed() < LONG, "no member in {LONG:?}");
    }
    let refused = page.post("/api/v1/group/reset", &wanted("earliest", Value::Null, true));
    assert_eq!(refused["executed"], false);
    assert!(refused["refused"].as_str().unwrap().contains("1 member"), "{refused}");
    let group = page.get(&format!("/api/v1/group?group={GROUP}"));
    assert_eq!(
        (&group["members"][0]["partitions_total"], &group["members"][0]["idle"]),
        (&json!(3), &json!(false))
    );
    drop(consumer);
    assert_eq!(committed(client).await, [(0, 10), (1, 15)]);
}

/// A receiver of webhooks, and what it is told.
fn hook() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (told, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            let mut reader = BufReader::new(&socket);
            let mut bytes = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    bytes = length.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; bytes];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            (&socket).write_all(answer).unwrap();
            if told.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

fn alerts(page: &Page) {
    // One that takes connections and never answers: it is tried for half a minute.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_url = format!("http://{}/", dead.local_addr().unwrap());
    let (url, told) = hook();
    let soon = Duration::from_secs(15);
    let receiver = |name: &str, url: &str| {
        let receiver = json!({"name": name, "kind": "webhook", "url": url});
        page.put("/api/v1/alerts/receiver", &receiver).0
    };
    assert_eq!(receiver("chat", "file:///x"), 400);
    assert_eq!((receiver("dead", &dead_url), receiver("chat", &url)), (200, 200));
    let rule = |name: &str, receiver: &str| {
        let rule = json!({"name": name, "metric": "stopped", "group": "bill*", "topic": "", "op": ">=",
            "value": 1, "for_s": 0, "severity": "critical", "receiver": receiver, "enabled": true});
        let (status, put) = page.put("/api/v1/alerts/rule", &rule);
        assert_eq!(status, 200, "{put}");
        put["rule"].clone()
    };
    let silent = rule("Told to nobody", "dead");
    page.until("/api/v1/alerts", |list| {
        let rules = list["rules"].as_array().unwrap();
        rules.iter().any(|rule| rule["id"] == silent["id"] && rule["state"] == "firing")
    });
    let put = rule("Billing stopped", "chat");
    let id = put["id"].as_str().unwrap().to_owned();
    let body = told.recv_timeout(soon).expect("the dead one keeps nobody waiting");
    assert_eq!(
        (&body["status"], &body["alerts"][0]["labels"]["group"]),
        (&json!("firing"), &json!(GROUP))
    );
    assert!(body["text"].as_str().unwrap().contains("Billing stopped"), "{body}");
    assert_eq!((&body["externalURL"], &body["truncatedAlerts"]), (&json!(page.url), &json!(0)));
    assert_eq!(body["alerts"][0]["generatorURL"], format!("{}/alerts", page.url));

    // Changed while it fires: what was told is over, and it begins anew. Removed: over.
    let mut changed = put;
    changed["severity"] = json!("warning");
    assert_eq!(page.put("/api/v1/alerts/rule", &changed).0, 200);
    let over = told.recv_timeout(soon).unwrap();
    let labels = &over["alerts"][0]["labels"];
    assert_eq!(
        (&over["status"], &labels["rule"], &labels["severity"]),
        (&json!("resolved"), &json!(id), &json!("critical"))
    );
    let anew = told.recv_timeout(soon).unwrap();
    assert_eq!(
        (&anew["status"], &anew["alerts"][0]["labels"]["severity"]),
        (&json!("firing"), &json!("warning"))
    );
    let once = rule("Once", "chat")["id"].as_str().unwrap().to_owned();
    assert_eq!(told.recv_timeout(soon).unwrap()["status"], "firing");
    assert_eq!(page.delete(&format!("/api/v1/alerts/rule?id={once}")).0, 200);
    let over = told.recv_timeout(soon).unwrap();
    assert_eq!(
        (&over["status"], &over["alerts"][0]["labels"]["rule"]),
        (&json!("resolved"), &json!(once))
    );

    let state = |list: &Value| {
        let rules = list["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["id"] == *id).map(|rule| rule["state"].clone())
    };
    page.until("/api/v1/alerts", |list| state(list) == Some(json!("firing")));
    page.post("/api/v1/alerts/silence", &json!({"id": id, "for_s": 60}));
    assert_eq!(state(&page.get("/api/v1/alerts")), Some(json!("silenced")));
    let behind =
        json!({"name": "x", "metric": "lag", "group": GROUP, "op": ">", "value": 10, "for_s": 0});
    let preview = page.post("/api/v1/alerts/preview", &behind);
    assert!(preview["would_have_fired"].as_i64().unwrap() >= 1, "{preview}");
    assert_eq!(page.put("/api/v1/alerts/rule", &json!({"name": "x"})).0, 400);
    let shipped = "DELETE /api/v1/alerts/rule?id=backlog-old HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n";
    assert_eq!(page.raw(shipped).0, 400);
    let marks = page.get("/api/v1/marks");
    assert!(
        marks["marks"].as_array().unwrap().iter().any(|mark| mark["kind"] == "alert"),
        "{marks}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_outlives_a_stop_and_a_kill() {
    let dir = TestDir::new();
    let pair = Boxes::start(&dir.path(), &BROKER).await;
    let bootstrap = pair.broker.local_addr().to_string();
    fill(&bootstrap).await;
    let path = format!("/api/v1/lag/history?group={GROUP}&topic={TOPIC}");
    let is_lag = |answer: &Value| {
        let points = answer["points"].as_array().map_or(&[][..], Vec::as_slice);
        points.iter().filter(|point| point[1] == 170.0).count()
    };
    let data = dir.path().join("data");
    let page = Page::start(&bootstrap, None, Some(&data)).await;
    page.until(&path, |answer| is_lag(answer) >= 2);
    // What a kill leaves: the files as they are at this moment. A window of ten seconds has closed.
    let history = data.join("history");
    let is_written = || {
        let files = std::fs::read_dir(&history).unwrap().map(|entry| entry.unwrap());
        files
            .filter(|file| file.file_name().to_string_lossy().starts_with("10s-"))
            .map(|file| file.metadata().unwrap().len())
            .sum::<u64>()
            > 60
    };
    let begun = Instant::now();
    while !is_written() {
        assert!(begun.elapsed() < LONG, "nothing is written in {LONG:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let image = dir.path().join("image").join("history");
    std::fs::create_dir_all(&image).unwrap();
    for entry in std::fs::read_dir(&history).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().ends_with(".history") {
            // And a record that was half written.
            let mut bytes = std::fs::read(entry.path()).unwrap();
            bytes.extend([40, 0, 0, 0, 1, 2, 3]);
            std::fs::write(image.join(entry.file_name()), bytes).unwrap();
        }
    }
    page.running.stop().await;

    // Nothing is measured any more: what is shown is what was kept.
    pair.stop().await;
    for folder in [data, dir.path().join("image")] {
        for _ in 0..2 {
            let again = Page::start(&bootstrap, None, Some(&folder)).await;
            let answer = again.until(&path, |answer| is_lag(answer) >= 1);
            let points = answer["points"].as_array().unwrap();
            assert!(
                points.windows(2).all(|two| two[0][0].as_f64() < two[1][0].as_f64()),
                "{answer}"
            );
            again.running.stop().await;
        }
    }
    let marks = Page::start(&bootstrap, None, Some(&dir.path().join("image"))).await;
    let restarts =
        marks.until("/api/v1/marks", |marks| !marks["marks"].as_array().unwrap().is_empty());
    assert!(restarts["marks"].as_array().unwrap().iter().any(|mark| mark["kind"] == "restart"));
    marks.running.stop().await;
}

/// The program itself, killed with -9: what it had measured until some seconds before is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_outlives_a_kill_of_the_process() {
    let dir = TestDir::new();
    let pair = Boxes::start(&dir.path(), &BROKER).await;
    let bootstrap = pair.broker.local_addr().to_string();
    fill(&bootstrap).await;
    let data = dir.path().join("data").display().to_string();
    let start = || {
        let listen = format!("127.0.0.1:{}", elkfk_tests::free_port());
        let mut command = Command::new(elkfk());
        command.args(["dashboard", "--listen", &listen, "--bootstrap-server", &bootstrap]);
        command.args(["--elasticsearch", "http://127.0.0.1:1", "--data", &data]);
        let log = dir.path().join("dashboard.log");
        let process = Process::start("elkfk dashboard", &mut command, &log).unwrap();
        (process, Index::new(&format!("http://{listen}")))
    };
    let points = |page: &Index| {
        let path = format!("/api/v1/lag/history?group={GROUP}&topic={TOPIC}");
        let answer = page.get(&path).unwrap_or_default();
        let points = answer["points"].as_array().cloned().unwrap_or_default();
        points
            .iter()
            .filter(|point| point[1] == 170.0)
            .filter_map(|point| point[0].as_f64())
            .collect::<Vec<_>>()
    };
    let wait = |page: &Index, is_wanted: &dyn Fn(&[f64]) -> bool| {
        let begun = Instant::now();
        loop {
            let points = points(page);
            if is_wanted(&points) {
                return points;
            }
            assert!(begun.elapsed() < LONG, "after {LONG:?}: {points:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let (mut process, page) = start();
    let is_long = |points: &[f64]| {
        points.first().zip(points.last()).is_some_and(|(first, last)| last - first >= 22.0)
    };
    let before = wait(&page, &is_long);
    process.kill();
    let (mut again, page) = start();
    let killed = *before.last().unwrap();
    let after = wait(&page, &|points| points.iter().any(|second| *second < killed));
    // Whole windows of ten seconds are there; the one that was open is lost.
    let kept = after.iter().filter(|second| **second < killed).count();
    assert!(kept >= 2 && after[0] <= before[0], "{before:?} {after:?}");
    again.kill();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_used_does_not_stop_the_page() {
    let dir = TestDir::new();
    let pair = Boxes::start(&dir.path(), &BROKER).await;
    let bootstrap = pair.broker.local_addr().to_string();
    fill(&bootstrap).await;
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let page = Page::start(&bootstrap, None, Some(&file)).await;
    let path = format!("/api/v1/lag/history?group={GROUP}&topic={TOPIC}");
    page.until(&path, |answer| answer["points"].as_array().is_some_and(|points| points.len() >= 2));
    let rule = json!({"name": "x", "metric": "lag", "op": ">", "value": 1});
    let (status, answer) = page.put("/api/v1/alerts/rule", &rule);
    assert_eq!(status, 502, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("in force"), "{answer}");
    page.running.stop().await;
    pair.stop().await;
}
