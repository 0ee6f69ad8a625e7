//! FindCoordinator, versions 0 to 4: the broker that keeps a group.
//!
//! Differs: transactional ids have no coordinator yet.

use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::find_coordinator_request::FindCoordinatorRequest;
use elkfk_wire::kafka::messages::find_coordinator_response::{
    Coordinator, FindCoordinatorResponse,
};

use super::{Answer, Context, Request, code};
use crate::cluster::OFFSETS_TOPIC;
use crate::group::shell::partition_of;

const GROUP: i8 = 0;
/// The first group of a cluster waits this long for its topic, instead of asking again.
const CREATION_WAIT: Duration = Duration::from_secs(3);

struct Found {
    code: ErrorCode,
    message: Option<&'static str>,
    node: (i32, String, i32),
}

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: FindCoordinatorRequest<'_> = request.decode()?;
    let keys = match request.version >= 4 {
        true => message.coordinator_keys.clone(),
        false => vec![message.key.clone()],
    };
    let mut found = Vec::with_capacity(keys.len());
    for key in &keys {
        found.push(find(&context, key, message.key_type).await);
    }
    if request.version < 4 {
        let found = found.pop().expect("one key was asked for");
        return request.answer(&FindCoordinatorResponse {
            error_code: code(found.code),
            error_message: found.message.map(Into::into),
            node_id: found.node.0,
            host: found.node.1.into(),
            port: found.node.2,
            ..Default::default()
        });
    }
    let coordinators = keys.iter().zip(&found).map(|(key, found)| Coordinator {
        key: key.clone(),
        node_id: found.node.0,
        host: found.node.1.as_str().into(),
        port: found.node.2,
        error_code: code(found.code),
        error_message: found.message.map(Into::into),
    });
    let coordinators = coordinators.collect();
    request.answer(&FindCoordinatorResponse { coordinators, ..Default::default() })
}

async fn find(context: &Context, key: &str, key_type: i8) -> Found {
    let none = |code, message| Found { code, message, node: (-1, String::new(), -1) };
    if key_type != GROUP {
        return none(ErrorCode::UNSUPPORTED_VERSION, Some("transactions are not supported yet"));
    }
    let cluster = &context.broker.cluster;
    if !cluster.image().topics.contains_key(OFFSETS_TOPIC) {
        if cluster.auto_create(OFFSETS_TOPIC).await.is_err() {
            return none(ErrorCode::COORDINATOR_NOT_AVAILABLE, None);
        }
        cluster.await_leaders(OFFSETS_TOPIC, 1, CREATION_WAIT).await;
    }
    let image = cluster.image();
    let count = image.topics.get(OFFSETS_TOPIC).map_or(0, |topic| topic.partitions.len());
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let leader = image.partition(OFFSETS_TOPIC, partition_of(key, count)).map(|state| state.leader);
    let brokers = context.brokers(&image);
    match brokers.into_iter().find(|(id, ..)| Some(*id) == leader) {
        Some((id, host, port, _)) => {
            Found { code: ErrorCode::NONE, message: None, node: (id, host, port) }
        }
        None => none(ErrorCode::COORDINATOR_NOT_AVAILABLE, None),
    }
}
