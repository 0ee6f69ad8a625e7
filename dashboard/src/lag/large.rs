//! Ten thousand partitions and five hundred groups, of a broker that makes them up.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use elkfk_wire::kafka::messages::{
    ApiVersionsResponse, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorResponse,
    ListGroupsResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetFetchRequest, OffsetFetchResponse, api_key,
    api_versions_response::ApiVersion,
    describe_groups_response::DescribedGroup,
    list_groups_response::ListedGroup,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic},
};
use elkfk_wire::kafka::{
    Message, Reader, RequestHeader, frame, header::response_frame, header::response_frame_in,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Each group reads a topic of its own; the last one a topic with half of all partitions.
const GROUPS: usize = 500;
const SMALL: i32 = 10;
const LARGE: i32 = 5_010;
/// No answer of a page, and no event, is larger.
const ANSWER_BYTES_MAX: usize = 300_000;

fn partitions(group: usize) -> i32 {
    if group == GROUPS - 1 { LARGE } else { SMALL }
}

fn number(name: &str) -> usize {
    name.rsplit('-').next().unwrap().parse().unwrap()
}

fn answer(request: &[u8], port: i32) -> Vec<u8> {
    let mut r = Reader::new(request);
    let header = RequestHeader::decode(&mut r).unwrap();
    let version = header.api_version;
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
                .map(|(api_key, max_version)| ApiVersion { api_key, min_version: 0, max_version })
                .to_vec();
            let answer = ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() };
            response_frame_in(header.correlation_id, version, &answer)
        }
        api_key::METADATA => {
            let asked = MetadataRequest::decode(&mut r, version).unwrap();
            let names: Vec<String> = match &asked.topics {
                None => (0..GROUPS).map(|group| format!("topic-{group}")).collect(),
                Some(topics) => topics
                    .iter()
                    .filter_map(|topic| Some(topic.name.as_deref()?.to_owned()))
                    .collect(),
            };
            let topics = names.iter().filter(|name| name.starts_with("topic-")).map(|name| {
                let partition = |partition_index| MetadataResponsePartition {
                    partition_index,
                    ..MetadataResponsePartition::default()
                };
                MetadataResponseTopic {
                    name: Some(name.as_str().into()),
                    partitions: (0..partitions(number(name))).map(partition).collect(),
                    ..MetadataResponseTopic::default()
                }
            });
            let broker = MetadataResponseBroker {
                host: "127.0.0.1".into(),
                port,
                ..MetadataResponseBroker::default()
            };
            let answer = MetadataResponse {
                brokers: vec![broker],
                topics: topics.collect(),
                ..MetadataResponse::default()
            };
            response_frame(&header, &answer)
        }
        api_key::LIST_GROUPS => {
            let group = |group| ListedGroup {
                group_id: format!("group-{group}").into(),
                protocol_type: "consumer".into(),
                ..ListedGroup::default()
            };
            let groups = (0..GROUPS).map(group).collect();
            response_frame(&header, &ListGroupsResponse { groups, ..ListGroupsResponse::default() })
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
            let group = DescribedGroup {
                group_id: asked.groups[0].clone(),
                group_state: "Empty".into(),
                ..DescribedGroup::default()
            };
            let groups = vec![group];
            let answer = DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() };
            response_frame(&header, &answer)
        }
        api_key::OFFSET_FETCH => {
            let asked = OffsetFetchRequest::decode(&mut r, version).unwrap();
            let group = number(&asked.group_id);
            let partition = |partition_index| OffsetFetchResponsePartition {
                partition_index,
                committed_offset: 1_000_000,
                ..OffsetFetchResponsePartition::default()
            };
            let topic = OffsetFetchResponseTopic {
                name: format!("topic-{group}").into(),
                partitions: (0..partitions(group)).map(partition).collect(),
            };
            let topics = vec![topic];
            response_frame(
                &header,
                &OffsetFetchResponse { topics, ..OffsetFetchResponse::default() },
            )
        }
        api_key::LIST_OFFSETS => {
            let asked = ListOffsetsRequest::decode(&mut r, version).unwrap();
            let topics = asked.topics.iter().map(|topic| ListOffsetsTopicResponse {
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|asked| ListOffsetsPartitionResponse {
                        partition_index: asked.partition_index,
                        offset: if asked.timestamp == -2 { 0 } else { 1_000_000 },
                        ..ListOffsetsPartitionResponse::default()
                    })
                    .collect(),
            });
            let topics = topics.collect();
            response_frame(
                &header,
                &ListOffsetsResponse { topics, ..ListOffsetsResponse::default() },
            )
        }
        other => panic!("API {other} was not offered"),
    }
    .unwrap()
}

/// On a thread of its own, so that its work is not taken for ours.
fn start_broker() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = BytesMut::new();
                    while socket.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                        while let Some(request) = frame::next(&mut buffer, 4 << 20).unwrap() {
                            let answer = answer(&request, i32::from(address.port()));
                            if socket.write_all(&answer).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
    });
    address.to_string()
}

async fn get(page: &crate::Running, path: &str) -> String {
    let mut socket = TcpStream::connect(page.local_addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_partitions_and_five_hundred_groups_are_small_answers() {
    let config = crate::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        bootstrap_servers: start_broker(),
        elasticsearch: "http://127.0.0.1:1".into(),
        ..crate::Config::default()
    };
    let page = crate::start(config).await.unwrap();
    let begun = Instant::now();
    let is_there = async |path: &str, total: usize| loop {
        let answer = get(&page, path).await;
        let json: Value = serde_json::from_str(&answer).unwrap_or_default();
        if json["total"] == total {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{path}: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let all = "limit=500&sort=lag&desc=1";
    for (path, total) in [
        (format!("/api/v1/groups?{all}"), GROUPS),
        (format!("/api/v1/topics?{all}"), GROUPS),
        (format!("/api/v1/lag/partitions?group=group-499&topic=topic-499&{all}"), LARGE as usize),
    ] {
        let answer = is_there(&path, total).await;
        assert!(answer.len() <= ANSWER_BYTES_MAX, "{path} is {} bytes", answer.len());
    }
    for path in [
        "/api/v1/lag/history?group=group-499&topic=topic-499",
        "/api/v1/lag/heat?group=group-499&topic=topic-499",
        "/api/v1/topic?topic=topic-499",
        "/api/v1/group?group=group-499",
        "/api/v1/overview",
        "/api/v1/marks",
        "/api/v1/alerts",
    ] {
        let answer = get(&page, path).await;
        assert!(
            answer.starts_with('{') && answer.len() <= ANSWER_BYTES_MAX,
            "{path} is {} bytes",
            answer.len()
        );
    }
    let mut socket = TcpStream::connect(page.local_addr()).await.unwrap();
    socket.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut event = BytesMut::new();
    while !event.windows(4).skip(200).any(|end| end == b"\n\n\r\n") {
        assert!(socket.read_buf(&mut event).await.unwrap() > 0);
    }
    assert!((50_000..ANSWER_BYTES_MAX).contains(&event.len()), "{}", event.len());
    page.stop().await;
}
