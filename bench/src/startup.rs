//! From the start of a process to its first answer, and its memory when idle.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use elkfk_tests::line::Up;
use elkfk_tests::process::Process;
use elkfk_tests::{free_port, peers};

use crate::boxes::{self, Answer, mib};
use crate::table::{Better, Side, Table};

/// At rest for this long before its memory is read.
const REST: Duration = Duration::from_secs(2);

fn add(table: &mut Table, side: Side, name: &str, seconds: f64, processes: &[&Process]) {
    std::thread::sleep(REST);
    let (mut resident, mut peak) = (0, 0);
    for process in processes {
        let usage = process.family();
        resident += usage.resident_bytes;
        peak += usage.peak_bytes;
    }
    table.add(side, &format!("{name}: to the first answer"), "s", Better::Less, seconds);
    table.add(side, &format!("{name}: memory, idle"), "MiB", Better::Less, mib(resident));
    table.add(side, &format!("{name}: memory, peak"), "MiB", Better::Less, mib(peak));
}

fn coordinator(table: &mut Table, side: Side, dir: &Path) -> Result<()> {
    const NAME: &str = "coordinator (ZooKeeper 3.5.7), `srvr`";
    let begun = Instant::now();
    if side == Side::Ours {
        let ours = boxes::coordinator(dir)?;
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &[&ours.process]);
    } else {
        let mut server = peers::zookeeper_starting(dir, free_port(), "")?;
        Answer::Srvr.wait(&mut server.process, server.addr)?;
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &[&server.process]);
    }
    Ok(())
}

fn broker(table: &mut Table, side: Side, dir: &Path, zookeeper: &str) -> Result<()> {
    const NAME: &str = "broker (Kafka 3.4.1), Metadata";
    let begun = Instant::now();
    if side == Side::Ours {
        let ours = boxes::broker(dir, &format!("{zookeeper}/elkfk"), &[])?;
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &[&ours.process]);
    } else {
        let chroot = format!("{zookeeper}/kafka");
        let mut server = peers::kafka_starting(dir, free_port(), &chroot, &[])?;
        Answer::Metadata.wait(&mut server.process, server.addr)?;
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &[&server.process]);
    }
    Ok(())
}

fn store(table: &mut Table, side: Side, dir: &Path) -> Result<()> {
    const NAME: &str = "store (Elasticsearch 8.19), `_cluster/health`";
    let begun = Instant::now();
    if side == Side::Ours {
        let ours = boxes::store(dir)?;
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &[&ours.process]);
    } else {
        let mut server = peers::elasticsearch_starting(dir, free_port(), &[])?;
        Answer::Health.wait(&mut server.process, server.addr)?;
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &[&server.process]);
    }
    Ok(())
}

/// `elkfk up` until coordinator, broker, store and page answer; the ancestors, started at once, until theirs do.
fn up(table: &mut Table, side: Side, dir: &Path) -> Result<()> {
    const NAME: &str = "`elkfk up` (ZooKeeper, Kafka, Elasticsearch at once), all answers";
    std::fs::create_dir_all(dir)?;
    let begun = Instant::now();
    if side == Side::Ours {
        // Nothing to read: the lines of this machine are no part of the comparison.
        let nothing = dir.join("nothing").display().to_string();
        let mut up = Up::start(dir, &["--watch", &nothing])?;
        let at = |text: &str| text.trim_start_matches("http://").parse::<SocketAddr>();
        for (answer, addr) in [
            (Answer::Srvr, at(&up.coordinator)?),
            (Answer::Metadata, at(&up.bootstrap)?),
            (Answer::Health, at(&up.elasticsearch)?),
            (Answer::Page, at(&up.dashboard)?),
        ] {
            answer.wait(&mut up.process, addr)?;
        }
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &[&up.process]);
    } else {
        let mut zookeeper = peers::zookeeper_starting(&dir.join("zookeeper"), free_port(), "")?;
        let mut elasticsearch =
            peers::elasticsearch_starting(&dir.join("elasticsearch"), free_port(), &[])?;
        let at = zookeeper.addr.to_string();
        let mut kafka = peers::kafka_starting(&dir.join("kafka"), free_port(), &at, &[])?;
        Answer::Srvr.wait(&mut zookeeper.process, zookeeper.addr)?;
        Answer::Metadata.wait(&mut kafka.process, kafka.addr)?;
        Answer::Health.wait(&mut elasticsearch.process, elasticsearch.addr)?;
        let all = [&zookeeper.process, &kafka.process, &elasticsearch.process];
        add(table, side, NAME, begun.elapsed().as_secs_f64(), &all);
    }
    Ok(())
}

pub(crate) fn run() -> Result<()> {
    let mut table = Table::against("the ancestor");
    for round in 0..crate::rounds() {
        let dir = tempfile::tempdir()?;
        let zookeeper = peers::zookeeper(&dir.path().join("beneath"), "")?;
        let beneath = zookeeper.addr.to_string();
        for side in Side::order(round) {
            let at = |name: &str| dir.path().join(format!("{name}-{side:?}"));
            coordinator(&mut table, side, &at("coordinator"))?;
            broker(&mut table, side, &at("broker"), &beneath)?;
            store(&mut table, side, &at("store"))?;
        }
        drop(zookeeper);
        for side in Side::order(round) {
            up(&mut table, side, &dir.path().join(format!("up-{side:?}")))?;
        }
    }
    println!(
        "Fresh data directories; each start ends at the first right answer to the same request.\n"
    );
    table.print();
    Ok(())
}
