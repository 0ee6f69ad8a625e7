//! Every version that our broker advertises, of every API, is answered in that version.
//!
//! Clients choose versions in ways nobody foresees: Debian's kcat asks ListOffsets in version 2.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use elkfk_tests::line::TestDir;
use elkfk_wire::kafka::messages::*;
use elkfk_wire::kafka::records::{BatchBuilder, Compression};
use elkfk_wire::kafka::{
    Message, Reader, RequestHeader, ResponseHeader, header, response_header_version,
};

struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, correlation_id: 0 }
    }

    /// The answer's body, without its header.
    fn ask<'a, Q: Message<'a>>(&mut self, request: &Q, version: i16) -> Vec<u8> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: Q::API_KEY,
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("versions".into()),
        };
        let frame = header::request_frame(&header, request)
            .unwrap_or_else(|error| panic!("API {} version {version}: {error}", Q::API_KEY));
        self.stream.write_all(&frame).unwrap();
        let mut length = [0; 4];
        let read = self.stream.read_exact(&mut length);
        read.unwrap_or_else(|error| panic!("API {} version {version}: {error}", Q::API_KEY));
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).unwrap();
        let mut reader = Reader::new(&body);
        let answered =
            ResponseHeader::decode(&mut reader, response_header_version(Q::API_KEY, version))
                .unwrap();
        assert_eq!(answered.correlation_id, self.correlation_id);
        reader.rest().to_vec()
    }
}

/// Reads an answer to its last byte.
fn read<'a, R: Message<'a>>(body: &'a [u8], version: i16) -> R {
    let mut reader = Reader::new(body);
    let message = R::decode(&mut reader, version)
        .unwrap_or_else(|error| panic!("answer of API {} version {version}: {error}", R::API_KEY));
    reader.finish().unwrap();
    message
}

/// Asks `$request` of each advertised version, with `$v` bound to it, and reads the answers as
/// `$answer`, each given to `$check`.
macro_rules! each {
    ($client:ident, $versions:ident, $answer:ty, |$v:ident| $request:expr, $check:expr) => {
        let key = <$answer as Message<'_>>::API_KEY;
        let (least, most) = $versions.remove(&key).expect("the API is advertised");
        let readable = <$answer as Message<'_>>::VERSIONS;
        for $v in least.max(*readable.start())..=most {
            let body = $client.ask(&$request, $v);
            let answer: $answer = read(&body, $v);
            let check: fn(&$answer, i16) = $check;
            check(&answer, $v);
        }
    };
}

fn batch(value: &str) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_advertised_version_is_answered_in_that_version() {
    let dir = TestDir::new();
    let mut config = elkfk_coordinator::Config::embedded(dir.path().join("coordinator"));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let coordinator = elkfk_coordinator::start(config).await.unwrap();
    let zookeeper = coordinator.local_addr().to_string();
    let mut config =
        elkfk_broker::Config::embedded(&dir.path().join("broker"), "127.0.0.1:0", &zookeeper)
            .unwrap();
    config.offsets_partitions = 2;
    let broker = elkfk_broker::start(config).await.unwrap();
    let addr = broker.local_addr();
    tokio::task::spawn_blocking(move || ask_everything(addr)).await.unwrap();
    broker.stop().await;
    coordinator.stop().await;
}

fn ask_everything(addr: SocketAddr) {
    let mut client = Client::new(addr);
    let client = &mut client;
    let body = client.ask(&api_versions_request::ApiVersionsRequest::default(), 0);
    let answer: api_versions_response::ApiVersionsResponse<'_> = read(&body, 0);
    let mut versions: BTreeMap<i16, (i16, i16)> = answer
        .api_keys
        .iter()
        .map(|api| (api.api_key, (api.min_version, api.max_version)))
        .collect();

    each!(
        client,
        versions,
        api_versions_response::ApiVersionsResponse<'_>,
        |_v| api_versions_request::ApiVersionsRequest {
            client_software_name: if _v >= 3 { "test".into() } else { "".into() },
            client_software_version: if _v >= 3 { "1".into() } else { "".into() },
        },
        |answer, _| assert_eq!(answer.error_code, 0)
    );
    each!(
        client,
        versions,
        create_topics_response::CreateTopicsResponse<'_>,
        |v| create_topics_request::CreateTopicsRequest {
            topics: vec![create_topics_request::CreatableTopic {
                name: format!("t{v}").into(),
                num_partitions: 2,
                replication_factor: 1,
                ..Default::default()
            }],
            timeout_ms: 30_000,
            validate_only: false,
        },
        |answer, _| assert_eq!(answer.topics[0].error_code, 0)
    );
    each!(
        client,
        versions,
        produce_response::ProduceResponse<'_>,
        |v| produce_request::ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![produce_request::TopicProduceData {
                name: "t2".into(),
                partition_data: vec![produce_request::PartitionProduceData {
                    index: 0,
                    records: Some(batch(&v.to_string()).into()),
                }],
            }],
            ..Default::default()
        },
        |answer, version| {
            let partition = &answer.responses[0].partition_responses[0];
            assert_eq!((partition.error_code, partition.base_offset), (0, i64::from(version) - 3));
        }
    );
    each!(
        client,
        versions,
        metadata_response::MetadataResponse<'_>,
        |_v| metadata_request::MetadataRequest {
            topics: Some(vec![metadata_request::MetadataRequestTopic {
                name: Some("t2".into()),
                ..Default::default()
            }]),
            ..Default::default()
        },
        |answer, _| assert_eq!(
            (answer.topics[0].error_code, answer.topics[0].partitions.len()),
            (0, 2)
        )
    );
    let body = client.ask(
        &metadata_request::MetadataRequest {
            topics: Some(vec![metadata_request::MetadataRequestTopic {
                name: Some("t2".into()),
                ..Default::default()
            }]),
            ..Default::default()
        },
        12,
    );
    let id = read::<metadata_response::MetadataResponse<'_>>(&body, 12).topics[0].topic_id;
    each!(
        client,
        versions,
        list_offsets_response::ListOffsetsResponse<'_>,
        |_v| list_offsets_request::ListOffsetsRequest {
            replica_id: -1,
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: "t2".into(),
                partitions: [-2, -1, 1_600_000_000_000]
                    .map(|timestamp| list_offsets_request::ListOffsetsPartition {
                        timestamp,
                        ..Default::default()
                    })
                    .to_vec(),
            }],
            ..Default::default()
        },
        |answer, _| {
            let found: Vec<(i16, i64)> =
                answer.topics[0].partitions.iter().map(|it| (it.error_code, it.offset)).collect();
            assert_eq!(found, [(0, 0), (0, 7), (0, 0)]);
        }
    );
    each!(
        client,
        versions,
        fetch_response::FetchResponse<'_>,
        |v| fetch_request::FetchRequest {
            replica_id: -1,
            max_wait_ms: 100,
            min_bytes: 1,
            topics: vec![fetch_request::FetchTopic {
                topic: if v <= 12 { "t2".into() } else { "".into() },
                topic_id: if v >= 13 { id } else { Default::default() },
                partitions: vec![fetch_request::FetchPartition {
                    fetch_offset: 6,
                    partition_max_bytes: 1 << 20,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        },
        |answer, version| {
            let partition = &answer.responses[0].partitions[0];
            assert_eq!(
                (partition.error_code, partition.high_watermark),
                (0, 7),
                "version {version}"
            );
            assert!(!partition.records.as_deref().unwrap_or_default().is_empty());
        }
    );
    each!(
        client,
        versions,
        offset_for_leader_epoch_response::OffsetForLeaderEpochResponse<'_>,
        |_v| offset_for_leader_epoch_request::OffsetForLeaderEpochRequest {
            topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: "t2".into(),
                partitions: vec![Default::default()],
            }],
            ..Default::default()
        },
        |answer, _| assert_eq!(answer.topics[0].partitions[0].end_offset, 7)
    );
    each!(
        client,
        versions,
        find_coordinator_response::FindCoordinatorResponse<'_>,
        |v| find_coordinator_request::FindCoordinatorRequest {
            key: if v < 4 { "g".into() } else { "".into() },
            coordinator_keys: if v >= 4 { vec!["g".into()] } else { Vec::new() },
            ..Default::default()
        },
        |answer, version| {
            assert_eq!(answer.error_code, 0);
            assert!(version < 4 || answer.coordinators[0].error_code == 0);
        }
    );
    groups(client, &mut versions);
    admin(client, &mut versions);
    assert_eq!(versions, BTreeMap::new(), "advertised and not asked for here");
}

fn groups(client: &mut Client, versions: &mut BTreeMap<i16, (i16, i16)>) {
    // Nobody knows this member; what matters is the shape of the answer.
    let member = || "nobody".into();
    each!(
        client,
        versions,
        offset_commit_response::OffsetCommitResponse<'_>,
        |_v| offset_commit_request::OffsetCommitRequest {
            group_id: "g".into(),
            topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                name: "t2".into(),
                partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                    committed_offset: 5,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        },
        |answer, _| assert_eq!(answer.topics[0].partitions[0].error_code, 0)
    );
    each!(
        client,
        versions,
        offset_fetch_response::OffsetFetchResponse<'_>,
        |v| offset_fetch_request::OffsetFetchRequest {
            group_id: if v < 8 { "g".into() } else { "".into() },
            // All that the group committed, except in version 1, which cannot ask so.
            topics: (v == 1).then(|| {
                vec![offset_fetch_request::OffsetFetchRequestTopic {
                    name: "t2".into(),
                    partition_indexes: vec![0],
                }]
            }),
            groups: if v >= 8 {
                vec![offset_fetch_request::OffsetFetchRequestGroup {
                    group_id: "g".into(),
                    topics: None,
                }]
            } else {
                Vec::new()
            },
            ..Default::default()
        },
        |answer, version| {
            let found = match version {
                8 => answer.groups[0].topics[0].partitions[0].committed_offset,
                _ => answer.topics[0].partitions[0].committed_offset,
            };
            assert_eq!(found, 5, "version {version}");
        }
    );
    each!(
        client,
        versions,
        join_group_response::JoinGroupResponse<'_>,
        |v| join_group_request::JoinGroupRequest {
            group_id: format!("join{v}").into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![join_group_request::JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: b"x"[..].into(),
            }],
            ..Default::default()
        },
        |answer, version| {
            let expected = if version >= 4 { 79 } else { 0 };
            assert_eq!(answer.error_code, expected, "version {version}");
            assert!(!answer.member_id.is_empty());
        }
    );
    each!(
        client,
        versions,
        sync_group_response::SyncGroupResponse<'_>,
        |_v| sync_group_request::SyncGroupRequest {
            group_id: "g".into(),
            member_id: member(),
            ..Default::default()
        },
        |answer, _| assert_eq!(answer.error_code, 25)
    );
    each!(
        client,
        versions,
        heartbeat_response::HeartbeatResponse,
        |_v| heartbeat_request::HeartbeatRequest {
            group_id: "g".into(),
            member_id: member(),
            ..Default::default()
        },
        |answer, _| assert_eq!(answer.error_code, 25)
    );
    each!(
        client,
        versions,
        leave_group_response::LeaveGroupResponse<'_>,
        |v| leave_group_request::LeaveGroupRequest {
            group_id: "g".into(),
            member_id: if v < 3 { member() } else { "".into() },
            members: if v >= 3 {
                vec![leave_group_request::MemberIdentity {
                    member_id: member(),
                    ..Default::default()
                }]
            } else {
                Vec::new()
            },
        },
        |answer, version| {
            let code = if version < 3 { answer.error_code } else { answer.members[0].error_code };
            assert_eq!(code, 25);
        }
    );
    each!(
        client,
        versions,
        describe_groups_response::DescribeGroupsResponse<'_>,
        |v| describe_groups_request::DescribeGroupsRequest {
            groups: vec!["g".into(), "join0".into(), "nobody's".into()],
            include_authorized_operations: v >= 3,
        },
        |answer, _| {
            let states: Vec<&str> = answer.groups.iter().map(|group| &*group.group_state).collect();
            assert_eq!(states, ["Empty", "CompletingRebalance", "Dead"]);
        }
    );
    each!(
        client,
        versions,
        list_groups_response::ListGroupsResponse<'_>,
        |_v| list_groups_request::ListGroupsRequest::default(),
        |answer, _| assert!(answer.groups.iter().any(|group| group.group_id == "g"))
    );
    each!(
        client,
        versions,
        offset_delete_response::OffsetDeleteResponse<'_>,
        |_v| offset_delete_request::OffsetDeleteRequest {
            group_id: "g".into(),
            topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
                name: "t2".into(),
                partitions: vec![Default::default()],
            }],
        },
        |answer, _| assert_eq!(
            (answer.error_code, answer.topics[0].partitions[0].error_code),
            (0, 0)
        )
    );
    each!(
        client,
        versions,
        delete_groups_response::DeleteGroupsResponse<'_>,
        |v| delete_groups_request::DeleteGroupsRequest {
            groups_names: vec![if v == 0 { "g" } else { "gone" }.into()]
        },
        |answer, version| assert_eq!(
            answer.results[0].error_code,
            if version == 0 { 0 } else { 69 }
        )
    );
}

fn admin(client: &mut Client, versions: &mut BTreeMap<i16, (i16, i16)>) {
    each!(
        client,
        versions,
        init_producer_id_response::InitProducerIdResponse,
        |_v| init_producer_id_request::InitProducerIdRequest {
            transaction_timeout_ms: 1,
            ..Default::default()
        },
        |answer, version| assert_eq!((answer.error_code, answer.producer_id), (0, version.into()))
    );
    each!(
        client,
        versions,
        describe_configs_response::DescribeConfigsResponse<'_>,
        |_v| describe_configs_request::DescribeConfigsRequest {
            resources: [(2, "t2"), (4, "0"), (2, "nosuch")]
                .map(|(resource_type, name)| describe_configs_request::DescribeConfigsResource {
                    resource_type,
                    resource_name: name.into(),
                    configuration_keys: None,
                })
                .to_vec(),
            include_synonyms: true,
            ..Default::default()
        },
        |answer, _| {
            let codes: Vec<i16> = answer.results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [0, 0, 3]);
        }
    );
    each!(
        client,
        versions,
        alter_configs_response::AlterConfigsResponse<'_>,
        |_v| alter_configs_request::AlterConfigsRequest {
            resources: vec![alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: "t2".into(),
                configs: vec![alter_configs_request::AlterableConfig {
                    name: "retention.ms".into(),
                    value: Some("99".into()),
                }],
            }],
            validate_only: true,
        },
        |answer, _| assert_eq!(answer.responses[0].error_code, 0)
    );
    each!(
        client,
        versions,
        incremental_alter_configs_response::IncrementalAlterConfigsResponse<'_>,
        |_v| incremental_alter_configs_request::IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: "t2".into(),
                configs: vec![incremental_alter_configs_request::AlterableConfig {
                    name: "nosuch".into(),
                    config_operation: 0,
                    value: Some("1".into()),
                }],
            }],
            validate_only: false,
        },
        |answer, _| {
            let response = &answer.responses[0];
            assert_eq!(
                response.error_message.as_deref(),
                Some("Unknown topic config name: nosuch")
            );
        }
    );
    each!(
        client,
        versions,
        describe_log_dirs_response::DescribeLogDirsResponse<'_>,
        |_v| describe_log_dirs_request::DescribeLogDirsRequest::default(),
        |answer, _| assert!(answer.results[0].topics.iter().any(|topic| topic.name == "t2"))
    );
    each!(
        client,
        versions,
        create_partitions_response::CreatePartitionsResponse<'_>,
        |v| create_partitions_request::CreatePartitionsRequest {
            topics: vec![create_partitions_request::CreatePartitionsTopic {
                name: "t2".into(),
                count: 3 + i32::from(v),
                assignments: None,
            }],
            timeout_ms: 30_000,
            validate_only: false,
        },
        |answer, _| assert_eq!(answer.results[0].error_code, 0)
    );
    each!(
        client,
        versions,
        delete_records_response::DeleteRecordsResponse<'_>,
        |v| delete_records_request::DeleteRecordsRequest {
            topics: vec![delete_records_request::DeleteRecordsTopic {
                name: "t2".into(),
                partitions: vec![delete_records_request::DeleteRecordsPartition {
                    partition_index: 0,
                    offset: i64::from(v) + 1,
                }],
            }],
            timeout_ms: 1000,
        },
        |answer, version| {
            assert_eq!(answer.topics[0].partitions[0].low_watermark, i64::from(version) + 1);
        }
    );
    each!(
        client,
        versions,
        describe_cluster_response::DescribeClusterResponse<'_>,
        |_v| describe_cluster_request::DescribeClusterRequest::default(),
        |answer, _| assert_eq!((answer.brokers.len(), answer.controller_id), (1, 0))
    );
    each!(
        client,
        versions,
        describe_acls_response::DescribeAclsResponse<'_>,
        |_v| describe_acls_request::DescribeAclsRequest::default(),
        |answer, _| assert_eq!(answer.error_code, 54)
    );
    each!(
        client,
        versions,
        delete_topics_response::DeleteTopicsResponse<'_>,
        |v| delete_topics_request::DeleteTopicsRequest {
            topics: if v >= 6 {
                vec![delete_topics_request::DeleteTopicState {
                    name: Some(format!("t{v}").into()),
                    ..Default::default()
                }]
            } else {
                Vec::new()
            },
            topic_names: if v < 6 { vec![format!("t{v}").into()] } else { Vec::new() },
            timeout_ms: 30_000,
        },
        |answer, version| assert_eq!(
            answer.responses[0].error_code,
            if version == 1 { 3 } else { 0 }
        )
    );
}
