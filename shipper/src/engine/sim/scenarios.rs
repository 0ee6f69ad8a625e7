//! What the simulation meets by chance and rarely, step by step.

use super::*;

/// Runs `scenario` by both kinds of patterns and holds what arrived against what was written.
fn check(scenario: impl Fn(&mut Sim)) {
    for glob in ["/log/app.log", "/log/app.log*"] {
        let mut sim = Sim::new(1);
        sim.has_banner = false;
        sim.config.inputs[0].paths = vec![glob.into()];
        sim.start();
        scenario(&mut sim);
        sim.start();
        sim.settle();
        sim.check();
    }
}

impl Sim {
    fn write_lines(&mut self, count: usize) {
        for _ in 0..count {
            let line = format!("line {}", self.lines.len());
            self.disk.lock().append(self.writer, format!("{line}\n").as_bytes());
            self.lines.push(line);
        }
    }

    fn arrived(&self) -> usize {
        self.cluster.lock().expect("no panic").arrived.len()
    }
}

#[test]
fn a_short_file_that_comes_back_goes_on_where_it_was_left() {
    check(|sim| {
        sim.write_lines(3);
        sim.settle();
        let number = sim.disk.lock().names.remove("app.log").expect("the log");
        sim.disk.lock().has_moved = true;
        sim.settle();
        sim.disk.lock().names.insert("app.log".into(), number);
        sim.disk.lock().has_moved = true;
        sim.write_lines(3);
    });
}

#[test]
fn entries_of_an_input_that_is_not_configured_outlive_a_compaction() {
    check(|sim| {
        sim.write_lines(3);
        sim.settle();
        sim.stop();
        let input = sim.config.inputs[0].clone();
        sim.config.inputs[0].id = "another".into();
        sim.config.inputs[0].paths = vec!["/log/another.log".into()];
        sim.start();
        sim.settle();
        sim.engine.as_mut().expect("started").compact();
        sim.stop();
        sim.config.inputs[0] = input;
    });
}

#[test]
fn an_input_without_id_goes_on_when_its_paths_change() {
    check(|sim| {
        sim.write_lines(3);
        sim.kill();
        sim.config.inputs[0].id = "log-0".into();
        sim.journal = VirtualJournal::default();
        sim.cluster = Arc::new(Mutex::new(Cluster { is_up: true, ..Cluster::default() }));
        sim.start();
        sim.settle();
        sim.stop();
        sim.config.inputs[0].id = "log:/log/app.log,/log/other.log".into();
    });
}

#[test]
fn a_cut_is_sent_only_once_it_is_durable() {
    check(|sim| {
        sim.write_lines(3);
        sim.settle();
        let before = sim.arrived();
        sim.disk.lock().append(sim.writer, b"line of which the end is missing");
        sim.lines.push("line of which the end is missing".into());
        sim.disk.lock().rename("app.log", "app.log.1");
        sim.run(20);
        sim.journal.0.lock().expect("no panic").is_full = true;
        for _ in 0..40 {
            sim.pass(Duration::from_millis(500));
            sim.run(5);
        }
        assert_eq!(sim.arrived(), before);
    });
}

#[test]
fn a_file_waits_for_its_partition_while_brokers_tell_of_fewer() {
    let mut sim = Sim::new(1);
    sim.has_banner = false;
    sim.config.inputs[0].paths = vec!["/log/*.log".into()];
    sim.start();
    sim.write_lines(3);
    let other = sim.disk.lock().create("other.log", Vec::new());
    let write_both = |sim: &mut Sim, line: &str| {
        sim.write_lines(1);
        sim.disk.lock().append(other, format!("{line}\n").as_bytes());
        sim.lines.push(line.into());
    };
    write_both(&mut sim, "first");
    sim.settle();
    let tell = |sim: &Sim, count| sim.cluster.lock().expect("no panic").partitions = Some(count);
    let used = |sim: &Sim| -> BTreeSet<(i32, [u8; 12])> {
        let cluster = sim.cluster.lock().expect("no panic");
        cluster.arrived.iter().map(|(partition, id, ..)| (*partition, id.generation.0)).collect()
    };
    let before = used(&sim);
    assert_eq!(before.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [0, 1]);
    for is_killed in [false, true] {
        tell(&sim, 1);
        if is_killed {
            sim.kill();
            sim.start();
        }
        let arrived = sim.arrived();
        write_both(&mut sim, if is_killed { "after a start" } else { "second" });
        for _ in 0..40 {
            sim.pass(Duration::from_millis(500));
            sim.run(5);
        }
        // Who has partition 0 goes on.
        assert_eq!(sim.arrived(), arrived + 1);
        tell(&sim, 3);
        sim.settle();
        assert_eq!(used(&sim), before, "a file moved");
    }
    // Made anew with one partition.
    tell(&sim, 1);
    write_both(&mut sim, "last");
    sim.settle();
    sim.check();
    assert_eq!(used(&sim).len(), 3);
}

#[test]
fn a_hole_in_the_middle_makes_no_binary_file() {
    check(|sim| {
        sim.write_lines(3);
        sim.disk.lock().append(sim.writer, &[0; 1000]);
        sim.write_lines(3);
    });
}

#[test]
fn what_looks_random_is_no_text() {
    use rand::{RngCore, SeedableRng};
    for seed in 0..20 {
        let mut bytes = vec![0; 5000];
        rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        check(|sim| {
            sim.disk.lock().create("app.log.1", bytes.clone());
            sim.write_lines(3);
        });
    }
}

#[test]
fn excluded_files_are_not_read() {
    check(|sim| {
        sim.kill();
        sim.config.inputs[0].exclude_files = vec![regex::Regex::new(r"\.1$").expect("a pattern")];
        sim.disk.lock().create("app.log.1", b"not to be read\n".to_vec());
        sim.start();
        sim.write_lines(3);
    });
}

#[test]
fn a_compressed_file_that_was_read_is_not_opened_again() {
    let mut sim = Sim::new(1);
    sim.has_banner = false;
    sim.config.inputs[0].paths = vec!["/log/app.log*".into()];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"line 0\nline 1\n").expect("into memory");
    let number = sim.disk.lock().create("app.log.2.gz", encoder.finish().expect("into memory"));
    sim.lines.extend(["line 0".into(), "line 1".into()]);
    sim.start();
    sim.settle();
    sim.stop();
    sim.disk.lock().reads.clear();
    sim.start();
    sim.settle();
    assert_eq!(sim.disk.lock().reads.get(&number), None);
    sim.check();
}

#[test]
fn an_event_too_large_for_the_broker_is_cut_until_it_fits() {
    let mut sim = Sim::new(1);
    sim.cluster.lock().expect("no panic").message_bytes = Some(3000);
    sim.disk.lock().append(sim.writer, format!("{}\nshort\n", "x".repeat(20_000)).as_bytes());
    sim.start();
    sim.settle();
    let cluster = sim.cluster.lock().expect("no panic");
    let lines: BTreeSet<_> = cluster.arrived.iter().map(|(.., line)| line.as_str()).collect();
    let lines: Vec<_> = lines.into_iter().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "short");
    assert!(lines[1].len() > 1000 && lines[1].bytes().all(|byte| byte == b'x'), "{lines:?}");
}

#[test]
fn short_lines_count_with_what_they_cost() {
    let mut sim = Sim::new(1);
    sim.disk.lock().append(sim.writer, &b"x\n".repeat(1000));
    sim.start();
    let now = sim.now();
    let engine = sim.engine.as_mut().expect("started");
    engine.turn(now);
    assert!(engine.in_flight_bytes() >= 1000 * crate::engine::EVENT_OVERHEAD_BYTES);
    engine.sender.pump(&mut sim.rng, true);
    while engine.in_flight_bytes() > 0 {
        engine.sender.pump(&mut sim.rng, true);
        engine.turn(now);
    }
}

#[test]
fn an_event_that_is_read_again_keeps_its_day() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.started_ms = MIDNIGHT_MS - 60_000;
        for _ in 0..20 {
            sim.start();
            sim.write();
            sim.finish_line();
            sim.run(5);
            sim.kill();
        }
        sim.pass(Duration::from_secs(120));
        sim.start();
        sim.settle();
        sim.check();
    }
}
