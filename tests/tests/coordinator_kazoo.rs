//! kazoo, the Python client of ZooKeeper, on our coordinator.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::path::PathBuf;
use std::process::Command;

use coordinator_process::Coordinator;
use elkfk_tests::peers;

/// A Python that has kazoo: `ELKFK_PYTHON_KAZOO`, or an environment of our own beside the peers.
fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("ELKFK_PYTHON_KAZOO") {
        return Some(python.into());
    }
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let directory = std::env::var_os("ELKFK_PEERS")
        .map_or_else(|| home.join(".cache/elkfk-peers"), PathBuf::from)
        .join("kazoo");
    let python = directory.join("bin/python");
    let works = || {
        let import = Command::new(&python).args(["-c", "import kazoo"]).status();
        import.is_ok_and(|status| status.success())
    };
    if !works() {
        Command::new("python3").args(["-m", "venv"]).arg(&directory).status().ok()?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "kazoo==2.11.0"]);
        pip.status().ok()?;
    }
    works().then_some(python)
}

#[test]
fn client_kazoo_server_ours() {
    let Some(python) = python() else {
        return peers::skip("client_kazoo_server_ours", "kazoo");
    };
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), "tickTime=1000").unwrap();
    let output = Command::new(python)
        .arg(elkfk_tests::workspace().join("tests/tests/coordinator_kazoo.py"))
        .arg(coordinator.addr.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.ends_with("done\n"), "{text}\n{errors}");
}
