//! Shell: asks the cluster for offsets once a second.
use crate::Shared;
use std::sync::Arc;
pub(crate) async fn run(_shared: Arc<Shared>) {}
