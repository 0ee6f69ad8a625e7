//! Counts, and a controller that refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use bytes::BytesMut;
use elkfk_broker_client::Config;
use elkfk_wire::kafka::messages::{
    ApiVersionsResponse, CreatePartitionsResponse, MetadataResponse, api_key,
    api_versions_response::ApiVersion,
    create_partitions_response::CreatePartitionsTopicResult,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
};
use elkfk_wire::kafka::{ErrorCode, Reader, RequestHeader, frame, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::Standing;
use super::super::lock::Election;
use super::*;

#[track_caller]
fn check(all: u32, here: u32, from: u32, to: u32, wanted: u32) {
    let members = Members { all, of_topic: from };
    assert_eq!(wanted_of_sinks(members, here, from, to), wanted);
}

#[test]
fn other_programs_and_other_topics_keep_their_members() {
    check(2, 2, 2, 4, 4);
    // A Logstash beside the sinks.
    check(3, 2, 3, 6, 5);
    // Half of the members read another topic.
    check(4, 4, 2, 3, 5);
    // The sinks were asked for four before; the group has yet to see it.
    check(2, 4, 2, 4, 4);
    check(4, 4, 4, 2, 2);
    check(5, 0, 5, 2, 1);
}

/// A broker with one topic of two partitions, that refuses to make more of them; with `is_lying` it has
/// made them all the same.
async fn broker(is_lying: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let partitions = Arc::new(AtomicI32::new(2));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, i32::from(addr.port()), partitions.clone(), is_lying));
        }
    });
    addr.to_string()
}

async fn serve(mut socket: TcpStream, port: i32, partitions: Arc<AtomicI32>, is_lying: bool) {
    let mut buffer = BytesMut::new();
    loop {
        let Some(body) = frame::next(&mut buffer, 1 << 20).unwrap() else {
            match socket.read_buf(&mut buffer).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let request = RequestHeader::decode(&mut Reader::new(&body)).unwrap();
        let answer = match request.api_key {
            api_key::API_VERSIONS => {
                let api =
                    |api_key, max_version| ApiVersion { api_key, min_version: 0, max_version };
                let api_keys = vec![
                    api(api_key::METADATA, 9),
                    api(api_key::API_VERSIONS, 3),
                    api(api_key::CREATE_PARTITIONS, 3),
                ];
                let response = ApiVersionsResponse { api_keys, ..Default::default() };
                header::response_frame(&request, &response)
            }
            api_key::METADATA => {
                let partition = |partition_index| MetadataResponsePartition {
                    partition_index,
                    replica_nodes: vec![1],
                    leader_id: 1,
                    ..Default::default()
                };
                let topic = MetadataResponseTopic {
                    name: Some("logs".into()),
                    partitions: (0..partitions.load(Relaxed)).map(partition).collect(),
                    ..Default::default()
                };
                let host = "127.0.0.1".into();
                let response = MetadataResponse {
                    brokers: vec![MetadataResponseBroker { node_id: 1, host, port, rack: None }],
                    controller_id: 1,
                    topics: vec![topic],
                    ..Default::default()
                };
                header::response_frame(&request, &response)
            }
            _ => {
                if is_lying {
                    partitions.store(4, Relaxed);
                }
                let result = CreatePartitionsTopicResult {
                    name: "logs".into(),
                    error_code: ErrorCode::INVALID_PARTITIONS.0,
                    error_message: Some("not today".into()),
                };
                let response =
                    CreatePartitionsResponse { results: vec![result], ..Default::default() };
                header::response_frame(&request, &response)
            }
        };
        socket.write_all(&answer.unwrap()).await.unwrap();
    }
}

async fn only_instance() -> Lock {
    let (stands, _) = watch::channel(Standing::Behind);
    Election::new(None, "a".into()).win(&stands).await
}

async fn expand(is_lying: bool) -> Result<(), String> {
    let client = Client::new(Config::to(&broker(is_lying).await));
    let lock = only_instance().await;
    let hands = Hands { client: &client, sinks: &Sinks::new(&[]), lock: &lock };
    let members = Members { all: 2, of_topic: 2 };
    let subject = Subject { group: "g", topic: "logs", members };
    let action = Action::Partitions { from: 2, to: 4, consumers_from: 2, consumers_to: 2 };
    hands.perform(subject, action).await
}

#[tokio::test]
async fn a_refusal_is_told_and_what_is_there_is_no_refusal() {
    let refused = expand(false).await.unwrap_err();
    assert!(refused.contains("not today"), "{refused}");
    assert_eq!(expand(true).await, Ok(()));
}

#[tokio::test]
async fn consumers_need_a_sink_to_ask() {
    let client = Client::new(Config::to("127.0.0.1:1"));
    let lock = only_instance().await;
    let hands = Hands { client: &client, sinks: &Sinks::new(&[]), lock: &lock };
    let members = Members { all: 1, of_topic: 1 };
    let subject = Subject { group: "g", topic: "logs", members };
    let refused = hands.perform(subject, Action::Consumers { from: 1, to: 2 }).await;
    assert_eq!(refused.unwrap_err(), "no sink that reads logs in g can be asked for consumers");
}
