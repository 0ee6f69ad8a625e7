//! The head of a recorded section: what ran, of which commit, on what, beside what.

use std::process::Command;

use anyhow::Result;
use elkfk_tests::process::elkfk;
use elkfk_tests::workspace;

pub(crate) fn print(scenarios: &[String]) -> Result<()> {
    let settings: Vec<String> = ["ROUNDS", "LINES", "SECONDS"]
        .iter()
        .filter_map(|name| {
            let name = format!("ELKFK_BENCH_{name}");
            std::env::var(&name).ok().map(|value| format!("{name}={value} "))
        })
        .collect();
    let command = format!("{}bench/run {}", settings.concat(), scenarios.join(" "));
    let date = said("date", &["-u", "+%Y-%m-%d"]);
    println!("## {date}\n");
    println!("- command: `{}`", command.trim());
    let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    println!(
        "- commit: {}{}",
        said("git", &["rev-parse", "--short=12", "HEAD"]),
        if changed { ", with changes not committed" } else { "" }
    );
    println!("- machine: {}", machine());
    println!("- load before the start: {}", load());
    println!("- versions: {}", versions());
    println!(
        "- heaps, those of the ancestors' own start scripts: Kafka 1 GB, ZooKeeper 1000 MB, Kafka's clients 512 MB; Elasticsearch 1 GB"
    );
    println!(
        "- figures: median (least..greatest) of {} rounds, each with fresh servers; who goes first changes from round to round; “times better” above 1 is elkfk's win\n",
        crate::rounds()
    );
    Ok(())
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name))
        .unwrap_or("CPU");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        })
        .map_or("?".into(), |kib| format!("{:.0}", kib / f64::from(1 << 20)));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let temporary = std::env::temp_dir().display().to_string();
    // Where it is a file system in memory, a sync costs nothing: to be seen in the record.
    let disk = said("stat", &["-f", "-c", "%T", &temporary]);
    format!("{cores} × {model}, {gib} GiB, Linux {}, data on {disk}", said("uname", &["-r"]))
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_owned()
}

fn versions() -> String {
    let ours = elkfk().display().to_string();
    let first = |text: String| text.lines().next().unwrap_or("").trim().to_owned();
    let found = [
        first(said(&ours, &["--version"])),
        first(said("rustc", &["--version"])),
        "Kafka 3.4.1, ZooKeeper 3.5.7, Elasticsearch 8.19.8".to_owned(),
        first(said("java", &["--version"])),
        said("kcat", &["-V"])
            .lines()
            .find_map(|line| line.strip_prefix("Version ")?.split(' ').next())
            .map(|version| format!("kcat {version}"))
            .unwrap_or_default(),
        first(said("/usr/sbin/rsyslogd", &["-v"]))
            .split(" (")
            .next()
            .unwrap_or("")
            .replace("  ", " "),
        first(said("go", &["version"])),
    ];
    found.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
}

/// What a program prints; nothing where it is absent.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(workspace()).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
