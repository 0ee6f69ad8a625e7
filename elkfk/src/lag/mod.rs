//! `elkfk lag`: how far the groups of a cluster are behind, ours or a real Kafka's.

mod table;

use std::time::Duration;

use anyhow::{Result, anyhow};
use elkfk_broker_client::lag::{GroupLag, Meter, Snapshot, Tracker};
use elkfk_broker_client::{Client, Config};

use crate::args::Lag;
use crate::say::{asideln, or_end as say};
use crate::signals;

pub(crate) use table::duration;

/// A cluster that does not answer for this long is told as an error.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rates need two looks, this far apart.
const BETWEEN: Duration = Duration::from_secs(1);

/// False where a group or topic that was asked for is not there.
pub(crate) async fn run(args: Lag) -> Result<bool> {
    let config = Config { timeout: TIMEOUT, ..Config::to(&args.bootstrap_server) };
    let mut meter = Meter::new(Client::new(config));
    let mut tracker = Tracker::default();
    let stopped = signals::asked_to_stop();
    tokio::select! {
        () = stopped => Ok(true),
        done = measure(&args, &mut meter, &mut tracker) => done,
    }
}

async fn measure(args: &Lag, meter: &mut Meter, tracker: &mut Tracker) -> Result<bool> {
    let unreachable =
        |error: elkfk_broker_client::ClientError| anyhow!("{}: {error:#}", args.bootstrap_server);
    tracker.step(meter.sample().await.map_err(unreachable)?);
    let between = args.watch.map_or(BETWEEN, Duration::from_secs_f64);
    loop {
        tokio::time::sleep(between).await;
        match meter.sample().await {
            Ok(sample) => {
                let mut snapshot = tracker.step(sample);
                let missing = keep_asked(&mut snapshot, args);
                // An empty table would say that there is none at all.
                if args.json || missing.is_empty() || !snapshot.groups.is_empty() {
                    print(&snapshot, args);
                }
                if args.watch.is_none() {
                    missing.iter().for_each(|text| asideln!("{text}"));
                    return Ok(missing.is_empty());
                }
            }
            // Who watches wants to see it come back.
            Err(error) if args.watch.is_some() => asideln!("{}", unreachable(error)),
            Err(error) => return Err(unreachable(error)),
        }
    }
}

fn print(snapshot: &Snapshot, args: &Lag) {
    if args.json {
        let json = serde_json::to_string(snapshot).expect("a snapshot has string keys only");
        return say(&format!("{json}\n"));
    }
    let at = jiff::Timestamp::from_millisecond(snapshot.now_ms).unwrap_or_default();
    let head = match args.watch {
        Some(_) => format!("{:.0}\n", at),
        None => String::new(),
    };
    say(&format!("{head}{}", table::of(snapshot, args.partitions)));
    if args.watch.is_some() {
        say("\n");
    }
}

/// Leaves what was asked for, and says what of it is not there.
fn keep_asked(snapshot: &mut Snapshot, args: &Lag) -> Vec<String> {
    let mut missing = Vec::new();
    let known: Vec<String> = snapshot.groups.iter().map(|group| group.group.clone()).collect();
    for asked in args.group.iter().filter(|asked| !known.contains(asked)) {
        let hint = elkfk_base::mistakes::did_you_mean(asked, known.iter().map(String::as_str));
        missing.push(format!("no group {asked:?} at {}{hint}", args.bootstrap_server));
    }
    let is_asked = |asked: &[String], name: &String| asked.is_empty() || asked.contains(name);
    snapshot.groups.retain(|group| is_asked(&args.group, &group.group));
    let reads = |group: &GroupLag, topic: &str| group.topics.iter().any(|one| one.topic == topic);
    for asked in &args.topic {
        if !snapshot.groups.iter().any(|group| reads(group, asked)) {
            missing.push(format!("no group reads topic {asked:?} at {}", args.bootstrap_server));
        }
    }
    if !args.topic.is_empty() {
        for group in &mut snapshot.groups {
            group.topics.retain(|topic| args.topic.contains(&topic.topic));
        }
        snapshot.groups.retain(|group| !group.topics.is_empty());
    }
    missing
}
