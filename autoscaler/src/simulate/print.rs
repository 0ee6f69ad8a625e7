//! Reports for people.

use std::fmt::Write as _;

use super::Report;
use super::model::EPOCH_MS;
use crate::ladder::{Event, number, seconds};

/// One line for each report, in aligned columns.
pub fn table<'a>(reports: impl IntoIterator<Item = &'a Report>) -> String {
    let mut text = String::new();
    let mut trace = None;
    for report in reports {
        if trace != Some(&report.trace) {
            trace = Some(&report.trace);
            let _ = writeln!(text, "{}", report.trace);
        }
        let alarms: Vec<&str> = report.alarms.iter().map(String::as_str).collect();
        let line = format!(
            "  {:<7} partitions {:>3}  consumers {:>3}  changes {:>4}  worst wait {:>7}  hot {:>7}  lag at end {:>13}  {}",
            report.policy.name(),
            report.partitions,
            report.consumers,
            report.changes,
            seconds(report.worst_time_lag_s.into()),
            seconds(report.hot_s.into()),
            number(report.lag_at_end as f64),
            alarms.join(", ")
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// What was decided when, and why. `acted_only` leaves out decisions to do nothing.
pub fn decision_log(report: &Report, acted_only: bool) -> String {
    let mut text = String::new();
    for event in &report.events {
        let at_s = (event.at_ms() - EPOCH_MS) / 1000;
        let clock = format!("{}:{:02}:{:02}", at_s / 3600, at_s / 60 % 60, at_s % 60);
        let _ = match event {
            Event::Decision(decision) => {
                if acted_only && decision.action.is_none() && decision.advised.is_none() {
                    continue;
                }
                writeln!(text, "{clock}  {:<23} {}", decision.rule.name(), decision.why)
            }
            Event::Effect(effect) => writeln!(text, "{clock}  {:<23} {}", "effect", effect.why),
        };
    }
    text
}
