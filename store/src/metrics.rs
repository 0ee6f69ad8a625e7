//! Every metric of the store.

use std::sync::LazyLock;

use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, histogram_opts, register_histogram,
    register_int_counter, register_int_counter_vec, register_int_gauge,
};

// A name is registered once, here; a clash is a mistake of this file.
const UNIQUE: &str = "metric names are unique";

pub static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "elkfk_store_requests_total",
        "HTTP requests answered",
        &["api", "status"]
    )
    .expect(UNIQUE)
});
pub static DOCUMENTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("elkfk_store_documents_total", "Bulk items by outcome", &["result"])
        .expect(UNIQUE)
});
pub static INDEXED_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "elkfk_store_indexed_bytes_total",
        "Bytes of JSON of the documents accepted"
    )
    .expect(UNIQUE)
});
pub static COMMIT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(histogram_opts!(
        "elkfk_store_commit_seconds",
        "Time to make a group of bulk requests durable and searchable",
        prometheus::exponential_buckets(0.002, 2.0, 14).expect("buckets rise")
    ))
    .expect(UNIQUE)
});
pub static COMMITS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("elkfk_store_commits_total", "Commits of an index").expect(UNIQUE)
});
pub static SEARCH_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(histogram_opts!(
        "elkfk_store_search_seconds",
        "Time of one search",
        prometheus::exponential_buckets(0.001, 2.0, 16).expect("buckets rise")
    ))
    .expect(UNIQUE)
});
pub static SEARCHES_TIMED_OUT: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("elkfk_store_searches_timed_out_total", "Searches cut at their deadline")
        .expect(UNIQUE)
});
pub static REJECTED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "elkfk_store_rejected_total",
        "Requests refused to stay within bounds",
        &["reason"]
    )
    .expect(UNIQUE)
});
pub static UNMAPPED_FIELDS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "elkfk_store_unmapped_fields_total",
        "Values kept in _source only, beyond the field limit or where fields are not added"
    )
    .expect(UNIQUE)
});
pub static IGNORED_VALUES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "elkfk_store_ignored_values_total",
        "Values kept in _source only, of another type than their field's"
    )
    .expect(UNIQUE)
});
pub static ID_LOOKUPS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "elkfk_store_id_lookups_total",
        "How it was decided whether an id exists: newer (no lookup), filter, terms",
        &["by"]
    )
    .expect(UNIQUE)
});
pub static INDEXING_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("elkfk_store_indexing_bytes", "Bytes of bulk requests in hand")
        .expect(UNIQUE)
});
pub static INDICES: LazyLock<IntGauge> =
    LazyLock::new(|| register_int_gauge!("elkfk_store_indices", "Indices present").expect(UNIQUE));
pub static INDICES_EXPIRED: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("elkfk_store_indices_expired_total", "Indices removed by retention")
        .expect(UNIQUE)
});
