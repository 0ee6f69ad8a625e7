//! `elkfk up` as a newcomer meets it: quick to the first line, quick to stop, goes on where it was,
//! small; and the page, in a browser.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use elkfk_tests::line::{TestDir, Up};
use elkfk_tests::{gen_logs, peers, workspace};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn var_log_is_on_the_page_within_ten_seconds() {
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

#[test]
fn memory_stays_small_idle_and_under_load() {
    let test = "memory_stays_small_idle_and_under_load";
    let Some(text) = gen_logs(test, "nginx", 300_000, 7) else { return };
    let dir = TestDir::new();
    let log = dir.path().join("access.log");
    fs::write(&log, "").unwrap();
    let up = Up::start(&dir.path(), &["--watch", &log.display().to_string()]).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let idle = up.process.resident_bytes() >> 20;
    fs::write(&log, &text).unwrap();
    let (index, mut peak) = (up.index(), 0);
    let begun = Instant::now();
    while index.count().unwrap_or(0) < 300_000 {
        peak = peak.max(up.process.resident_bytes() >> 20);
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?} of 300000 lines", index.count());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("RSS: {idle} MiB idle, {peak} MiB under load; 300,000 lines in {:?}", begun.elapsed());
    assert!(idle < 300, "{idle} MiB idle");
    assert!(peak < 600, "{peak} MiB under load");
}

#[test]
fn a_person_can_use_the_page() {
    let test = "a_person_can_use_the_page";
    let tests = workspace().join("dashboard/tests");
    let has_browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .iter()
        .any(|path| fs::exists(path).unwrap_or(false));
    if !has_browser || !tests.join("node_modules/playwright-core").exists() {
        peers::skip(test, "chromium or playwright-core");
        return;
    }
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
