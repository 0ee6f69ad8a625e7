//! Our broker under peers that mean harm, and at moments that do: batches that lie about what is in
//! them, sockets that announce and do not send, a stop in the midst of traffic, a damaged znode.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use elkfk_tests::line::TestDir;
use elkfk_wire::kafka::messages::*;
use elkfk_wire::kafka::records::{BatchBuilder, BatchMut, Compression, HEADER_BYTES};
use elkfk_wire::kafka::{
    Message, Reader, RequestHeader, ResponseHeader, header, response_header_version,
};

const LONG: Duration = Duration::from_secs(60);

async fn start_coordinator(dir: &Path) -> elkfk_coordinator::Running {
    let mut config = elkfk_coordinator::Config::embedded(dir.join("coordinator"));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    elkfk_coordinator::start(config).await.unwrap()
}

async fn start_broker(dir: &Path, zookeeper: SocketAddr) -> elkfk_broker::Running {
    let (data, zookeeper) = (dir.join("broker").display().to_string(), zookeeper.to_string());
    let config = elkfk_broker::Config::from_pairs([
        ("broker.id", "7"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", data.as_str()),
        ("zookeeper.connect", zookeeper.as_str()),
        ("offsets.topic.num.partitions", "1"),
    ]);
    elkfk_broker::start(config.unwrap()).await.unwrap()
}

/// A connection that speaks the protocol, by hand.
struct Client {
    stream: TcpStream,
    sent: i32,
    answered: i32,
}

impl Client {
    fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self { stream, sent: 0, answered: 0 }
    }

    fn send<'a, Q: Message<'a>>(&mut self, request: &Q, version: i16) {
        self.sent += 1;
        let header = RequestHeader {
            api_key: Q::API_KEY,
            api_version: version,
            correlation_id: self.sent,
            client_id: Some("hostile".into()),
        };
        self.stream.write_all(&header::request_frame(&header, request).unwrap()).unwrap();
    }

    /// The next answer's body; `None` where the connection ends.
    fn receive(&mut self, api_key: i16, version: i16) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).ok()?;
        let mut reader = Reader::new(&body);
        let header_version = response_header_version(api_key, version);
        let header = ResponseHeader::decode(&mut reader, header_version).unwrap();
        self.answered += 1;
        assert_eq!(header.correlation_id, self.answered);
        Some(reader.rest().to_vec())
    }

    fn ask<'a, Q: Message<'a>>(&mut self, request: &Q, version: i16) -> Vec<u8> {
        self.send(request, version);
        self.receive(Q::API_KEY, version).expect("the connection lives")
    }

    fn send_batch(&mut self, topic: &str, batch: &[u8]) {
        let partition =
            produce_request::PartitionProduceData { index: 0, records: Some(batch.into()) };
        let topic_data = vec![produce_request::TopicProduceData {
            name: topic.into(),
            partition_data: vec![partition],
        }];
        let request = produce_request::ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data,
            ..Default::default()
        };
        self.send(&request, 8);
    }

    /// Error code and base offset; `None` where the connection ends.
    fn receive_produced(&mut self) -> Option<(i16, i64)> {
        let body = self.receive(produce_request::ProduceRequest::API_KEY, 8)?;
        let answer = produce_response::ProduceResponse::decode(&mut Reader::new(&body), 8).unwrap();
        let one = &answer.responses[0].partition_responses[0];
        Some((one.error_code, one.base_offset))
    }

    fn create(&mut self, name: &str, configs: &[(&str, &str)]) {
        let configs =
            configs.iter().map(|(name, value)| create_topics_request::CreateableTopicConfig {
                name: (*name).into(),
                value: Some((*value).into()),
            });
        let topic = create_topics_request::CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = create_topics_request::CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let body = self.ask(&request, 4);
        let answer =
            create_topics_response::CreateTopicsResponse::decode(&mut Reader::new(&body), 4);
        assert_eq!(answer.unwrap().topics[0].error_code, 0, "create {name}");
    }

    fn log_end(&mut self, topic: &str) -> i64 {
        let partition = list_offsets_request::ListOffsetsPartition {
            partition_index: 0,
            current_leader_epoch: -1,
            timestamp: -1,
        };
        let topics = vec![list_offsets_request::ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![partition],
        }];
        let request = list_offsets_request::ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..Default::default()
        };
        let body = self.ask(&request, 5);
        let answer =
            list_offsets_response::ListOffsetsResponse::decode(&mut Reader::new(&body), 5).unwrap();
        let found = &answer.topics[0].partitions[0];
        assert_eq!(found.error_code, 0);
        found.offset
    }
}

fn batch(codec: Compression, count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for number in 0..count {
        let value = format!("value {number}");
        builder.push(1_700_000_000_000, Some(b"key"), Some(value.as_bytes()), &[("h", None)]);
    }
    builder.build().unwrap()
}

/// Makes the checksum right again.
fn seal(bytes: &mut [u8]) {
    let mut batch = BatchMut::parse(bytes).unwrap();
    let same = batch.view().max_timestamp_ms();
    batch.set_max_timestamp(same);
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of all threads, which tasks would keep to themselves; not those of tests beside this.
fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours = info.location().is_none_or(|at| at.file() != file!());
            PANICS.fetch_add(usize::from(is_ours), Ordering::SeqCst);
            before(info);
        }));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_lie_are_refused_and_break_nothing() {
    count_panics();
    let dir = TestDir::new();
    let coordinator = start_coordinator(&dir.path()).await;
    let broker = start_broker(&dir.path(), coordinator.local_addr()).await;
    let addr = broker.local_addr();
    tokio::task::spawn_blocking(move || {
        let mut client = Client::new(addr);
        let topics = ["plain", "packed", "compacted", "stamped"];
        client.create("plain", &[]);
        client.create("packed", &[("compression.type", "zstd")]);
        client.create("compacted", &[("cleanup.policy", "compact")]);
        client.create("stamped", &[("message.timestamp.type", "LogAppendTime")]);
        let mut ends = [0i64; 4];
        let mut state = 7u64;
        let mut chance = |end: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % end
        };
        for round in 0..800 {
            let at = round % topics.len();
            let codec = Compression::ALL[chance(5)];
            let count = 1 + chance(4);
            let mut bytes = batch(codec, count);
            match round % 5 {
                // The innards, under a header that knows nothing of it.
                0..=2 => {
                    for _ in 0..=chance(3) {
                        let place = HEADER_BYTES + chance(bytes.len() - HEADER_BYTES);
                        bytes[place] = chance(256) as u8;
                    }
                }
                // The header behind its checksum.
                3 => bytes[21 + chance(HEADER_BYTES - 21)] = chance(256) as u8,
                // Offset deltas alone: each record is one byte of length, then attributes, then two
                // deltas of which the second is the offset's.
                _ if codec == Compression::None => {
                    let second = HEADER_BYTES + (bytes.len() - HEADER_BYTES) / count;
                    if let Some(delta) = bytes.get_mut(second + 3) {
                        *delta = 10;
                    }
                }
                _ => {}
            }
            seal(&mut bytes);
            client.send_batch(topics[at], &bytes);
            let (error, base_offset) = client.receive_produced().expect("answered, not hung up on");
            if error == 0 {
                assert_eq!(base_offset, ends[at], "{}: offsets stay dense", topics[at]);
                ends[at] += count as i64;
            }
            // Other headers may announce another count; ask what became of it.
            ends[at] = client.log_end(topics[at]);
        }
        for topic in topics {
            client.send_batch(topic, &batch(Compression::Lz4, 2));
            assert_eq!(client.receive_produced().expect("answered").0, 0, "{topic}");
        }
    })
    .await
    .unwrap();
    broker.stop().await;
    // What was let in is read back, and a next start finds it whole.
    let broker = start_broker(&dir.path(), coordinator.local_addr()).await;
    broker.stop().await;
    coordinator.stop().await;
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_announce_and_wait_hold_nobody_up() {
    let dir = TestDir::new();
    let coordinator = start_coordinator(&dir.path()).await;
    let broker = start_broker(&dir.path(), coordinator.local_addr()).await;
    let addr = broker.local_addr();
    tokio::task::spawn_blocking(move || {
        let mut client = Client::new(addr);
        client.create("t", &[]);
        // Each announces a produce request of 90 MB, and sends its API key: together more than all
        // the memory there is for requests.
        let mut idle = Vec::new();
        for _ in 0..10 {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(&(90i32 << 20).to_be_bytes()).unwrap();
            stream.write_all(&[0, 0]).unwrap();
            idle.push(stream);
        }
        // And some long polls, with requests behind them that will not be read for now.
        let mut polls = Vec::new();
        for _ in 0..20 {
            let mut poll = Client::new(addr);
            let partition = fetch_request::FetchPartition {
                partition: 0,
                fetch_offset: 0,
                partition_max_bytes: 1 << 20,
                current_leader_epoch: -1,
                log_start_offset: -1,
                ..Default::default()
            };
            let request = fetch_request::FetchRequest {
                replica_id: -1,
                max_wait_ms: 30_000,
                min_bytes: 1 << 19,
                max_bytes: 1 << 20,
                topics: vec![fetch_request::FetchTopic {
                    topic: "t".into(),
                    partitions: vec![partition],
                    ..Default::default()
                }],
                session_epoch: -1,
                ..Default::default()
            };
            for _ in 0..50 {
                poll.send(&request, 11);
            }
            polls.push(poll);
        }
        let began = Instant::now();
        let large = {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(1_700_000_000_000, None, Some(&vec![b'x'; 1_000_000]), &[]);
            builder.build().unwrap()
        };
        for _ in 0..10 {
            client.send_batch("t", &large);
            assert_eq!(client.receive_produced().expect("answered").0, 0);
        }
        // The idle ones are given 10 s before they are left; nobody waited for that.
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        // Woken by the first of these, and then each in its turn.
        for poll in &mut polls {
            assert!(poll.receive(fetch_request::FetchRequest::API_KEY, 11).is_some());
        }
        // A request without records is refused by its length alone.
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&(90i32 << 20).to_be_bytes()).unwrap();
        stream.write_all(&[0, 3]).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
        drop(idle);
    })
    .await
    .unwrap();
    broker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_acknowledges_what_it_has_appended() {
    let dir = TestDir::new();
    let coordinator = start_coordinator(&dir.path()).await;
    let mut appended = 0;
    for round in 0..5 {
        let broker = start_broker(&dir.path(), coordinator.local_addr()).await;
        let addr = broker.local_addr();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let client = std::thread::spawn(move || {
            let mut client = Client::new(addr);
            if round == 0 {
                client.create("t", &[]);
            }
            assert_eq!(
                client.log_end("t"),
                appended,
                "what was appended was acknowledged, and all"
            );
            for _ in 0..200 {
                client.send_batch("t", &batch(Compression::None, 1));
            }
            begun.send(()).unwrap();
            let mut acknowledged = 0;
            while let Some((error, _)) = client.receive_produced() {
                assert_eq!(error, 0);
                acknowledged += 1;
                if acknowledged == 200 {
                    break;
                }
            }
            acknowledged
        });
        has_begun.recv().unwrap();
        broker.stop().await;
        appended += tokio::task::spawn_blocking(|| client.join().unwrap()).await.unwrap();
    }
    let broker = start_broker(&dir.path(), coordinator.local_addr()).await;
    let addr = broker.local_addr();
    let found = tokio::task::spawn_blocking(move || Client::new(addr).log_end("t")).await.unwrap();
    assert_eq!(found, appended);
    broker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_znode_takes_its_topic_only() {
    let dir = TestDir::new();
    let coordinator = start_coordinator(&dir.path()).await;
    let broker = start_broker(&dir.path(), coordinator.local_addr()).await;
    let addr = broker.local_addr();
    tokio::task::spawn_blocking(move || {
        let mut client = Client::new(addr);
        client.create("damaged", &[]);
        client.create("sound", &[]);
    })
    .await
    .unwrap();
    broker.stop().await;
    let connect = coordinator.local_addr().to_string();
    let config = elkfk_coordinator_client::Config::parse(&connect).unwrap();
    let zookeeper = elkfk_coordinator_client::Client::connect(config).await.unwrap();
    let path = "/brokers/topics/damaged/partitions/0/state";
    zookeeper.set(path, b"{", None).await.unwrap();
    let place = dir.path();
    let start = start_broker(&place, coordinator.local_addr());
    let broker = tokio::time::timeout(LONG, start).await.expect("the broker starts");
    let addr = broker.local_addr();
    tokio::task::spawn_blocking(move || {
        let mut client = Client::new(addr);
        client.send_batch("sound", &batch(Compression::None, 1));
        assert_eq!(client.receive_produced().expect("answered").0, 0);
        client.send_batch("damaged", &batch(Compression::None, 1));
        assert_ne!(client.receive_produced().expect("answered").0, 0);
    })
    .await
    .unwrap();
    // Nobody wrote over it.
    assert_eq!(&zookeeper.get(path).await.unwrap().0[..], b"{");
    zookeeper.close().await;
    broker.stop().await;
    coordinator.stop().await;
}
