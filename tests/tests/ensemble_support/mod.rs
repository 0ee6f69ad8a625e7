//! What the tests of an ensemble share: faults drawn from a seed, and a load on Kafka that is accounted for.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

pub(crate) mod chaos;
pub(crate) mod records;
pub(crate) mod suite;

use std::time::Duration;

use elkfk_tests::ensemble::{Ensemble, Kind};
use elkfk_tests::peers::{self, Peer};

/// Whether `test` can run on such an ensemble; if not it is reported as skipped.
pub(crate) fn have(test: &str, kind: Kind, more: &[Peer]) -> bool {
    let mut needed = more.to_vec();
    if kind == Kind::ZooKeeper {
        needed.push(Peer::ZooKeeper);
    }
    peers::have(test, &needed)
}

/// Seconds of faults: `ELKFK_CHAOS_SECONDS`, or a share that CI has time for.
pub(crate) fn chaos_time(default: u64) -> Duration {
    let asked = std::env::var("ELKFK_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(default))
}

/// `ELKFK_SEED`, or one of chance; printed, so that a failure names it.
pub(crate) fn seed(test: &str) -> u64 {
    let asked = std::env::var("ELKFK_SEED").ok().and_then(|text| text.parse().ok());
    let seed = asked.unwrap_or_else(|| rand::random::<u32>().into());
    eprintln!("{test}: ELKFK_SEED={seed}");
    seed
}

/// Every server serves, and one of them leads.
pub(crate) fn settle(ensemble: &mut Ensemble, limit: Duration) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let modes: Vec<String> = (0..ensemble.len()).map(|at| ensemble.mode(at)).collect();
        let leaders = modes.iter().filter(|mode| *mode == "leader").count();
        if leaders == 1 && modes.iter().all(|mode| !mode.is_empty()) {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < limit,
            "the ensemble is not whole {limit:?} after the last fault ended: {modes:?}\n{}",
            ensemble.tails()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
