//! Filters, one file each under Logstash's name; what they share.

mod common;
mod date;
mod dissect;
mod drop;
mod grok;
mod gsub;
mod json;
mod kv;
mod mutate;
mod numbers;
pub(crate) mod regex;
#[cfg(test)]
pub(crate) mod testing;

use elkfk_base::{Mistakes, mistakes::did_you_mean};

pub(crate) use common::{Common, Name, render};

use crate::{
    config::{Options, Plugin},
    event::{Event, Timestamp},
};

/// Every filter there is.
pub const SUPPORTED: [&str; 7] = ["date", "dissect", "drop", "grok", "json", "kv", "mutate"];

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
    /// Events that a filter `grok` could not take apart, since the counter was last taken.
    pub grok_failures: u64,
}

impl Context {
    pub fn new(received: Timestamp) -> Self {
        Self { received, ..Self::default() }
    }
}

/// What filters know of the machine when they are compiled.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The zone of dates that name none: `TZ` of the environment, else that of the machine.
    pub(crate) zone: jiff::tz::TimeZone,
}

impl Surroundings {
    pub(crate) fn new(env: crate::config::Env<'_>) -> Self {
        let named = env("TZ").and_then(|name| date::zone_of(name.trim_start_matches(':')));
        Self { zone: named.unwrap_or_else(jiff::tz::TimeZone::system) }
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
    surroundings: &Surroundings,
    mistakes: &mut Mistakes,
) -> Option<(Box<dyn Filter>, Common)> {
    let before = mistakes.0.len();
    let name = plugin.name.as_str();
    #[cfg(test)]
    if name == "panic" {
        let common = Common::read(&mut Options::new(plugin, mistakes));
        return Some((Box::new(testing::Panic), common));
    }
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
        "date" => date::Date::read(&mut options, surroundings).map(|filter| Box::new(filter) as _),
        "dissect" => dissect::Dissect::read(&mut options).map(|filter| Box::new(filter) as _),
        "drop" => drop::Drop::read(&mut options).map(|filter| Box::new(filter) as _),
        "grok" => grok::Grok::read(&mut options).map(|filter| Box::new(filter) as _),
        "json" => json::Json::read(&mut options).map(|filter| Box::new(filter) as _),
        "kv" => kv::Kv::read(&mut options).map(|filter| Box::new(filter) as _),
        "mutate" => mutate::Mutate::read(&mut options).map(|filter| Box::new(filter) as _),
        _ => None,
    };
    options.finish();
    match filter {
        Some(filter) if mistakes.0.len() == before => Some((filter, common)),
        _ => None,
    }
}

pub(crate) fn tag_all(event: &mut Event, tags: &[String]) {
    for tag in tags {
        event.tag(tag);
    }
}
