//! Every metric of the box.

use std::sync::LazyLock;

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, register_int_counter, register_int_counter_vec,
    register_int_gauge,
};

fn counter(name: &str, help: &str) -> IntCounter {
    register_int_counter!(name, help).expect("names are unique")
}

/// Requests by API.
pub(crate) static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("elkfk_broker_requests_total", "Requests read, by API", &["api"])
        .expect("names are unique")
});

pub(crate) static REQUEST_BYTES: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_broker_request_bytes_total", "Bytes of requests read"));

pub(crate) static RESPONSE_BYTES: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_broker_response_bytes_total", "Bytes of answers made"));

pub(crate) static MALFORMED_REQUESTS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_broker_malformed_requests_total", "Connections closed for what was sent on them")
});

pub(crate) static CONNECTIONS_STARTED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_broker_connections_started_total", "Connections accepted"));

pub(crate) static CONNECTIONS_FINISHED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_broker_connections_finished_total", "Connections that ended"));

pub(crate) static CONNECTIONS_REFUSED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_broker_connections_refused_total", "Connections over a limit"));

pub(crate) static APPENDED_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_broker_appended_bytes_total", "Bytes of batches appended by producers")
});

pub(crate) static APPEND_ERRORS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_broker_append_errors_total", "Partitions of produce requests refused")
});

pub(crate) static FETCHED_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_broker_fetched_bytes_total", "Bytes of batches sent to consumers")
});

/// Topics and partitions known, and whether this broker is the controller.
pub(crate) static TOPICS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("elkfk_broker_topics", "Topics of the cluster").expect("names are unique")
});

pub(crate) static PARTITIONS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("elkfk_broker_partitions", "Partitions of the cluster")
        .expect("names are unique")
});

pub(crate) static CONTROLLER: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("elkfk_broker_controller", "1 while this broker is the controller")
        .expect("names are unique")
});

pub(crate) static MISSING_RECORDS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "elkfk_broker_missing_records_total",
        "Offsets below a recovery point that were not there when the log was opened",
    )
});
