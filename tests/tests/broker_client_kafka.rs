//! The administration client against a real Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use elkfk_broker_client::{Client, Config, ConfigOp, NewTopic, OffsetAt, Resource, TopicPartition};
use elkfk_tests::peers::{self, Peer};
use elkfk_wire::kafka::ErrorCode;

fn is_send<T: Send>(future: T) -> T {
    future
}

/// Waits until a topic's change is known to the broker asked, which may lag behind the controller.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..100 {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not come true in 10 s");
}

#[tokio::test]
async fn client_administers_a_real_kafka() {
    if !peers::have("client_administers_a_real_kafka", &[Peer::ZooKeeper, Peer::Kafka]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let zookeeper = peers::zookeeper(&dir.path().join("zk"), "").unwrap();
    let kafka = peers::kafka(&dir.path().join("kafka"), &zookeeper.addr.to_string(), &[]).unwrap();
    administer(&kafka.addr.to_string()).await;
}

async fn administer(bootstrap: &str) {
    let client = Client::new(Config::to(bootstrap));

    // Topics.
    let orders = NewTopic {
        name: "orders".into(),
        partitions: Some(2),
        replication_factor: Some(1),
        configs: vec![("retention.ms".into(), "86400000".into())],
        ..NewTopic::default()
    };
    assert_eq!(is_send(client.create_topic(&orders, true)).await.unwrap(), Ok(()));
    assert_eq!(client.create_topic(&orders, false).await.unwrap(), Ok(()));
    let again = client.create_topic(&orders, false).await.unwrap().unwrap_err();
    assert_eq!(again.code, ErrorCode::TOPIC_ALREADY_EXISTS);
    assert_eq!(again.message.as_deref(), Some("Topic 'orders' already exists."));
    assert_eq!(client.create_partitions("orders", 3, None).await.unwrap(), Ok(()));
    let topic = until("three partitions with leaders", async || {
        let cluster = is_send(client.metadata(Some(&["orders"]))).await.unwrap();
        let topic = cluster.topic("orders").cloned()?;
        let led = topic.partitions.iter().filter(|p| p.leader == Some(0)).count();
        (led == 3).then_some(topic)
    })
    .await;
    assert_ne!(topic.id, elkfk_wire::kafka::Uuid::ZERO);
    let missing = client.metadata(Some(&["nosuch"])).await.unwrap();
    assert_eq!(missing.topics[0].error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let cluster = client.describe_cluster().await.unwrap();
    assert_eq!((cluster.brokers.len(), cluster.controller), (1, Some(0)));
    assert_eq!(cluster.id, client.brokers().await.unwrap().id);

    // Settings.
    let resource = Resource::topic("orders");
    let described =
        is_send(client.describe_configs(std::slice::from_ref(&resource))).await.unwrap();
    let configs = described[0].configs.clone().unwrap();
    let retention = configs.iter().find(|c| c.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.source), (Some("86400000"), 1));
    let ops = [
        ConfigOp::Delete("retention.ms".into()),
        ConfigOp::Set("max.message.bytes".into(), "2048".into()),
    ];
    assert_eq!(client.alter_configs(&resource, &ops).await.unwrap(), Ok(()));
    until("changed settings", async || {
        let described = client.describe_configs(std::slice::from_ref(&resource)).await.unwrap();
        let configs = described[0].configs.clone().unwrap();
        let own: Vec<_> = configs.iter().filter(|c| c.source == 1).collect();
        let own: Vec<_> = own.iter().map(|c| (c.name.as_str(), c.value.as_deref())).collect();
        (own == [("max.message.bytes", Some("2048"))]).then_some(())
    })
    .await;
    let unknown = ConfigOp::Set("no.such".into(), "1".into());
    let refused = client.alter_configs(&resource, &[unknown]).await.unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::INVALID_CONFIG);

    // Records.
    let input = "a:one\nb:two\nc:three\nd:four\ne:five\n";
    let args = [
        "--bootstrap-server",
        bootstrap,
        "--topic",
        "orders",
        "--compression-codec",
        "zstd",
        "--property",
        "parse.key=true",
        "--property",
        "key.separator=:",
    ];
    let produced = peers::kafka_tool("kafka-console-producer", &args, input).unwrap();
    assert!(produced.status.success());
    let places: Vec<_> = (0..3).map(|p| TopicPartition::new("orders", p)).collect();
    let ends = is_send(client.list_offsets(&places, OffsetAt::End)).await.unwrap();
    let end = |place: &TopicPartition| ends[place].clone().unwrap().offset.unwrap();
    assert_eq!(places.iter().map(end).sum::<i64>(), 5);
    let starts = client.list_offsets(&places, OffsetAt::Start).await.unwrap();
    assert!(starts.values().all(|start| start.as_ref().unwrap().offset == Some(0)));
    let future = client.list_offsets(&places, OffsetAt::Timestamp(i64::MAX)).await.unwrap();
    assert!(future.values().all(|listed| listed.as_ref().unwrap().offset.is_none()));
    let nowhere = TopicPartition::new("orders", 99);
    let listed = client.list_offsets(std::slice::from_ref(&nowhere), OffsetAt::End).await.unwrap();
    assert_eq!(listed[&nowhere].as_ref().unwrap_err().code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let mut seen = Vec::new();
    for place in &places {
        let fetched =
            is_send(client.fetch_records(place, 0, 1 << 20, Duration::ZERO)).await.unwrap();
        assert_eq!(fetched.next_offset, end(place));
        seen.extend(fetched.records.into_iter().map(|r| {
            assert!(r.timestamp_ms > 1_600_000_000_000);
            (
                String::from_utf8(r.key.unwrap()).unwrap(),
                String::from_utf8(r.value.unwrap()).unwrap(),
            )
        }));
    }
    seen.sort();
    let expected = ["one", "two", "three", "four", "five"];
    let expected: Vec<_> = ["a", "b", "c", "d", "e"]
        .iter()
        .zip(expected)
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    assert_eq!(seen, expected);
    let full =
        places.iter().find(|place| end(place) >= 2).expect("five records over three partitions");
    let last = client.fetch_record(full, end(full) - 1).await.unwrap().unwrap();
    assert_eq!(last.offset, end(full) - 1);
    assert_eq!(client.fetch_record(full, end(full)).await.unwrap(), None);
    let beyond = client.fetch_record(full, 999).await.unwrap_err();
    assert_eq!(beyond.code(), Some(ErrorCode::OFFSET_OUT_OF_RANGE));
    let before = BTreeMap::from([(full.clone(), 1)]);
    let deleted = is_send(client.delete_records(&before)).await.unwrap();
    assert_eq!(deleted[full], Ok(1));

    // Groups.
    let offsets: BTreeMap<_, _> = places.iter().map(|place| (place.clone(), end(place))).collect();
    let results = is_send(client.commit_offsets("readers", &offsets)).await.unwrap();
    assert!(results.len() == 3 && results.values().all(Result::is_ok), "{results:?}");
    let committed = is_send(client.committed_offsets("readers")).await.unwrap();
    assert_eq!(
        committed.iter().map(|(k, v)| (k.clone(), v.offset)).collect::<BTreeMap<_, _>>(),
        offsets
    );
    let groups = is_send(client.list_groups()).await.unwrap();
    assert_eq!(groups.gap(), None);
    let listed: Vec<_> =
        groups.groups.iter().map(|g| (g.group.as_str(), g.state.as_str())).collect();
    assert_eq!(listed, [("readers", "Empty")]);
    let described = is_send(client.describe_group("readers")).await.unwrap();
    assert_eq!((described.state.as_str(), described.members.len()), ("Empty", 0));
    assert_eq!(client.describe_group("nosuch").await.unwrap().state, "Dead");
    let gone = client.delete_offsets("readers", &places[..1]).await.unwrap().unwrap();
    assert_eq!(gone[&places[0]], Ok(()));
    assert_eq!(client.committed_offsets("readers").await.unwrap().len(), 2);
    assert_eq!(client.delete_group("readers").await.unwrap(), Ok(()));
    let again = client.delete_group("readers").await.unwrap().unwrap_err();
    assert_eq!(again.code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(client.committed_offsets("readers").await.unwrap(), BTreeMap::new());

    // The end.
    let deleted = client.delete_topics(&["orders", "nosuch"]).await.unwrap();
    assert_eq!(deleted["orders"], Ok(()));
    assert_eq!(deleted["nosuch"].as_ref().unwrap_err().code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    until("topic gone", async || {
        client.metadata(None).await.unwrap().topic("orders").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_does_not_speak_kafka_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let client = Client::new(Config::to(&address));
    let error = client.brokers().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("no broker answers at {address}: ")), "{error}");
    server.await.unwrap();
    let nobody = Client::new(Config::to("127.0.0.1:1"));
    let error = nobody.brokers().await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}
