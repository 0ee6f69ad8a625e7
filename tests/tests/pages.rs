//! Every view of the page, in a browser, against a server of made-up figures: what takes thousands of
//! partitions, hostile names or a missing endpoint to see. The page on the real thing is in `up.rs`.

use std::fs;
use std::process::Command;

use elkfk_tests::browser_tests;

#[test]
fn every_view_works_in_a_browser() {
    let test = "every_view_works_in_a_browser";
    let Some(tests) = browser_tests(test) else { return };
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
