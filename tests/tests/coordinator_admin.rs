//! The AdminServer of our coordinator beside that of a real ZooKeeper 3.5.7: every command, with the
//! same fields in the same order, and the same values where they are the same.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{Client, Config, CreateMode};
use elkfk_tests::free_port;
use elkfk_tests::peers::{self, Peer};
use serde_json::Value;

fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let mut response = agent.get(format!("http://127.0.0.1:{port}{path}")).call()?;
    Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
}

/// Values that are the same on any two servers with the same history, wherever they stand.
const SAME: [&str; 27] = [
    "command",
    "error",
    "tick_time",
    "max_client_cnxns",
    "min_session_timeout",
    "max_session_timeout",
    "read_only",
    "tracemask",
    "znode_count",
    "node_count",
    "watch_count",
    "ephemerals_count",
    "approximate_data_size",
    "server_state",
    "num_connections",
    "num_paths",
    "num_total_watches",
    "outstanding_requests",
    "interest_ops",
    "last_operation",
    "last_cxid",
    "session_timeout",
    "provider_null",
    "fsync_threshold_exceed_count",
    "max_buffer_size",
    "min_buffer_size",
    "num_alive_connections",
];

/// A value with only what can be compared: names and kinds always, numbers and texts where they are
/// the same.
fn shape(name: &str, value: &Value) -> Value {
    match value {
        // Keyed by sessions or by moments.
        Value::Object(fields) if name.contains("_to_") && !name.starts_with("path") => {
            fields.values().map(|value| shape(name, value)).collect()
        }
        Value::Object(fields) => {
            let names = fields.iter().filter(|(name, _)| !is_jvms(name));
            names.map(|(name, value)| (name.clone(), shape(name, value))).collect()
        }
        Value::Array(values) => values.iter().map(|value| shape(name, value)).collect(),
        Value::Number(_) if !SAME.contains(&name) => "a number".into(),
        Value::String(_) if name.contains("paths") || SAME.contains(&name) => value.clone(),
        Value::String(_) => "a text".into(),
        other => other.clone(),
    }
}

fn is_jvms(name: &str) -> bool {
    name.starts_with("java.") || name.starts_with("os.memory.")
}

const COMMANDS: [&str; 22] = [
    "configuration",
    "connections",
    "dirs",
    "dump",
    "environment",
    "get_trace_mask",
    "is_read_only",
    "monitor",
    "ruok",
    "server_stats",
    "stats",
    "watch_summary",
    "watches",
    "watches_by_path",
    "set_trace_mask",
    "set_trace_mask?traceMask=x",
    "set_trace_mask?traceMask=306",
    "conf",
    "nope",
    "stat_reset",
    "connection_stat_reset",
    "srvr",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_zookeepers() {
    if peers::have("commands_are_zookeepers", &[Peer::ZooKeeper]) {
        compare().await.unwrap();
    }
}

async fn compare() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (theirs, ours) = (free_port(), free_port());
    let admin = |port: u16| {
        format!(
            "tickTime=2000\nmaxClientCnxns=60\nadmin.enableServer=true\nadmin.serverAddress=127.0.0.1\nadmin.serverPort={port}"
        )
    };
    let zookeeper = peers::zookeeper(&dir.path().join("theirs"), &admin(theirs))?;
    let coordinator = Coordinator::start(&dir.path().join("ours"), &admin(ours))?;
    let mut kept = Vec::new();
    for addr in [zookeeper.addr, coordinator.addr] {
        let config =
            Config::parse(&addr.to_string())?.with_session_timeout(Duration::from_secs(40));
        let client = Client::connect(config).await?;
        client.create("/a", "data", CreateMode::Ephemeral).await?;
        let watches = (client.get_watch("/a").await?.2, client.children_watch("/").await?.2);
        kept.push((client, watches));
    }
    let mut differ = Vec::new();
    for command in COMMANDS {
        let path = format!("/commands/{command}");
        let (status, theirs) = get(theirs, &path)?;
        let (our_status, ours) = get(ours, &path)?;
        assert_eq!(our_status, status, "{command}");
        // Not only the same JSON: laid out the same way.
        let lines = |text: &str| {
            text.lines()
                .filter(|line| !line.contains("\"java.") && !line.contains("\"os.memory"))
                .count()
        };
        let parse = |text: &str| serde_json::from_str::<Value>(text).context("JSON");
        let shapes = (shape("", &parse(&theirs)?), shape("", &parse(&ours)?));
        let order = |text: &str| -> Vec<String> {
            let names = text.lines().filter_map(|line| line.split_once("\" : "));
            let names = names.map(|(name, _)| name.trim().trim_start_matches('"').to_owned());
            names.filter(|name| !is_jvms(name) && name.parse::<i64>().is_err()).collect()
        };
        // Jackson orders the fields of a bean as the JVM lists them: in no order.
        let is_ordered = !["server_stats", "stats", "srvr"].contains(&command);
        if shapes.0 != shapes.1
            || lines(&theirs) != lines(&ours)
            || (is_ordered && order(&theirs) != order(&ours))
        {
            differ.push(format!("=== {command}: ZooKeeper says\n{theirs}\n--- and we\n{ours}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    // The page lists all of theirs.
    let (_, theirs) = get(theirs, "/commands")?;
    let (_, ours) = get(ours, "/commands/")?;
    for link in theirs.lines() {
        ensure!(ours.lines().any(|line| line == link), "{link} is not in {ours}");
    }
    Ok(())
}

#[test]
fn metrics_and_other_paths_are_served_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (admin, metrics) = (free_port(), free_port());
    let config = format!(
        "admin.enableServer=true\nadmin.serverPort={admin}\nadmin.commandURL=/zk\n\
         metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
         metricsProvider.httpPort={metrics}"
    );
    let coordinator = Coordinator::start(dir.path(), &config).unwrap();
    let (status, text) = get(metrics, "/metrics").unwrap();
    assert_eq!(status, 200);
    for wanted in [
        "\n# TYPE znode_count gauge\nznode_count 5\n",
        "\nserver_state{state=\"standalone\"} 1\n",
        "elkfk_coordinator_znodes ",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in {text}");
    }
    assert_eq!(get(metrics, "/").unwrap().0, 404);
    assert_eq!(get(admin, "/commands").unwrap().0, 404);
    let (status, text) = get(admin, "/zk/leader").unwrap();
    assert!(status == 200 && text.contains("server is not initialized"), "{text}");
    let (_, text) = get(admin, "/zk/voting_view").unwrap();
    assert!(text.contains("\"current_config\" : { }"), "{text}");
    // Another site's page is refused, for it could reset what is counted.
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let response = agent
        .get(format!("http://127.0.0.1:{admin}/zk/stat_reset"))
        .header("Origin", "http://example.com")
        .call()
        .unwrap();
    assert_eq!(response.status().as_u16(), 403);
    drop(coordinator);
}

#[test]
fn a_taken_port_stops_a_start_only_where_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let mut coordinator = Coordinator::start(dir.path(), "").unwrap();
    coordinator.stop().unwrap();
    coordinator
        .replace_in_config("admin.enableServer=false", &format!("admin.serverPort={port}"))
        .unwrap();
    let said = coordinator.fail_to_start().unwrap();
    assert!(said.contains(&format!("listen on 127.0.0.1:{port} for the AdminServer")), "{said}");
    assert!(said.contains("admin.serverPort=…"), "{said}");
    // By default it is 8080, which may well be another program's.
    let _other = TcpListener::bind("127.0.0.1:8080");
    coordinator.replace_in_config(&format!("admin.serverPort={port}"), "").unwrap();
    coordinator.start_again().unwrap();
    assert!(coordinator.output().contains("going on without it"), "{}", coordinator.output());
}
