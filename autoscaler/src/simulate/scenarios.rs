//! The seven loads on which policies are compared.

use super::chance::Chance;
use super::trace::{Change, Stall, Trace};

/// Name on the command line, and what it is.
pub const SCENARIOS: [(&str, &str); 7] = [
    ("burst", "five times the rate for 30 min"),
    ("growth", "six times the rate for good"),
    ("noise", "noise, capacity suffices"),
    ("spikes", "spikes of 40 s each 30 min"),
    ("sink-slow", "Elasticsearch takes 30k/s of 40k/s"),
    ("sink-away", "Elasticsearch down for 20 min"),
    ("poison", "one stalled partition"),
];

/// The scenario of this name.
pub fn scenario(name: &str) -> Option<Trace> {
    let about = SCENARIOS.iter().find(|(known, _)| *known == name)?.1;
    let trace = Trace { name: about.into(), ..Trace::default() };
    let at = |at_s: u32, per_s: f64| Change { at_s, per_s };
    Some(match name {
        "burst" => Trace { arrival: vec![at(0, 20e3), at(600, 100e3), at(2400, 20e3)], ..trace },
        "growth" => Trace { arrival: vec![at(0, 20e3), at(600, 120e3)], ..trace },
        "noise" => {
            let mut chance = Chance::new(1);
            let rate = |t: u32| 30e3 + 15e3 * (f64::from(t) / 300.0).sin() + chance.share() * 20e3;
            let rates: Vec<f64> = (0..trace.seconds).map(rate).collect();
            let arrival = rates.into_iter().zip(0..).map(|(per_s, t)| at(t, per_s)).collect();
            Trace { arrival, partitions: 8, consumers: 8, ..trace }
        }
        "spikes" => {
            let spikes = (0..trace.seconds / 1800)
                .flat_map(|n| [at(n * 1800, 200e3), at(n * 1800 + 40, 20e3)]);
            Trace { arrival: spikes.collect(), ..trace }
        }
        "sink-slow" => Trace {
            arrival: vec![at(0, 40e3), at(3600, 15e3)],
            elasticsearch: vec![at(0, 30e3)],
            ..trace
        },
        "sink-away" => {
            Trace { elasticsearch: vec![at(0, 1e9), at(1200, 0.0), at(2400, 1e9)], ..trace }
        }
        _ => {
            let stall = Stall { partition: 1, from_s: 0, to_s: u32::MAX };
            Trace { stalls: vec![stall], ..trace }
        }
    })
}
