//! The runs themselves.

use std::ops::Range;

use super::*;

const STEPS: usize = 3000;

/// Seeds that have found something, run first of all: what is found stays found.
const KEPT: [(u64, &str); 1] =
    [(32668, "a promise in a segment whose place a received snapshot had taken was forgotten")];

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
    repaired: u64,
    events: u64,
    closed: u64,
    ended: u64,
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
        repaired: world.checks.repaired,
        events: world.clients.iter().map(|client| client.events).sum(),
        closed: world.checks.closed.len() as u64,
        ended: world.ended,
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
        Err(_) => 0..100,
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
fn what_was_found_once_is_not_there_again() {
    for (seed, found) in KEPT {
        assert!(std::panic::catch_unwind(|| run(seed)).is_ok(), "seed {seed} failed: {found}");
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
        all.repaired += seen.repaired;
        all.events += seen.events;
        all.closed += seen.closed;
        all.ended += seen.ended;
    }
    println!("{all:?}");
    // Or the simulation would prove nothing.
    let count = seeds().count() as u64;
    if count >= 50 {
        assert!(all.acknowledged > count * 50 && all.counted > count * 3, "{all:?}");
        assert!(all.lives > count * 5 && all.terms > count * 2, "{all:?}");
        assert!(all.events > count * 3 && all.closed * 10 > count, "{all:?}");
        assert!(all.restored > 0 && all.wiped > 0 && all.repaired > 0 && all.ended > 0, "{all:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seed = seeds().start;
    assert_eq!(run(seed), run(seed));
    assert_ne!(run(seed).trace, run(seed + 1).trace);
}

/// Three servers without faults that have done something.
fn quiet() -> World {
    let mut world = World::without_faults(7, 3);
    world.work_until(5000);
    world
}

#[test]
fn a_bit_that_flips_in_one_tree_is_noticed() {
    let mut world = quiet();
    let id = world.follower();
    world.silenced = Some(id);
    let tree = &mut world.server(id).unwrap().replica.service.machine.tree;
    let place = tree.find("/zookeeper").expect("every tree has it");
    let change = crate::tree::Change { zxid: tree.node(place).mzxid, time_ms: 1 };
    tree.set_data(change, place, Some(b"\x10"), &mut Vec::new());
    for _ in 0..60 {
        world.work_until(world.now_ms + 500);
        if let Some(failure) = &world.failure {
            assert!(failure.contains("the tree differs from that of server"), "{failure}");
            return;
        }
    }
    panic!("server {id} goes on with another tree");
}
