//! `elkfk up` as a newcomer meets it: quick to the first line, quick to stop, goes on where it was,
//! small; and the page, in a browser.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elkfk_tests::line::{TestDir, Up};
use elkfk_tests::{browser_tests, gen_logs};

const PATIENCE: Duration = Duration::from_secs(30);

/// One at a time: times and sizes that are measured beside another load are those of both.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed has said so; the next may measure all the same.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn var_log_is_on_the_page_within_ten_seconds() {
    let _alone = alone();
    let dir = TestDir::new();
    let begun = Instant::now();
    let mut up = Up::start(&dir.path(), &[]).unwrap();
    let page = elkfk_tests::line::Index::new(&up.dashboard);
    let mut first = None;
    while first.is_none() && begun.elapsed() < Duration::from_secs(10) {
        let answer = page.get("/api/v1/search?size=1").unwrap_or_default();
        first = answer["hits"][0]["source"]["message"].as_str().map(str::to_owned);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (line, after) = (first.expect("a line of /var/log within 10 s"), begun.elapsed());
    println!("first line after {after:?} (ready after {:?}): {line}", up.ready_after);
    let status = up.process.stop(Duration::from_secs(5)).unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn it_goes_on_where_it_stopped() {
    let _alone = alone();
    let dir = TestDir::new();
    let log = dir.path().join("app.log");
    fs::write(&log, "first line\n").unwrap();
    let watch = log.display().to_string();
    for (line, count) in [("first line", 1), ("second line", 2), ("third line", 3)] {
        if count > 1 {
            writeln!(OpenOptions::new().append(true).open(&log).unwrap(), "{line}").unwrap();
        }
        let mut up = Up::start(&dir.path(), &["--watch", &watch]).unwrap();
        up.index().wait_for(count, PATIENCE).unwrap();
        let begun = Instant::now();
        let status = up.process.stop(Duration::from_secs(5)).unwrap();
        assert!(status.success(), "{status}");
        println!("stopped after {:?}", begun.elapsed());
    }
}

/// Rate, lag and how long a record takes, of every hop of the line, while the demo's lines flow.
#[test]
fn every_hop_of_the_line_has_its_figures_on_the_page() {
    let _alone = alone();
    let dir = TestDir::new();
    // Nothing but the demo's lines: what /var/log holds would be a backlog.
    let watch = dir.path().join("none/*.log").display().to_string();
    let up = Up::start(&dir.path(), &["--demo", "--watch", &watch]).unwrap();
    let page = elkfk_tests::line::Index::new(&up.dashboard);
    let begun = Instant::now();
    let hops = loop {
        let answer = page.get("/api/v1/overview").unwrap_or_default();
        let hops = answer["hops"].as_array().cloned().unwrap_or_default();
        let flows = |hop: &serde_json::Value| {
            hop["rate"].as_f64().is_some_and(|rate| rate > 0.0) && hop["latency_s"].is_number()
        };
        if hops.len() == 5 && hops.iter().all(flows) {
            break hops;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{answer}");
        std::thread::sleep(Duration::from_millis(500));
    };
    let names = ["files", "shipper", "topics", "sink", "indices"];
    for ((hop, name), waiting) in
        hops.iter().zip(names).zip(["waiting_bytes", "waiting_bytes", "lag", "lag", "lag"])
    {
        println!("{name}: {} of {hop}", hop["latency_s"]);
        assert_eq!(hop["name"], name);
        assert!(hop[waiting].is_number(), "{hop}");
        assert!(hop["latency_is"].as_str().is_some_and(|what| what.len() > 20), "{hop}");
        // The demo writes 50 lines a second, which nothing holds up.
        let seconds = hop["latency_s"].as_f64().unwrap();
        assert!((0.0..10.0).contains(&seconds), "{hop}");
    }
}

#[test]
fn memory_stays_small_idle_and_under_load() {
    let _alone = alone();
    let test = "memory_stays_small_idle_and_under_load";
    let Some(text) = gen_logs(test, "nginx", 300_000, 7) else { return };
    let dir = TestDir::new();
    let log = dir.path().join("access.log");
    fs::write(&log, "").unwrap();
    let up = Up::start(&dir.path(), &["--watch", &log.display().to_string()]).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let idle = up.process.resident_bytes() >> 20;
    fs::write(&log, &text).unwrap();
    let index = up.index();
    let begun = Instant::now();
    while index.count().unwrap_or(0) < 300_000 {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?} of 300000 lines", index.count());
        std::thread::sleep(Duration::from_millis(50));
    }
    // The kernel's own mark: no peak falls between two looks.
    let peak = up.process.peak_bytes() >> 20;
    println!("RSS: {idle} MiB idle, {peak} MiB under load; 300,000 lines in {:?}", begun.elapsed());
    assert!(idle < 300, "{idle} MiB idle");
    assert!(peak < 600, "{peak} MiB under load");
    // What the load took is given back, not kept for a next one.
    let given_back = Instant::now();
    while up.process.resident_bytes() >> 20 >= 200 {
        let kept = up.process.resident_bytes() >> 20;
        assert!(given_back.elapsed() < Duration::from_secs(30), "{kept} MiB once it is idle again");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn it_stops_in_the_order_of_the_data_under_load_too() {
    let _alone = alone();
    let test = "it_stops_in_the_order_of_the_data_under_load_too";
    let Some(text) = gen_logs(test, "nginx", 300_000, 8) else { return };
    let dir = TestDir::new();
    let log = dir.path().join("access.log");
    fs::write(&log, &text).unwrap();
    let watch = log.display().to_string();
    let data = dir.path().join("data").display().to_string();
    let args = ["--data", &data, "--watch", &watch];
    let mut up = Up::start_with(&dir.path(), &args, &[("ELKFK_LOG", "elkfk=info")]).unwrap();
    up.index().wait_for_more(1, PATIENCE).unwrap();
    let indexed = up.index().count().unwrap();
    let begun = Instant::now();
    let status = up.process.stop(Duration::from_secs(5)).unwrap();
    println!("stopped after {:?} with {indexed} of 300,000 lines indexed", begun.elapsed());
    assert!(status.success(), "{status}");
    assert!(indexed < 300_000, "there was no load left to stop under");
    let said = up.process.output();
    let at = |name: &str| {
        let found = said.lines().position(|line| {
            line.contains("box stopped") && line.contains(&format!("name=\"{name}\""))
        });
        found.unwrap_or_else(|| panic!("{name} did not stop: {said}"))
    };
    let order = ["shipper", "sink", "dashboard", "store", "broker", "coordinator"];
    assert!(order.map(at).is_sorted(), "{said}");

    let mut up = Up::start(&dir.path(), &["--watch", &watch]).unwrap();
    up.index().wait_for(300_000, PATIENCE).unwrap();
    assert!(up.process.stop(Duration::from_secs(5)).unwrap().success());
}

#[test]
fn a_person_can_use_the_page() {
    let _alone = alone();
    let test = "a_person_can_use_the_page";
    let Some(tests) = browser_tests(test) else { return };
    let dir = TestDir::new();
    fs::create_dir(dir.path().join("log")).unwrap();
    let log = |name: &str| dir.path().join("log").join(name);
    fs::write(
        log("hostile.log"),
        "elkfkxss <img src=x onerror=alert(1)> </script><script>alert(2)</script>\n",
    )
    .unwrap();
    fs::write(
        log("old.log"),
        "192.0.2.1 - - [01/Mar/2024:12:00:00 +0000] \"GET /elkfkold HTTP/1.1\" 200 5 \"-\" \"curl\"\n",
    )
    .unwrap();
    // The page's test writes to this one.
    fs::write(log("written.log"), "").unwrap();
    let watch = format!("{}/**", dir.path().join("log").display());
    let up = Up::start(&dir.path(), &["--demo", "--watch", &watch]).unwrap();
    up.index().wait_for_more(200, PATIENCE).unwrap();
    let mut node = Command::new("node");
    node.arg(tests.join("page.mjs")).arg(&up.dashboard).arg(log("written.log"));
    if let Some(screenshot) = std::env::var_os("ELKFK_SCREENSHOT") {
        node.arg(screenshot);
    }
    let output = node.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(output.status.success(), "{text}");
}
