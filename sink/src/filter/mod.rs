//! Filters, one file each under Logstash's name; what they share.

mod common;
mod drop;
mod grok;
mod numbers;
pub(crate) mod regex;

use elkfk_base::{Mistakes, mistakes::did_you_mean};

pub(crate) use common::Common;

use crate::{
    config::{Options, Plugin},
    event::{Event, Timestamp},
};

/// Every filter there is.
pub const SUPPORTED: [&str; 2] = ["drop", "grok"];

/// Filters of Logstash that are not here yet; refused by name rather than as unknown.
pub const NOT_YET: [&str; 40] = [
    "age",
    "aggregate",
    "alter",
    "bytes",
    "cidr",
    "cipher",
    "clone",
    "csv",
    "de_dot",
    "dns",
    "elapsed",
    "elastic_integration",
    "elasticsearch",
    "environment",
    "extractnumbers",
    "fingerprint",
    "geoip",
    "http",
    "i18n",
    "java_uuid",
    "jdbc_static",
    "jdbc_streaming",
    "json_encode",
    "memcached",
    "metricize",
    "metrics",
    "prune",
    "range",
    "ruby",
    "sleep",
    "split",
    "syslog_pri",
    "threats_classifier",
    "throttle",
    "tld",
    "translate",
    "truncate",
    "urldecode",
    "useragent",
    "uuid",
];

/// What a thread needs to run filters; one per thread, reused from event to event.
#[derive(Debug, Default)]
pub struct Context {
    /// When the event was received, in practice the time of its Kafka record: what a date without a
    /// year is measured against, so that a replay gives the same event.
    pub received: Timestamp,
    /// Captures and choices of regular expressions.
    pub(crate) machine: regex::Scratch,
}

impl Context {
    pub fn new(received: Timestamp) -> Self {
        Self { received, machine: regex::Scratch::default() }
    }
}

/// What a filter did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It succeeded: add_field, add_tag and their like follow.
    Matched,
    /// It found nothing to do, or failed and tagged the event.
    Unmatched,
    /// The event is dropped.
    Cancelled,
}

/// One compiled filter. Shared between threads.
pub(crate) trait Filter: std::fmt::Debug + Send + Sync {
    fn apply(&self, event: &mut Event, context: &mut Context) -> Verdict;
}

/// Compiles a filter and the options that all have; `None` after noting why it could not be.
pub(crate) fn compile(
    plugin: &Plugin,
    mistakes: &mut Mistakes,
) -> Option<(Box<dyn Filter>, Common)> {
    let before = mistakes.0.len();
    let name = plugin.name.as_str();
    if !SUPPORTED.contains(&name) {
        let text = if NOT_YET.contains(&name) || name == "xml" || name == "csv" {
            format!(
                "filter \"{name}\" is not supported yet; supported are {}",
                SUPPORTED.join(", ")
            )
        } else {
            let hint = did_you_mean(name, SUPPORTED.iter().chain(&NOT_YET).copied());
            if hint.is_empty() {
                format!("unknown filter \"{name}\"; supported are {}", SUPPORTED.join(", "))
            } else {
                format!("unknown filter \"{name}\"{hint}")
            }
        };
        mistakes.push(plugin.place.mistake(text));
        return None;
    }
    let mut options = Options::new(plugin, mistakes);
    let common = Common::read(&mut options);
    let filter: Option<Box<dyn Filter>> = match name {
        "drop" => drop::Drop::read(&mut options).map(|filter| Box::new(filter) as _),
        "grok" => grok::Grok::read(&mut options).map(|filter| Box::new(filter) as _),
        _ => None,
    };
    options.finish();
    match filter {
        Some(filter) if mistakes.0.len() == before => Some((filter, common)),
        _ => None,
    }
}
