//! The brokers of the scenarios, each behind a line that can be made narrow.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use elkfk_tests::free_port;
use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer, Server};

use super::slow_line::SlowLine;

pub(crate) enum Broker {
    Ours(Box<Ours>),
    Kafka(Arc<Kafka>),
}

/// A broker of ours on a coordinator of ours.
pub(crate) struct Ours {
    broker: elkfk_broker::Running,
    coordinator: elkfk_coordinator::Running,
    at: At,
}

/// Where clients find it.
pub(crate) struct At {
    pub(crate) line: SlowLine,
    pub(crate) zookeeper: String,
    _dir: TestDir,
}

impl At {
    pub(crate) fn bootstrap(&self) -> String {
        self.line.addr.to_string()
    }
}

/// A real Kafka on a real ZooKeeper.
pub(crate) struct Kafka {
    _kafka: Server,
    _zookeeper: Server,
    at: At,
}

/// Shared by the tests that run at the same time: it takes longer to start than most of them to pass.
static KAFKA: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());

impl Broker {
    pub(crate) async fn ours() -> Self {
        let dir = TestDir::new();
        let mut config = elkfk_coordinator::Config::embedded(dir.path().join("coordinator"));
        config.listen = ([127, 0, 0, 1], 0).into();
        let coordinator = elkfk_coordinator::start(config).await.unwrap();
        let zookeeper = coordinator.local_addr().to_string();
        let line = SlowLine::listen();
        let data = dir.path().join("broker");
        let pairs = [
            ("broker.id", "1"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("advertised.listeners", &format!("PLAINTEXT://{}", line.addr)),
            ("log.dirs", data.to_str().unwrap()),
            ("zookeeper.connect", &zookeeper),
            ("group.initial.rebalance.delay.ms", "0"),
            ("offsets.topic.num.partitions", "1"),
        ];
        let config = elkfk_broker::Config::from_pairs(pairs).unwrap();
        let broker = elkfk_broker::start(config).await.unwrap();
        line.lead_to(broker.local_addr());
        let at = At { line, zookeeper, _dir: dir };
        Self::Ours(Box::new(Ours { broker, coordinator, at }))
    }

    /// None: it is not here, which is reported as a skip of `test`.
    pub(crate) fn kafka(test: &str) -> Option<Self> {
        peers::have(test, &[Peer::Kafka, Peer::ZooKeeper]).then(|| {
            // Who failed to start it has said so; the next may try.
            let mut shared = KAFKA.lock().unwrap_or_else(PoisonError::into_inner);
            let kafka = shared.upgrade().unwrap_or_else(|| Arc::new(Kafka::start()));
            *shared = Arc::downgrade(&kafka);
            Self::Kafka(kafka)
        })
    }

    pub(crate) fn at(&self) -> &At {
        match self {
            Self::Ours(ours) => &ours.at,
            Self::Kafka(kafka) => &kafka.at,
        }
    }

    pub(crate) async fn stop(self) {
        if let Self::Ours(ours) = self {
            ours.broker.stop().await;
            ours.coordinator.stop().await;
        }
    }
}

impl Kafka {
    fn start() -> Self {
        let dir = TestDir::new();
        let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "").unwrap();
        let (line, port) = (SlowLine::listen(), free_port());
        line.lead_to(([127, 0, 0, 1], port).into());
        let advertised = format!("advertised.listeners=PLAINTEXT://{}", line.addr);
        let overrides =
            [&advertised, "offsets.topic.num.partitions=1", "group.initial.rebalance.delay.ms=0"];
        let at = zookeeper.addr.to_string();
        let kafka = peers::kafka_at(&dir.path().join("kafka"), port, &at, &overrides).unwrap();
        Self { _kafka: kafka, _zookeeper: zookeeper, at: At { line, zookeeper: at, _dir: dir } }
    }
}
