//! What becomes of a file: fields, warnings, mistakes.

use super::*;

fn mistakes(text: &str) -> String {
    Config::from_text("server.properties", text, &[]).unwrap_err().to_string()
}

#[test]
fn tutorial_file_is_honoured_without_a_warning() {
    let text = "broker.id=3\nlisteners=PLAINTEXT://0.0.0.0:9093\nadvertised.listeners=PLAINTEXT://kafka1:9093\n\
        num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
        socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nlog.dirs=/data/a, /data/b\n\
        num.partitions=1\nnum.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
        transaction.state.log.replication.factor=3\ntransaction.state.log.min.isr=2\nlog.retention.hours=168\n\
        log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n\
        zookeeper.connect=zk1:2181,zk2:2181/kafka\nzookeeper.connection.timeout.ms=18000\n\
        group.initial.rebalance.delay.ms=0\n";
    let config = Config::from_text("server.properties", text, &[]).unwrap();
    assert_eq!(config.warnings, Mistakes::default());
    assert_eq!(config.broker_id, 3);
    assert_eq!(config.log_dirs, [PathBuf::from("/data/a"), PathBuf::from("/data/b")]);
    assert_eq!(config.advertised_listeners[0].host, "kafka1");
    assert_eq!(config.zookeeper_connect, "zk1:2181,zk2:2181/kafka");
    assert_eq!(config.group_initial_rebalance_delay, Duration::ZERO);
    assert_eq!(config.request_bytes_max, 104_857_600);
}

#[test]
fn defaults_are_kafkas_on_loopback() {
    let config = Config::default();
    assert_eq!(config.listeners[0].host, "127.0.0.1");
    assert_eq!(config.listeners[0].port, 9092);
    assert_eq!(config.broker_id, -1);
    assert_eq!(config.offsets_partitions, 50);
    assert_eq!(config.group_session_timeout_min, Duration::from_secs(6));
    assert_eq!(config.durability, Durability::Group);
    assert_eq!(config.value("log.segment.bytes"), Some("1073741824"));
}

#[test]
fn all_mistakes_come_at_once_with_their_lines() {
    let text = "num.partitons=3\nnum.partitions=many\n\nlisteners=SSL://:9093\nlog.segment.bytes=3\n\
        process.roles=broker\nzookeeper.connect=zk:2181\nelkfk.durability=never\n";
    assert_eq!(
        mistakes(text),
        "server.properties:1:1: unknown key \"num.partitons\", did you mean \"num.partitions\"?\n\
         server.properties:2: Invalid value many for configuration num.partitions: Not a number of type INT\n\
         server.properties:5: Invalid value 3 for configuration log.segment.bytes: Value must be at least 14\n\
         server.properties:6: process.roles=broker is not supported: KRaft is not spoken: use zookeeper.connect; remove the line\n\
         server.properties:8: Invalid value never for configuration elkfk.durability: String must be one of: group, kafka, always\n\
         server.properties:4: listeners has \"SSL://:9093\": SSL is not supported yet; use PLAINTEXT"
    );
}

#[test]
fn a_missing_zookeeper_is_a_mistake() {
    assert_eq!(
        mistakes("broker.id=1\n"),
        "server.properties: zookeeper.connect is missing; add zookeeper.connect=host:port"
    );
}

#[test]
fn what_is_not_honoured_is_warned_about_by_name() {
    let text = "zookeeper.connect=zk:2181\nlog.cleaner.threads=2\nlog.cleaner.enable=true\nconfluent.support.metrics.enable=true\n";
    let config = Config::from_text("s", text, &[]).unwrap();
    assert_eq!(
        config.warnings.to_string(),
        "s:2: log.cleaner.threads is ignored: compacted topics are always cleaned, by Kafka's defaults\n\
         s:4:1: unknown key \"confluent.support.metrics.enable\" is ignored, as Kafka does; remove it if no plugin reads it"
    );
}

#[test]
fn overrides_win_over_the_file() {
    let overrides = ["num.partitions=7".to_owned(), "listeners=PLAINTEXT://[::1]:0".to_owned()];
    let config =
        Config::from_text("s", "zookeeper.connect=a\nnum.partitions=2\n", &overrides).unwrap();
    assert_eq!(config.num_partitions, 7);
    let host = "::1".to_owned();
    assert_eq!(config.listeners, [Listener { name: "PLAINTEXT".into(), host, port: 0 }]);
}

#[test]
fn listeners_of_other_names_need_a_plaintext_mapping() {
    let text = "zookeeper.connect=z\nlisteners=INSIDE://:9092,OUTSIDE://:9093\n\
        listener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT\n";
    assert_eq!(Config::from_text("s", text, &[]).unwrap().listeners.len(), 2);
    assert!(
        mistakes("zookeeper.connect=z\nlisteners=INSIDE://:9092\n")
            .contains("no security protocol is defined")
    );
    assert!(
        mistakes("zookeeper.connect=z\nadvertised.listeners=PLAINTEXT://0.0.0.0:1\n")
            .contains("nonroutable")
    );
}

#[test]
fn every_row_of_the_tables_is_consistent() {
    for key in KEYS {
        let Some(default) = key.default else { continue };
        if !default.is_empty() {
            assert_eq!(check_value(key, default), Ok(()), "{}", key.name);
        }
    }
    for name in DYNAMIC {
        assert!(find_key(name).is_some(), "{name}");
    }
}

/// The page is the table: a key that is added here and not there is a key nobody can look up.
#[test]
fn the_page_names_every_key_and_api() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/broker.md");
    let page = std::fs::read_to_string(path).unwrap();
    let names = KEYS.iter().map(|key| key.name).chain(TOPIC_KEYS.iter().map(|key| key.name));
    let missing: Vec<&str> = names.filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, Vec::<&str>::new());
    for (key, least, most) in crate::api::ADVERTISED {
        let name = elkfk_wire::kafka::api(*key).unwrap().name;
        assert!(page.contains(&format!("| {name} | {least}–{most} |")), "{name} {least}–{most}");
    }
}
