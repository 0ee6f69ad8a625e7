//! Prometheus' text: our own metrics, and the measures under the names ZooKeeper's
//! PrometheusMetricsProvider gives them.

use std::fmt::Write;

use crate::server::{Surroundings, measures};
use crate::service::Service;

pub(super) fn text(service: &Service, around: &Surroundings<'_>) -> String {
    let mut out = elkfk_base::telemetry::metrics_text();
    let mut put = |name: &str, value: i64| {
        let _ = write!(out, "# TYPE {name} gauge\n{name} {value}\n");
    };
    for (name, value) in measures(service, around) {
        if name != "server_state" {
            put(name, value);
        }
    }
    put("global_sessions", service.figures().sessions as i64);
    let state = around.role.name();
    for name in ["standalone", "leader", "follower", "observer", "looking"] {
        // One line for each, so that a change is seen as one.
        let is_it = i64::from(name == state);
        if name == "standalone" {
            out.push_str("# TYPE server_state gauge\n");
        }
        let _ = writeln!(out, "server_state{{state=\"{name}\"}} {is_it}");
    }
    out
}
