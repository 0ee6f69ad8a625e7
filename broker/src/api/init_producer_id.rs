//! InitProducerId, versions 0 to 4: an id for an idempotent producer.
//!
//! Differs: transactional ids are refused.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::init_producer_id_request::InitProducerIdRequest;
use elkfk_wire::kafka::messages::init_producer_id_response::InitProducerIdResponse;
use tracing::warn;

use super::{Answer, Context, Request, code};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: InitProducerIdRequest<'_> = request.decode()?;
    let refused = |error| InitProducerIdResponse {
        error_code: code(error),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    if message.transactional_id.is_some() {
        return request.answer(&refused(ErrorCode::UNSUPPORTED_VERSION));
    }
    let response = match context.broker.cluster.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse { producer_id, ..Default::default() },
        Err(error) => {
            warn!(%error, "no producer id");
            // Retriable in every client.
            refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
        }
    };
    request.answer(&response)
}
