//! Every view of the page, in a browser, against a server of made-up figures: what takes thousands of
//! partitions, hostile names or a missing endpoint to see. The page on the real thing is in `up.rs`.

use std::fs;
use std::process::Command;

use elkfk_tests::{peers, workspace};

#[test]
fn every_view_works_in_a_browser() {
    let test = "every_view_works_in_a_browser";
    let tests = workspace().join("dashboard/tests");
    let has_browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .iter()
        .any(|path| fs::exists(path).unwrap_or(false));
    if !has_browser || !tests.join("node_modules/playwright-core").exists() {
        peers::skip(test, "chromium or playwright-core");
        return;
    }
    let mut node = Command::new("node");
    node.arg(tests.join("pages.mjs"));
    if let Some(folder) = std::env::var_os("ELKFK_SCREENSHOTS") {
        fs::create_dir_all(&folder).unwrap();
        node.arg(folder);
    }
    let output = node.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(output.status.success(), "{text}");
}
