//! A broker of ours on a coordinator of ours, in the process of the test.

use std::collections::BTreeMap;
use std::path::Path;

/// Both, with their data in one folder. To be ended by [`Boxes::stop`].
#[derive(Debug)]
pub struct Boxes {
    pub coordinator: elkfk_coordinator::Running,
    pub broker: elkfk_broker::Running,
}

impl Boxes {
    /// On free ports, groups without their first delay; `more` is added to the broker's configuration.
    ///
    /// # Panics
    /// Where they do not start.
    pub async fn start(dir: &Path, more: &[(&str, &str)]) -> Self {
        let mut config = elkfk_coordinator::Config::embedded(dir.join("coordinator"));
        config.listen = ([127, 0, 0, 1], 0).into();
        let coordinator = elkfk_coordinator::start(config).await.expect("the coordinator starts");
        let data = dir.join("broker").display().to_string();
        let zookeeper = coordinator.local_addr().to_string();
        let mut pairs = BTreeMap::from([
            ("broker.id", "1"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("log.dirs", &data),
            ("zookeeper.connect", &zookeeper),
            ("group.initial.rebalance.delay.ms", "0"),
            ("offsets.topic.num.partitions", "1"),
        ]);
        pairs.extend(more.iter().copied());
        let config = elkfk_broker::Config::from_pairs(pairs).expect("the broker's configuration");
        let broker = elkfk_broker::start(config).await.expect("the broker starts");
        Self { coordinator, broker }
    }

    pub fn bootstrap(&self) -> String {
        self.broker.local_addr().to_string()
    }

    pub fn zookeeper(&self) -> String {
        self.coordinator.local_addr().to_string()
    }

    pub async fn stop(self) {
        self.broker.stop().await;
        self.coordinator.stop().await;
    }
}
