//! DescribeAcls, versions 1 to 3: says, as Kafka does, that there are none.

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::describe_acls_request::DescribeAclsRequest;
use elkfk_wire::kafka::messages::describe_acls_response::DescribeAclsResponse;

use super::{Answer, Request, code};

pub(super) async fn describe(request: Request) -> Answer {
    let _: DescribeAclsRequest<'_> = request.decode()?;
    request.answer(&DescribeAclsResponse {
        error_code: code(ErrorCode::SECURITY_DISABLED),
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..Default::default()
    })
}
