//! A sink that has to stop.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_does_not_wait_for_an_elasticsearch_that_hangs() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("logs", 1, 1).unwrap();
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
    let record: FutureRecord<'_, str, str> = FutureRecord::to("logs").payload(r#"{"message":"a"}"#);
    producer.send(record, Duration::from_secs(30)).await.unwrap();
    // It takes connections and says nothing.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.conf");
    let text = format!(
        r#"input {{ kafka {{ bootstrap_servers => "{}" topics => ["logs"] codec => json }} }}
           output {{ elasticsearch {{ hosts => ["{}"] }} }}"#,
        mock.bootstrap_servers(),
        hangs.local_addr().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    let config = elkfk_sink::Config { files: vec![file], workers: 1, ..Default::default() };
    let running = elkfk_sink::start(config).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while running.status().events == 0 {
        assert!(Instant::now() < deadline, "nothing is read: {:?}", running.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = Instant::now();
    running.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
