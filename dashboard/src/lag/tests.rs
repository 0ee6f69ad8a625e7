//! Measuring against a broker that says what the test wants it to.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::BytesMut;
use elkfk_broker_client::lag::{Figures, GroupLag, Snapshot, TopicLag};
use elkfk_wire::kafka::messages::{
    ApiVersionsResponse, DescribeGroupsResponse, FindCoordinatorResponse, ListGroupsResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataResponse, OffsetFetchResponse, api_key,
    api_versions_response::ApiVersion,
    describe_groups_response::DescribedGroup,
    list_groups_response::ListedGroup,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic},
};
use elkfk_wire::kafka::messages::{DescribeGroupsRequest, OffsetFetchRequest};
use elkfk_wire::kafka::{
    ErrorCode, Message, Reader, RequestHeader, frame, header::response_frame,
    header::response_frame_in,
};
use serde_json::Value;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Histories;

use std::sync::Arc;
use std::time::Duration;

/// What the broker knows and does: one topic `logs` of one partition, read by `sink` and `secret`.
#[derive(Debug, Default)]
struct Broker {
    end: AtomicI64,
    is_refusing_secret: AtomicBool,
    is_refusing_all: AtomicBool,
    is_silent: AtomicBool,
}

impl Broker {
    async fn start(self: Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(self.clone().serve(socket, address.port()));
            }
        });
        address.to_string()
    }

    async fn serve(self: Arc<Self>, mut socket: TcpStream, port: u16) {
        let mut buffer = BytesMut::new();
        while socket.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
            while let Some(request) = frame::next(&mut buffer, 1 << 20).unwrap() {
                if self.is_silent.load(Ordering::Relaxed) {
                    continue;
                }
                let answer = self.answer(&request, i32::from(port));
                socket.write_all(&answer).await.unwrap();
            }
        }
    }

    fn answer(&self, request: &[u8], port: i32) -> Vec<u8> {
        let mut r = Reader::new(request);
        let header = RequestHeader::decode(&mut r).unwrap();
        let version = header.api_version;
        let code = |is_refused: &AtomicBool, code: ErrorCode| {
            if is_refused.load(Ordering::Relaxed) { code.0 } else { 0 }
        };
        match header.api_key {
            api_key::API_VERSIONS => {
                let versions = [
                    (api_key::METADATA, 5),
                    (api_key::LIST_GROUPS, 1),
                    (api_key::FIND_COORDINATOR, 1),
                    (api_key::DESCRIBE_GROUPS, 1),
                    (api_key::OFFSET_FETCH, 3),
                    (api_key::LIST_OFFSETS, 2),
                ];
                let api_keys = versions
                    .map(|(api_key, max_version)| ApiVersion {
                        api_key,
                        min_version: 0,
                        max_version,
                    })
                    .to_vec();
                let answer = ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() };
                response_frame_in(header.correlation_id, version, &answer)
            }
            api_key::METADATA => {
                let broker = MetadataResponseBroker {
                    node_id: 0,
                    host: "127.0.0.1".into(),
                    port,
                    ..MetadataResponseBroker::default()
                };
                let partition = MetadataResponsePartition {
                    leader_id: 0,
                    ..MetadataResponsePartition::default()
                };
                let topic = MetadataResponseTopic {
                    name: Some("logs".into()),
                    partitions: vec![partition],
                    ..MetadataResponseTopic::default()
                };
                let answer = MetadataResponse {
                    brokers: vec![broker],
                    topics: vec![topic],
                    ..MetadataResponse::default()
                };
                response_frame(&header, &answer)
            }
            api_key::LIST_GROUPS => {
                let groups = ["secret", "sink"].map(|group| ListedGroup {
                    group_id: group.into(),
                    protocol_type: "consumer".into(),
                    ..ListedGroup::default()
                });
                let answer = ListGroupsResponse {
                    error_code: code(
                        &self.is_refusing_all,
                        ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
                    ),
                    groups: groups.to_vec(),
                    ..ListGroupsResponse::default()
                };
                response_frame(&header, &answer)
            }
            api_key::FIND_COORDINATOR => {
                let answer = FindCoordinatorResponse {
                    host: "127.0.0.1".into(),
                    port,
                    ..FindCoordinatorResponse::default()
                };
                response_frame(&header, &answer)
            }
            api_key::DESCRIBE_GROUPS => {
                let asked = DescribeGroupsRequest::decode(&mut r, version).unwrap();
                let group_id = asked.groups[0].clone();
                let is_secret = group_id == "secret";
                let group = DescribedGroup {
                    error_code: if is_secret {
                        code(&self.is_refusing_secret, ErrorCode::GROUP_AUTHORIZATION_FAILED)
                    } else {
                        0
                    },
                    group_id,
                    group_state: "Empty".into(),
                    ..DescribedGroup::default()
                };
                let answer = DescribeGroupsResponse {
                    groups: vec![group],
                    ..DescribeGroupsResponse::default()
                };
                response_frame(&header, &answer)
            }
            api_key::OFFSET_FETCH => {
                OffsetFetchRequest::decode(&mut r, version).unwrap();
                let end = self.end.load(Ordering::Relaxed);
                let partition = OffsetFetchResponsePartition {
                    committed_offset: end,
                    ..OffsetFetchResponsePartition::default()
                };
                let topic =
                    OffsetFetchResponseTopic { name: "logs".into(), partitions: vec![partition] };
                let answer =
                    OffsetFetchResponse { topics: vec![topic], ..OffsetFetchResponse::default() };
                response_frame(&header, &answer)
            }
            api_key::LIST_OFFSETS => {
                let asked = ListOffsetsRequest::decode(&mut r, version).unwrap();
                let is_start = asked.topics[0].partitions[0].timestamp == -2;
                let offset = if is_start { 0 } else { self.end.load(Ordering::Relaxed) };
                let partition = ListOffsetsPartitionResponse {
                    offset,
                    ..ListOffsetsPartitionResponse::default()
                };
                let topic =
                    ListOffsetsTopicResponse { name: "logs".into(), partitions: vec![partition] };
                let answer =
                    ListOffsetsResponse { topics: vec![topic], ..ListOffsetsResponse::default() };
                response_frame(&header, &answer)
            }
            other => panic!("API {other} was not offered"),
        }
        .unwrap()
    }
}

/// A page on that broker, and an index that takes connections and never answers.
struct Page {
    running: crate::Running,
    _index: TcpListener,
}

impl Page {
    async fn of(broker: &Arc<Broker>) -> Self {
        let index = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = crate::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            bootstrap_servers: broker.clone().start().await,
            elasticsearch: format!("http://{}", index.local_addr().unwrap()),
            ..crate::Config::default()
        };
        Self { running: crate::start(config).await.unwrap(), _index: index }
    }

    async fn get(&self, path: &str) -> Value {
        let mut socket = TcpStream::connect(self.running.local_addr()).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_default()
    }

    /// The first measurement for which `is_wanted`.
    async fn until(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let lag = self.get("/api/v1/lag").await;
                if is_wanted(&lag) {
                    return lag;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), look).await.expect("it comes true in 20 s")
    }
}

fn state(lag: &Value, group: usize) -> &Value {
    &lag["groups"][group]["topics"][0]["partitions"][0]["state"]
}

#[tokio::test]
async fn one_refused_group_leaves_the_others() {
    let broker = Arc::new(Broker::default());
    let page = Page::of(&broker).await;
    page.until(|lag| state(lag, 0) == "ok" && state(lag, 1) == "ok").await;
    broker.is_refusing_secret.store(true, Ordering::Relaxed);
    let lag = page.until(|lag| !lag["groups"][0]["why"].is_null()).await;
    let why = lag["groups"][0]["why"].as_str().unwrap();
    assert!(why.contains("GROUP_AUTHORIZATION_FAILED"), "{why}");
    assert_eq!((state(&lag, 0), state(&lag, 1)), (&"unknown".into(), &"ok".into()));
    assert_eq!((&lag["stale"], &lag["broker"]["ok"]), (&false.into(), &true.into()));
    page.running.stop().await;
}

#[tokio::test]
async fn a_cluster_that_refuses_or_hangs_leaves_figures_and_plots() {
    let broker = Arc::new(Broker::default());
    let page = Page::of(&broker).await;
    page.until(|lag| state(lag, 1) == "ok").await;
    for trouble in [&broker.is_refusing_all, &broker.is_silent] {
        let before = page.get("/api/v1/lag/history?group=sink&topic=logs").await;
        let before = before["points"].as_array().unwrap().len();
        trouble.store(true, Ordering::Relaxed);
        let lag = page.until(|lag| lag["stale"] == true).await;
        assert_eq!((state(&lag, 1), &lag["broker"]["ok"]), (&"ok".into(), &false.into()));
        let history = page.get("/api/v1/lag/history?group=sink&topic=logs").await;
        let points = history["points"].as_array().unwrap();
        assert!(points.len() > before && points[0][1] == 0.0, "{history}");
        trouble.store(false, Ordering::Relaxed);
        let again = page.until(|lag| lag["stale"] == false).await;
        assert!(again["now_ms"].as_i64() > lag["now_ms"].as_i64());
    }
    page.running.stop().await;
}

#[tokio::test]
async fn an_index_that_hangs_does_not_hold_up_the_lag() {
    let broker = Arc::new(Broker::default());
    let page = Page::of(&broker).await;
    for end in 1..=3 {
        broker.end.store(end, Ordering::Relaxed);
        page.until(|lag| lag["groups"][1]["topics"][0]["partitions"][0]["end"] == end).await;
    }
    assert_eq!(page.get("/api/v1/lag").await["store"], Value::Null);
    page.running.stop().await;
}

#[test]
fn a_failed_measurement_is_a_gap_in_the_plot() {
    let figures = |lag| Figures { lag: Some(lag), ..Figures::default() };
    let snapshot = |second: i64| {
        let topic =
            TopicLag { topic: "logs".into(), figures: figures(second), ..TopicLag::default() };
        let group = GroupLag {
            group: "sink".into(),
            state: "Stable".into(),
            members: 1,
            figures: figures(second),
            topics: vec![topic],
            why: None,
        };
        Snapshot { now_ms: second * 1000, groups: vec![group] }
    };
    let mut histories = Histories::default();
    for second in 0..5 {
        histories.push(&snapshot(second));
    }
    for second in 5..200 {
        histories.miss(second * 1000);
    }
    histories.push(&snapshot(200));
    let all = (i64::MIN, i64::MAX);
    let points = histories.points("sink", "logs", all);
    let lags: Vec<_> = points.iter().map(|point| point[1]).collect();
    assert_eq!((points.len(), lags[4], lags[5], lags[199]), (201, Some(4.0), None, None));
    assert_eq!(lags[200], Some(200.0));
    // A group that is gone keeps its past for as long as the plots reach back.
    histories.push(&Snapshot { now_ms: 3_600_000, groups: vec![] });
    assert_eq!(histories.points("sink", "logs", all).len(), 201);
    histories.push(&snapshot(4_000));
    let again = histories.points("sink", "logs", all);
    assert_eq!(again[again.len() - 2][1], None);
    histories.push(&Snapshot { now_ms: 8 * 86_400_000, groups: vec![] });
    assert!(histories.points("sink", "logs", all).is_empty());
}
