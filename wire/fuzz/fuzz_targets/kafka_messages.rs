//! No bytes make a message's decoder panic, and what is decoded can be encoded.
//!
//! The first byte chooses the message, the second the version.

#![no_main]

use elkfk_wire::kafka::{Message, Reader, messages as m};
use libfuzzer_sys::fuzz_target;

fn pass<'a, M: Message<'a>>(bytes: &'a [u8], version: u8) {
    let versions = M::VERSIONS;
    let count = versions.end() - versions.start() + 1;
    let version = versions.start() + i16::from(version) % count;
    if let Ok(message) = M::decode(&mut Reader::new(bytes), version) {
        message.encode(&mut Vec::new(), version).expect("what was decoded can be encoded");
    }
}

macro_rules! choose {
    ($index:expr, $bytes:expr, $version:expr; $($name:ident)*) => {{
        let all: &[fn(&[u8], u8)] = &[$(|bytes, version| pass::<m::$name>(bytes, version)),*];
        all[usize::from($index) % all.len()]($bytes, $version);
    }};
}

#[rustfmt::skip]
fuzz_target!(|data: &[u8]| {
    let [message, version, bytes @ ..] = data else { return };
    choose! { *message, bytes, *version;
    AddOffsetsToTxnRequest AddOffsetsToTxnResponse AddPartitionsToTxnRequest
    AddPartitionsToTxnResponse AllocateProducerIdsRequest AllocateProducerIdsResponse
    AlterClientQuotasRequest AlterClientQuotasResponse AlterConfigsRequest AlterConfigsResponse
    AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse AlterPartitionRequest
    AlterPartitionResponse AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse
    ApiVersionsRequest ApiVersionsResponse ConsumerProtocolAssignment
    ConsumerProtocolSubscription ControlledShutdownRequest ControlledShutdownResponse
    CreateAclsRequest CreateAclsResponse CreatePartitionsRequest CreatePartitionsResponse
    CreateTopicsRequest CreateTopicsResponse DeleteAclsRequest DeleteAclsResponse
    DeleteGroupsRequest DeleteGroupsResponse DeleteRecordsRequest DeleteRecordsResponse
    DeleteTopicsRequest DeleteTopicsResponse DescribeAclsRequest DescribeAclsResponse
    DescribeClientQuotasRequest DescribeClientQuotasResponse DescribeClusterRequest
    DescribeClusterResponse DescribeConfigsRequest DescribeConfigsResponse DescribeGroupsRequest
    DescribeGroupsResponse DescribeLogDirsRequest DescribeLogDirsResponse
    DescribeProducersRequest DescribeProducersResponse DescribeTransactionsRequest
    DescribeTransactionsResponse DescribeUserScramCredentialsRequest
    DescribeUserScramCredentialsResponse ElectLeadersRequest ElectLeadersResponse EndTxnRequest
    EndTxnResponse FetchRequest FetchResponse FindCoordinatorRequest FindCoordinatorResponse
    GroupMetadataKey GroupMetadataValue HeartbeatRequest HeartbeatResponse
    IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse InitProducerIdRequest
    InitProducerIdResponse JoinGroupRequest JoinGroupResponse LeaderAndIsrRequest
    LeaderAndIsrResponse LeaveGroupRequest LeaveGroupResponse ListGroupsRequest
    ListGroupsResponse ListOffsetsRequest ListOffsetsResponse ListPartitionReassignmentsRequest
    ListPartitionReassignmentsResponse ListTransactionsRequest ListTransactionsResponse
    MetadataRequest MetadataResponse OffsetCommitKey OffsetCommitRequest OffsetCommitResponse
    OffsetCommitValue OffsetDeleteRequest OffsetDeleteResponse OffsetFetchRequest
    OffsetFetchResponse OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse ProduceRequest
    ProduceResponse SaslAuthenticateRequest SaslAuthenticateResponse SaslHandshakeRequest
    SaslHandshakeResponse StopReplicaRequest StopReplicaResponse SyncGroupRequest
    SyncGroupResponse TransactionLogKey TransactionLogValue TxnOffsetCommitRequest
    TxnOffsetCommitResponse UpdateMetadataRequest UpdateMetadataResponse WriteTxnMarkersRequest
    WriteTxnMarkersResponse
    }
});
