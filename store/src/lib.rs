//! Indexes events for search; answers Elasticsearch's HTTP API
