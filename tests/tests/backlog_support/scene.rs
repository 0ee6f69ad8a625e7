//! One scenario's boxes: files → shipper → topic → sink → store, the autoscaler beside them, and the page.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use elkfk_autoscaler::{Event, Parameters, Settings};
use elkfk_broker_client::{Client, NewTopic};
use elkfk_tests::line::TestDir;
use elkfk_tests::workspace;

use super::broker::Broker;
use super::files::{Files, Shape};
use super::slow_line::Width;
use super::told::{self, Told};
use crate::sink_delivery_support::Index;

/// What distinguishes one scenario's boxes from another's.
pub(crate) struct Setting {
    /// Of its topic, its index, and its consumer group with `-sink` behind it.
    pub(crate) name: &'static str,
    pub(crate) partitions: i32,
    pub(crate) shape: Shape,
    pub(crate) lines_per_s: u64,
    pub(crate) parameters: Parameters,
    /// The group that the autoscaler watches, if that is not the sink's.
    pub(crate) watched_group: Option<String>,
}

pub(crate) struct Scene {
    pub(crate) setting: Setting,
    pub(crate) broker: Broker,
    pub(crate) client: Client,
    pub(crate) told: Told,
    pub(crate) files: Files,
    /// Of the sink's line from the broker.
    pub(crate) width: Width,
    store: Option<elkfk_store::Running>,
    store_config: elkfk_store::Config,
    sink: elkfk_sink::Running,
    shipper: elkfk_shipper::Running,
    dashboard: elkfk_dashboard::Running,
    autoscaler: elkfk_autoscaler::Running,
    index: Index,
    begun: Instant,
    begun_ms: i64,
    _dir: TestDir,
}

impl Scene {
    pub(crate) async fn start(setting: Setting, broker: Broker) -> Self {
        let (dir, begun) = (TestDir::new(), Instant::now());
        let root = dir.path();
        let (name, at) = (setting.name, broker.at());
        let bootstrap = at.bootstrap();
        let width = at.line.width_of(name);
        let client = Client::new(elkfk_broker_client::Config::to(&bootstrap));
        let topic = NewTopic {
            name: name.into(),
            partitions: Some(setting.partitions),
            replication_factor: Some(1),
            ..NewTopic::default()
        };
        assert_eq!(client.create_topic(&topic, false).await.unwrap(), Ok(()));

        let mut store_config = elkfk_store::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: root.join("store"),
            ..Default::default()
        };
        let store = elkfk_store::start(store_config.clone()).await.unwrap();
        // Once stopped, it comes back to where it was.
        store_config.listen = store.local_addr();
        let elasticsearch = store.local_addr().to_string();

        let pipeline = root.join("pipeline.conf");
        let text = format!(
            r#"input {{ kafka {{
                 bootstrap_servers => "{bootstrap}" topics => ["{name}"] group_id => "{name}-sink"
                 client_id => "{name}" codec => json max_partition_fetch_bytes => 20000
                 metadata_max_age_ms => 1000 heartbeat_interval_ms => 500 }} }}
               filter {{ grok {{ match => {{ "message" => "^event %{{INT:n:int}} " }} }} }}
               output {{ elasticsearch {{ hosts => ["{elasticsearch}"] index => "{name}" }} }}"#
        );
        std::fs::write(&pipeline, text).unwrap();
        let sink = elkfk_sink::start(elkfk_sink::Config {
            files: vec![pipeline],
            workers: 1,
            workers_max: 1,
            consumers_max: 8,
            api: Some(([127, 0, 0, 1], 0).into()),
            ..Default::default()
        });
        let sink = sink.await.unwrap();
        let api = format!("http://{}", sink.api_addr().unwrap());

        let dashboard = elkfk_dashboard::start(elkfk_dashboard::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            bootstrap_servers: bootstrap.clone(),
            elasticsearch: format!("http://{elasticsearch}"),
            index_pattern: name.into(),
            data: Some(root.join("dashboard")),
            zookeeper: Some(at.zookeeper.clone()),
            sinks: vec![api.clone()],
            decisions_topic: format!("{name}-decisions"),
            ..elkfk_dashboard::Config::default()
        });
        let dashboard = dashboard.await.unwrap();

        let logs = root.join("logs");
        // Packed, lines that are alike would cost next to nothing on a narrow line.
        let filebeat = format!(
            "filebeat.inputs:\n- type: filestream\n  id: logs\n  paths: ['{}/*.log']\noutput.kafka:\n  \
             hosts: ['{bootstrap}']\n  topic: {name}\n  compression: none\n",
            logs.display()
        );
        let mut shipped =
            elkfk_shipper::Config::parse("filebeat.yml", &filebeat, false, &|_| None).unwrap();
        shipped.data = root.join("shipper");
        let files = Files::write(logs, setting.shape, setting.lines_per_s);
        let shipper = elkfk_shipper::start(shipped).await.unwrap();

        // On a broker that scenarios share, each has its own lock.
        let chroot = format!("/{name}");
        let coordinator = elkfk_coordinator_client::Config::parse(&at.zookeeper).unwrap();
        let coordinator = elkfk_coordinator_client::Client::connect(coordinator).await.unwrap();
        coordinator.create_all(&chroot).await.unwrap();
        coordinator.close().await;
        let autoscaler = elkfk_autoscaler::start(elkfk_autoscaler::Config {
            bootstrap_servers: bootstrap,
            zookeeper: Some(format!("{}{chroot}", at.zookeeper)),
            // Who watches another group has nobody to ask for consumers.
            sinks: if setting.watched_group.is_some() { vec![] } else { vec![api] },
            settings: Settings::all(setting.parameters.clone()),
            groups: setting.watched_group.clone().into_iter().collect(),
            topics: vec![name.to_owned()],
            decisions_topic: format!("{name}-decisions"),
            ..Default::default()
        });
        let autoscaler = autoscaler.await.unwrap();
        let told = Told::new(client.clone(), &format!("{name}-decisions"));
        Self {
            setting,
            broker,
            client,
            told,
            files,
            width,
            store: Some(store),
            store_config,
            sink,
            shipper,
            dashboard,
            autoscaler,
            index: Index::new(elasticsearch),
            begun,
            begun_ms: now_ms(),
            _dir: dir,
        }
    }

    pub(crate) async fn partitions(&self) -> usize {
        let name = self.setting.name;
        let cluster = self.client.metadata(Some(&[name])).await.unwrap();
        cluster.topic(name).unwrap().partitions.len()
    }

    /// Of the sink's group.
    pub(crate) async fn members(&self) -> usize {
        let group = format!("{}-sink", self.setting.name);
        self.client.describe_group(&group).await.unwrap().members.len()
    }

    pub(crate) async fn stop_store(&mut self) {
        self.store.take().expect("it runs").stop().await;
    }

    pub(crate) async fn start_store(&mut self) {
        self.store = Some(elkfk_store::start(self.store_config.clone()).await.unwrap());
    }

    /// Waits until the index holds `count` lines.
    pub(crate) async fn indexed(&self, count: u64) {
        let begun = Instant::now();
        while self.index.count(self.setting.name) < count {
            assert!(begun.elapsed().as_secs() < 60, "{count} lines are not indexed");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Stops writing, holds every line of the files against the index, and all that was said against the
    /// rules; then stops all of it. Returns what was said.
    pub(crate) async fn finish(self) -> Vec<Event> {
        let name = self.setting.name;
        let count = self.files.stop();
        self.index.wait_for(name, count);
        assert_eq!(self.index.numbers(name), (0..count).collect::<Vec<_>>(), "lines of {name}");
        let events = self.told.events().await;
        println!(
            "{name}: {count} lines, each indexed once, after {:.1?}:{}\n",
            self.begun.elapsed(),
            told::in_words(&events)
        );
        told::check_rules(&events, &self.setting.parameters);
        self.autoscaler.stop().await;
        self.dashboard.stop().await;
        self.shipper.stop().await;
        self.sink.stop().await;
        if let Some(store) = self.store {
            store.stop().await;
        }
        self.broker.stop().await;
        events
    }

    /// With `ELKFK_SCREENSHOTS=DIR`, a picture of the flow and the log of decisions.
    pub(crate) fn picture_overview(&self) {
        let path = format!("/overview?from={}&to={}", self.begun_ms, now_ms() + 1000);
        self.picture("overview", &path, ".decisions tbody tr");
    }

    /// With `ELKFK_SCREENSHOTS=DIR`, a picture of the lag since the beginning.
    pub(crate) fn picture_lag(&self) {
        let name = self.setting.name;
        let sink = format!("{name}-sink");
        let group = self.setting.watched_group.as_ref().unwrap_or(&sink);
        let (from, to) = (self.begun_ms, now_ms());
        let path = format!("/lag?group={group}&topic={name}&from={from}&to={to}");
        self.picture("lag", &path, "#partitions tbody tr");
    }

    fn picture(&self, view: &str, path: &str, selector: &str) {
        let Some(folder) = std::env::var_os("ELKFK_SCREENSHOTS").map(PathBuf::from) else { return };
        std::fs::create_dir_all(&folder).unwrap();
        let on = match self.broker {
            Broker::Ours(_) => "",
            Broker::Kafka(_) => "-kafka",
        };
        let tests = workspace().join("tests/tests/backlog_support/pages.mjs");
        let output = Command::new("node")
            .arg(tests)
            .arg(workspace().join("dashboard/tests/browser.mjs"))
            .arg(format!("http://{}", self.dashboard.local_addr()))
            .args([path, selector])
            .arg(folder.join(format!("{}-{view}{on}.png", self.setting.name)))
            .output()
            .expect("run node");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis() as i64
}
