//! Every metric of the coordinator.

use std::sync::LazyLock;

use elkfk_wire::jute::OpCode;
use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, register_histogram, register_int_counter,
    register_int_counter_vec, register_int_gauge,
};

macro_rules! metrics {
    ($($kind:ident $name:ident = $register:ident($($argument:expr),*);)*) => {
        $(pub(crate) static $name: LazyLock<$kind> =
            LazyLock::new(|| $register!($($argument),*).expect("metric names are unique"));)*
    };
}

metrics! {
    IntCounterVec REQUESTS = register_int_counter_vec(
        "elkfk_coordinator_requests_total", "Requests answered", &["op", "result"]);
    IntCounter EVENTS = register_int_counter(
        "elkfk_coordinator_watch_events_total", "Watch events sent");
    IntGauge ZNODES = register_int_gauge("elkfk_coordinator_znodes", "Znodes in the tree");
    IntGauge SESSIONS = register_int_gauge("elkfk_coordinator_sessions", "Live sessions");
    IntGauge CONNECTIONS = register_int_gauge(
        "elkfk_coordinator_connections", "Connections with a session or on the way to one");
    IntGauge WATCHES = register_int_gauge("elkfk_coordinator_watches", "Watches set");
    IntGauge REFUSING = register_int_gauge(
        "elkfk_coordinator_refusing_writes", "1 while writes are refused");
    Histogram SYNC_SECONDS = register_histogram(
        "elkfk_coordinator_log_sync_seconds", "Time to write and sync a batch of the log",
        vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0]);
    IntCounter LOGGED_BYTES = register_int_counter(
        "elkfk_coordinator_logged_bytes_total", "Bytes of commands made durable");
    IntCounter LOG_TORN_BYTES = register_int_counter(
        "elkfk_coordinator_log_torn_bytes_total", "Bytes of torn batches cut off the log at a start");
    IntCounter ELECTIONS = register_int_counter(
        "elkfk_coordinator_elections_total", "Times that the ensemble had a new leader, as seen here");
    IntCounter REFUSED_CONNECTIONS = register_int_counter(
        "elkfk_coordinator_refused_connections_total", "Connections closed before a session");
}

/// Counts an answer under the name of its operation.
pub(crate) fn answered(op: i32, is_ok: bool) {
    let op = OpCode::from_code(op).map_or("other", OpCode::name);
    REQUESTS.with_label_values(&[op, if is_ok { "ok" } else { "error" }]).inc();
}
