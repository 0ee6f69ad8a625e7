//! Faults for an ensemble: each begins, lasts a while, ends, and then the ensemble must be whole again by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use elkfk_tests::ensemble::Ensemble;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// How soon the ensemble must be whole once nothing is wrong any more.
const HEALING_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9`.
    Kill,
    KillLeader,
    /// All at once, as by a power cut.
    KillAll,
    /// SIGTERM to one after the other, each back before the next.
    Restart,
    /// SIGSTOP: connections stay open and nothing answers.
    Pause,
    PauseLeader,
    /// From the other servers; its clients still reach it.
    CutFromServers,
    CutLeaderFromServers,
    /// From clients too.
    CutOff,
    /// What it sends to one other server is lost; the way back works.
    CutOneWay,
}

/// Those that need nothing but processes.
pub(crate) const PROCESS_FAULTS: [Fault; 6] = [
    Fault::Kill,
    Fault::KillLeader,
    Fault::KillAll,
    Fault::Restart,
    Fault::Pause,
    Fault::PauseLeader,
];

/// Those of processes, and those of links for servers in namespaces.
pub(crate) const ALL_FAULTS: [Fault; 10] = [
    Fault::Kill,
    Fault::KillLeader,
    Fault::KillAll,
    Fault::Restart,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::CutFromServers,
    Fault::CutLeaderFromServers,
    Fault::CutOff,
    Fault::CutOneWay,
];

/// Fault after fault from `faults` for `time`; `longest` is how long one lasts at most. Returns what was done.
pub(crate) fn run(
    ensemble: &mut Ensemble,
    random: &mut StdRng,
    faults: &[Fault],
    time: Duration,
    longest: Duration,
) -> Result<Vec<String>> {
    let begun = Instant::now();
    let mut done = Vec::new();
    // Each kind once before any comes again: a short run misses as few as can be.
    let mut left = Vec::new();
    while begun.elapsed() < time {
        if left.is_empty() {
            left = faults.to_vec();
        }
        let fault = *left.choose(random).context("faults to choose from")?;
        left.retain(|other| *other != fault);
        let at = begun.elapsed();
        let told = one(ensemble, random, fault, longest)
            .with_context(|| format!("after {done:?}, {fault:?} at {at:?}"))?;
        eprintln!("{:>6.1} s: {told}", at.as_secs_f64());
        done.push(told);
        std::thread::sleep(Duration::from_millis(random.random_range(500..3000)));
    }
    Ok(done)
}

fn one(
    ensemble: &mut Ensemble,
    random: &mut StdRng,
    fault: Fault,
    longest: Duration,
) -> Result<String> {
    let last = longest.as_millis() as u64;
    let hold = Duration::from_millis(random.random_range(last / 8..=last));
    let victim = match fault {
        Fault::KillLeader | Fault::PauseLeader | Fault::CutLeaderFromServers => {
            ensemble.wait_for_leader(HEALING_LIMIT)?
        }
        _ => random.random_range(0..ensemble.len()),
    };
    let others: Vec<usize> = (0..ensemble.len()).filter(|other| *other != victim).collect();
    match fault {
        Fault::Kill | Fault::KillLeader => {
            ensemble.kill(victim);
            std::thread::sleep(hold);
            ensemble.start_again(victim)?;
        }
        Fault::KillAll => {
            for at in 0..ensemble.len() {
                ensemble.kill(at);
            }
            std::thread::sleep(hold / 4);
            for at in 0..ensemble.len() {
                ensemble.start_again(at)?;
            }
        }
        Fault::Restart => {
            for at in 0..ensemble.len() {
                ensemble.stop(at)?;
                ensemble.start_again(at)?;
                super::settle(ensemble, HEALING_LIMIT)?;
            }
        }
        Fault::Pause | Fault::PauseLeader => {
            ensemble.pause(victim)?;
            std::thread::sleep(hold);
            ensemble.resume(victim)?;
        }
        Fault::CutFromServers | Fault::CutLeaderFromServers => {
            ensemble.cut_off_from_servers(victim)?;
            std::thread::sleep(hold);
            ensemble.heal()?;
        }
        Fault::CutOff => {
            ensemble.cut_off(victim)?;
            std::thread::sleep(hold);
            ensemble.heal()?;
        }
        Fault::CutOneWay => {
            ensemble.cut(victim, *others.choose(random).context("other servers")?)?;
            std::thread::sleep(hold);
            ensemble.heal()?;
        }
    }
    let ended = Instant::now();
    super::settle(ensemble, HEALING_LIMIT)?;
    Ok(format!(
        "{fault:?} of server {} for {:.1} s, whole after {:.1} s",
        victim + 1,
        hold.as_secs_f64(),
        ended.elapsed().as_secs_f64()
    ))
}
