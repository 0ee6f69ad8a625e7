//! The runs themselves.

use std::ops::Range;

use super::*;

const STEPS: usize = 3000;

/// What a run has seen, to be sure that it has seen enough.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    trace: u32,
    acknowledged: u64,
    counted: u64,
    lives: u64,
    terms: u64,
    restored: u64,
    wiped: u64,
    events: u64,
    closed: u64,
}

fn run(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    Seen {
        trace: world.trace.finalize(),
        acknowledged: world.clients.iter().map(|client| client.all_acknowledged).sum(),
        counted: world.wins.len() as u64,
        lives: world.lives,
        terms: world.checks.terms(),
        restored: world.checks.restored,
        wiped: world.checks.wiped,
        events: world.clients.iter().map(|client| client.events).sum(),
        closed: world.checks.closed.len() as u64,
    }
}

fn parse_seeds(text: &str) -> Option<Range<u64>> {
    let seeds = match text.split_once("..") {
        Some((from, to)) => from.parse().ok()?..to.parse().ok()?,
        None => 0..text.parse().ok()?,
    };
    (!seeds.is_empty()).then_some(seeds)
}

fn seeds() -> Range<u64> {
    match std::env::var("ELKFK_SIMULATION_SEEDS") {
        Err(_) => 0..60,
        Ok(text) => parse_seeds(&text).unwrap_or_else(|| {
            panic!("ELKFK_SIMULATION_SEEDS={text}: give a number of seeds, or FROM..TO")
        }),
    }
}

#[test]
fn seeds_are_a_number_or_a_range() {
    assert_eq!(parse_seeds("10000"), Some(0..10000));
    assert_eq!(parse_seeds("7..9"), Some(7..9));
    for text in ["", "0", "9..7", "7..", "many"] {
        assert_eq!(parse_seeds(text), None, "{text}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let mut all = Seen::default();
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| run(seed));
        let Ok(seen) = result else { panic!("seed {seed} failed") };
        all.acknowledged += seen.acknowledged;
        all.counted += seen.counted;
        all.lives += seen.lives;
        all.terms += seen.terms;
        all.restored += seen.restored;
        all.wiped += seen.wiped;
        all.events += seen.events;
        all.closed += seen.closed;
    }
    println!("{all:?}");
    // Or the simulation would prove nothing.
    let count = seeds().count() as u64;
    assert!(all.acknowledged > count * 50 && all.counted > count * 3, "{all:?}");
    assert!(all.lives > count * 5 && all.terms > count * 2, "{all:?}");
    assert!(all.events > count * 3 && all.closed * 10 > count, "{all:?}");
    if count >= 50 {
        assert!(all.restored > 0 && all.wiped > 0, "{all:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seed = seeds().start;
    assert_eq!(run(seed), run(seed));
    assert_ne!(run(seed).trace, run(seed + 1).trace);
}
