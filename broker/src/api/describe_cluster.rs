//! DescribeCluster, version 0: the brokers, the controller and the cluster id.

use std::sync::Arc;

use elkfk_wire::kafka::messages::describe_cluster_request::DescribeClusterRequest;
use elkfk_wire::kafka::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};

use super::metadata::{CLUSTER_OPERATIONS, NOT_ASKED};
use super::{Answer, Context, Request};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: DescribeClusterRequest = request.decode()?;
    let image = context.broker.cluster.image();
    let endpoints = context.brokers(&image);
    let brokers = endpoints.iter().map(|(id, host, port, rack)| DescribeClusterBroker {
        broker_id: *id,
        host: host.as_str().into(),
        port: *port,
        rack: rack.as_deref().map(Into::into),
    });
    request.answer(&DescribeClusterResponse {
        cluster_id: context.broker.cluster.cluster_id.as_str().into(),
        controller_id: image.controller,
        brokers: brokers.collect(),
        cluster_authorized_operations: match message.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => NOT_ASKED,
        },
        ..Default::default()
    })
}
