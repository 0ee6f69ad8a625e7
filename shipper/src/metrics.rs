//! Every metric of the shipper.

use std::sync::LazyLock;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge};
use prometheus::{
    register_histogram, register_int_counter, register_int_counter_vec, register_int_gauge,
};

macro_rules! counter {
    ($name:ident, $text:literal, $help:literal) => {
        pub(crate) static $name: LazyLock<IntCounter> =
            LazyLock::new(|| register_int_counter!($text, $help).expect("the name is used once"));
    };
}
macro_rules! gauge {
    ($name:ident, $text:literal, $help:literal) => {
        pub(crate) static $name: LazyLock<IntGauge> =
            LazyLock::new(|| register_int_gauge!($text, $help).expect("the name is used once"));
    };
}

counter!(LINES, "elkfk_shipper_lines_total", "Lines read");
counter!(BYTES, "elkfk_shipper_read_bytes_total", "Bytes read from files");
counter!(
    SENT,
    "elkfk_shipper_sent_events_total",
    "Events handed to the producer, repeats included"
);
counter!(SENT_BYTES, "elkfk_shipper_sent_bytes_total", "Bytes of those events, uncompressed");
counter!(ACKED, "elkfk_shipper_acked_events_total", "Events the broker acknowledged");
counter!(
    FILE_WAIT_MS,
    "elkfk_shipper_file_wait_milliseconds_total",
    "From when lines stood in their file to when they were read, summed over the lines"
);
counter!(
    SEND_FAILURES,
    "elkfk_shipper_send_failures_total",
    "Events refused; they are read and sent again"
);
counter!(TRUNCATED, "elkfk_shipper_truncated_events_total", "Events whose text was cut to a limit");
counter!(TRUNCATED_BYTES, "elkfk_shipper_truncated_bytes_total", "Bytes cut from those events");
counter!(
    INVALID,
    "elkfk_shipper_invalid_encoding_events_total",
    "Events with bytes that were no text"
);
counter!(HOLE_BYTES, "elkfk_shipper_hole_bytes_total", "NUL bytes skipped");
counter!(
    ROTATED,
    "elkfk_shipper_truncated_files_total",
    "Files that were truncated or replaced in place"
);
counter!(
    UNFOUND_BYTES,
    "elkfk_shipper_unfound_bytes_total",
    "Bytes of truncated files that no copy was found of"
);
counter!(REGISTRY_SYNCS, "elkfk_shipper_registry_syncs_total", "Times the registry was synced");
gauge!(OPEN_FILES, "elkfk_shipper_open_files", "Files held open");
gauge!(FILES, "elkfk_shipper_files", "Files watched");
gauge!(LAG_BYTES, "elkfk_shipper_lag_bytes", "Bytes in watched files that are not acknowledged");
gauge!(
    IN_FLIGHT_BYTES,
    "elkfk_shipper_in_flight_bytes",
    "Bytes of events sent and not acknowledged"
);
gauge!(KAFKA_UP, "elkfk_shipper_kafka_up", "1 while the cluster answers");

pub(crate) static ACK_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets =
        vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
    let options = HistogramOpts::new(
        "elkfk_shipper_ack_seconds",
        "From the reading of a line to the broker's acknowledgement of its event",
    );
    register_histogram!(options.buckets(buckets)).expect("the name is used once")
});

pub(crate) static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "elkfk_shipper_dropped_events_total",
        "Events not sent, because they were empty, filtered or a processor dropped them",
        &["reason"]
    )
    .expect("the name is used once")
});

pub(crate) static SKIPPED_FILES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "elkfk_shipper_skipped_files_total",
        "Files not read, by reason",
        &["reason"]
    )
    .expect("the name is used once")
});
