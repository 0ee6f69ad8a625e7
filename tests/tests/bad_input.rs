//! Bad input: each a clear message, and no harm.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use elkfk_tests::line::{TestDir, Up};
use elkfk_tests::process::elkfk;

const PATIENCE: Duration = Duration::from_secs(30);

/// What `elkfk ARGS` says and how it ends; it must end by itself.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(elkfk())
        .args(args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("elkfk {args:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (
        status.code(),
        String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr),
    )
}

/// `elkfk up` on free ports with its data in `data`.
fn up_on(data: &Path) -> Vec<&str> {
    let mut args = vec!["up", "--data", data.to_str().unwrap()];
    for port in ["--coordinator-port", "--broker-port", "--store-port", "--dashboard-port"] {
        args.extend([port, "0"]);
    }
    args
}

/// `elkfk check` of a file with this text must fail and say all of `wanted`.
fn check(name: &str, text: &str, wanted: &[&str]) {
    let dir = TestDir::new();
    let file = dir.path().join(name);
    fs::write(&file, text).unwrap();
    let (code, said) = run(&["check", file.to_str().unwrap()]);
    assert_ne!(code, Some(0), "{name} was accepted: {said}");
    for wanted in wanted {
        assert!(said.contains(wanted), "{name}: {wanted:?} is not in: {said}");
    }
}

#[test]
fn unknown_keys_are_named_with_their_line_and_the_nearest_known() {
    check(
        "zoo.cfg",
        "tickTime=2000\ndataDir=/tmp/x\nclientPrt=2181\n",
        &["zoo.cfg:3", "clientPrt", "clientPort"],
    );
    check(
        "server.properties",
        "broker.id=0\nlog.dir5=/tmp/x\nzookeeper.connect=h:1\n",
        &["server.properties:2", "log.dir5", "log.dir"],
    );
    check(
        "filebeat.yml",
        "filebeat.inputs:\n  - type: filestream\n    id: a\n    path: [/var/log/x]\noutput.kafka:\n  hosts: [\"h:1\"]\n  topic: t\n",
        &["filebeat.yml:4", "path", "paths"],
    );
    check(
        "pipeline.conf",
        "input { kafka { topics => [\"logs\"] } }\nfilter {\n  grokk { match => { \"message\" => \"%{WORD:a}\" } }\n}\noutput { elasticsearch { } }\n",
        &["pipeline.conf:3:3", "grokk", "\"grok\""],
    );
}

#[test]
fn a_grok_pattern_that_does_not_exist_is_named_with_its_place() {
    check(
        "pipeline.conf",
        "input { kafka { topics => [\"logs\"] } }\nfilter {\n  grok { match => { \"message\" => \"%{COMBINEDAPACHELOGG}\" } }\n}\noutput { elasticsearch { } }\n",
        &["pipeline.conf:3:", "COMBINEDAPACHELOGG", "COMBINEDAPACHELOG"],
    );
}

#[test]
fn several_mistakes_are_named_at_once() {
    check(
        "server.properties",
        "broker.id=zero\nlog.segment.bytes=-5\n",
        &["server.properties:1", "server.properties:2"],
    );
}

#[test]
fn a_port_in_use_is_named_with_its_remedy() {
    let dir = TestDir::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let data = dir.path().join("data");
    for flag in ["--coordinator-port", "--broker-port", "--store-port", "--dashboard-port"] {
        let mut args = vec!["up", "--data", data.to_str().unwrap()];
        for each in ["--coordinator-port", "--broker-port", "--store-port", "--dashboard-port"] {
            args.extend([each, if each == flag { port.as_str() } else { "0" }]);
        }
        let (code, said) = run(&args);
        assert_eq!(code, Some(2), "{flag}: {said}");
        assert!(
            said.contains(&format!("127.0.0.1:{port}"))
                && said.contains("in use")
                && said.contains(flag),
            "{flag}: {said}"
        );
    }
}

#[test]
fn a_data_directory_of_a_newer_format_is_refused() {
    let dir = TestDir::new();
    let data = dir.path().join("data");
    Up::start(&dir.path(), &[]).unwrap().process.stop(Duration::from_secs(10)).unwrap();
    for owned in ["coordinator/elkfk", "shipper/registry", "store"] {
        let format = data.join(owned).join(".elkfk.format");
        let before = fs::read(&format).unwrap();
        fs::write(&format, "99\n").unwrap();
        let (code, said) = run(&up_on(&data));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("format version 99"), "{}: {said}", format.display());
        fs::write(&format, before).unwrap();
    }
    // Kafka's own way of saying it.
    let meta = data.join("broker/meta.properties");
    let text = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, text.replace("version=0", "version=99")).unwrap();
    let (code, said) = run(&up_on(&data));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("meta.properties") && said.contains("99"), "{said}");
}

#[test]
fn a_data_directory_without_permission_is_named() {
    let test = "a_data_directory_without_permission_is_named";
    let dir = TestDir::new();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let data = file.join("data");
    let (code, said) = run(&up_on(&data));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(data.to_str().unwrap()) && said.contains("--data"), "{said}");

    // Root may write anywhere: the program runs as nobody where the test runs as root.
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = fs::metadata(&closed).unwrap().uid() == 0;
    let program = dir.path().join("elkfk");
    fs::copy(elkfk(), &program).unwrap();
    for data in [closed.join("data"), closed.clone()] {
        let mut command =
            Command::new(if is_root { "setpriv".as_ref() } else { program.as_os_str() });
        if is_root {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
        }
        let Ok(output) = command.args(up_on(&data)).output() else {
            elkfk_tests::peers::skip(test, "setpriv");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("Permission denied"), "{said}");
        assert!(said.contains(closed.to_str().unwrap()), "{said}");
    }
}

/// Whether a second `up` on a directory in use says so.
#[test]
fn one_process_owns_a_data_directory() {
    let dir = TestDir::new();
    let _up = Up::start(&dir.path(), &[]).unwrap();
    let data = dir.path().join("data");
    let (code, said) = run(&up_on(&data));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
}

#[test]
fn odd_files_do_no_harm_and_are_named() {
    let dir = TestDir::new();
    let logs = dir.path().join("log");
    fs::create_dir(&logs).unwrap();
    // A binary file, as wtmp is.
    fs::write(logs.join("wtmp"), [0u8, 7, 0, 0, 1, 2, 3, 0].repeat(1000)).unwrap();
    // Invalid UTF-8 between good lines.
    fs::write(logs.join("latin1.log"), b"caf\xe9 one\ncaf\xc3\xa9 two\n\xff\xfe\xfd\n").unwrap();
    // One line of 100 MB, then a good one.
    let mut long = vec![b'x'; 100 << 20];
    long.extend_from_slice(b"\nafter the long line\n");
    fs::write(logs.join("long.log"), long).unwrap();
    fs::write(logs.join("secret.log"), "nobody may read this\n").unwrap();
    fs::set_permissions(logs.join("secret.log"), fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads it all the same; then it is a line like any other.
    let is_root = fs::read(logs.join("secret.log")).is_ok();
    let watch = format!("{}/**", logs.display());
    let mut up = Up::start(&dir.path(), &["--watch", &watch]).unwrap();
    let index = up.index();
    index.wait_for(5 + u64::from(is_root), PATIENCE).unwrap();
    let lines = index.lines().unwrap();
    assert_eq!(lines.get("after the long line"), Some(&1));
    assert_eq!(lines.get("café two"), Some(&1));
    assert!(
        lines.contains_key("caf\u{fffd} one"),
        "{:?}",
        lines.keys().filter(|line| line.len() < 100).collect::<Vec<_>>()
    );
    let cut = lines.keys().find(|line| line.starts_with("xxx")).expect("the long line, cut");
    assert!(cut.len() <= 10 << 20, "{} bytes", cut.len());
    let said = up.process.output();
    let warned = |file: &str, of: &str| {
        said.lines().any(|line| line.contains("WARN") && line.contains(file) && line.contains(of))
    };
    assert!(said.contains("wtmp") && said.contains("binary"), "{said}");
    assert!(warned("long.log", "cut"), "{said}");
    assert!(warned("latin1.log", "no text"), "{said}");
    let peak = up.process.peak_bytes();
    assert!(peak < 600 << 20, "{peak} bytes");
    assert!(up.process.stop(Duration::from_secs(10)).unwrap().success());
}

/// Sends `bytes`; what is answered, if anything is.
fn poke(at: &str, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let _ = socket.write_all(bytes);
    let mut answer = [0; 4096];
    let count = socket.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[test]
fn garbage_on_every_port_does_no_harm() {
    let dir = TestDir::new();
    let log = dir.path().join("app.log");
    fs::write(&log, "before\n").unwrap();
    let up = Up::start(&dir.path(), &["--watch", &log.display().to_string()]).unwrap();
    up.index().wait_for(1, PATIENCE).unwrap();
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        .iter()
        .copied()
        .chain(0..=255)
        .collect::<Vec<u8>>();
    let two_gigabytes = 0x7fff_ffffu32.to_be_bytes().to_vec();
    let negative = (-5i32).to_be_bytes().to_vec();
    let random: Vec<u8> =
        (0u32..4096).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let before = up.process.resident_bytes();
    let bad_request = "HTTP/1.1 400 Bad Request";
    for at in [&up.coordinator, &up.bootstrap] {
        for bytes in [&http, &tls, &two_gigabytes, &negative, &random] {
            let answer = poke(at, bytes);
            // Kafka's port tells a browser what it is; to others, and on ZooKeeper's, the log tells it.
            assert_eq!(
                answer.is_empty(),
                at == &up.coordinator || bytes != &http,
                "{at}: {answer}"
            );
        }
    }
    for at in [host(&up.elasticsearch), host(&up.dashboard)] {
        for bytes in [&tls, &two_gigabytes, &negative, &random] {
            let answer = poke(&at, bytes);
            assert!(answer.starts_with(bad_request), "{at}: {answer}");
        }
    }
    // The kernel's mark of the most it ever had.
    let grown = up.process.peak_bytes().saturating_sub(before) >> 20;
    assert!(grown < 100, "{grown} MiB more at some moment of the garbage");
    writeln!(fs::OpenOptions::new().append(true).open(&log).unwrap(), "after").unwrap();
    up.index().wait_for(2, PATIENCE).unwrap();
    let said = up.process.output();
    // The broker limits how often it complains: the first is named.
    for (port, message) in [
        ("broker", "the client speaks HTTP, this port speaks the Kafka protocol"),
        ("coordinator", "an HTTP request on ZooKeeper's client port"),
        ("coordinator", "a TLS hello on the plain client port"),
        ("coordinator", "frame announces 2147483647 bytes"),
        ("coordinator", "frame announces -5 bytes"),
    ] {
        assert!(said.contains(message), "{port}: {message:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// A small file system of its own, where that can be had.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, bytes: usize) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(at)
            .output()
            .ok()?;
        mounted.status.success().then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_heals() {
    let test = "a_full_disk_loses_nothing_and_heals";
    let dir = TestDir::new();
    let path = dir.path();
    let data = path.join("data");
    fs::create_dir(&data).unwrap();
    let Some(_disk) = SmallDisk::mount(&data, 192 << 20) else {
        elkfk_tests::peers::skip(test, "the right to mount a tmpfs");
        return;
    };
    let log = path.join("app.log");
    fs::write(&log, "").unwrap();
    let mut up = Up::start(&path, &["--watch", &log.display().to_string()]).unwrap();
    // All but nothing of the disk is taken by someone else.
    let hog = data.join("hog");
    let mut file = fs::File::create(&hog).unwrap();
    let block = vec![b'h'; 1 << 20];
    while file.write_all(&block).is_ok() {}
    let mut written = fs::OpenOptions::new().append(true).open(&log).unwrap();
    for n in 0..20_000 {
        writeln!(written, "line {n} of a program that knows nothing of disks").unwrap();
    }
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        up.process.signal(rustix::process::Signal::CONT).is_ok(),
        "it died: {}",
        up.process.output()
    );
    drop(file);
    fs::remove_file(&hog).unwrap();
    up.index().wait_for(20_000, Duration::from_secs(60)).unwrap();
    let lines = up.index().lines().unwrap();
    for n in 0..20_000 {
        let line = format!("line {n} of a program that knows nothing of disks");
        assert_eq!(lines.get(&line), Some(&1), "{line}");
    }
    let said = up.process.output();
    assert!(
        said.contains("No space left") || said.contains("no space") || said.contains("disk"),
        "{said}"
    );
    assert!(up.process.stop(Duration::from_secs(10)).unwrap().success());
}
