//! Consumes a topic, runs a Logstash pipeline, writes events out in bulk
