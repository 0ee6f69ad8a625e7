//! ApiVersions, versions 0 to 3: what this broker understands.
//!
//! A version above 3 is answered in version 0 with UNSUPPORTED_VERSION, so that the client can ask
//! again (KIP-511). Produce is advertised from 0 though 0 to 2 are refused: librdkafka before 2.11.1
//! looks for exact versions and otherwise switches compression off without a word (KAFKA-18659).

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::api_key;
use elkfk_wire::kafka::messages::api_versions_request::ApiVersionsRequest;
use elkfk_wire::kafka::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};

use super::{Answer, Reply, Request, code};

/// API key, first and last version.
pub(crate) const ADVERTISED: &[(i16, i16, i16)] = &[
    (api_key::PRODUCE, 0, 9),
    (api_key::FETCH, 4, 13),
    (api_key::LIST_OFFSETS, 1, 7),
    (api_key::METADATA, 0, 12),
    (api_key::OFFSET_COMMIT, 2, 8),
    (api_key::OFFSET_FETCH, 1, 8),
    (api_key::FIND_COORDINATOR, 0, 4),
    (api_key::JOIN_GROUP, 0, 9),
    (api_key::HEARTBEAT, 0, 4),
    (api_key::LEAVE_GROUP, 0, 5),
    (api_key::SYNC_GROUP, 0, 5),
    (api_key::DESCRIBE_GROUPS, 0, 5),
    (api_key::LIST_GROUPS, 0, 4),
    (api_key::API_VERSIONS, 0, 3),
    (api_key::CREATE_TOPICS, 2, 7),
    (api_key::DELETE_TOPICS, 1, 6),
    (api_key::DELETE_RECORDS, 0, 2),
    (api_key::INIT_PRODUCER_ID, 0, 4),
    (api_key::OFFSET_FOR_LEADER_EPOCH, 2, 4),
    (api_key::DESCRIBE_ACLS, 1, 3),
    (api_key::DESCRIBE_CONFIGS, 1, 4),
    (api_key::ALTER_CONFIGS, 0, 2),
    (api_key::DESCRIBE_LOG_DIRS, 1, 4),
    (api_key::CREATE_PARTITIONS, 0, 3),
    (api_key::DELETE_GROUPS, 0, 2),
    (api_key::INCREMENTAL_ALTER_CONFIGS, 0, 1),
    (api_key::OFFSET_DELETE, 0, 0),
    (api_key::DESCRIBE_CLUSTER, 0, 0),
];

fn response(error: ErrorCode) -> ApiVersionsResponse<'static> {
    let keys = ADVERTISED.iter().map(|&(api_key, min_version, max_version)| ApiVersion {
        api_key,
        min_version,
        max_version,
    });
    ApiVersionsResponse { error_code: code(error), api_keys: keys.collect(), ..Default::default() }
}

pub(super) async fn handle(request: Request) -> Answer {
    let message: ApiVersionsRequest<'_> = request.decode()?;
    let is_name = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
            && !text.starts_with(['-', '.'])
    };
    let is_valid = request.version < 3
        || !message.client_software_name.is_empty()
            && is_name(&message.client_software_name)
            && is_name(&message.client_software_version);
    let error = if is_valid { ErrorCode::NONE } else { ErrorCode::INVALID_REQUEST };
    request.answer(&response(error))
}

/// Answers a version that is not known, in one that every client knows.
pub(super) async fn refuse(reply: Reply) -> Answer {
    reply.answer_in(0, &response(ErrorCode::UNSUPPORTED_VERSION))
}
