//! Network namespaces on one bridge, whose links can be cut one by one and one way.
//!
//! A link is cut where it begins: the sender gets a wrong hardware address for the receiver, so its packets are
//! dropped without a word, as by a broken cable, and connections stay open on both ends. Needs root and `ip`.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

/// Nobody's; locally administered.
const NOBODY: &str = "02:00:00:00:00:99";

/// `count` namespaces and the test's own, all on one bridge. Dropped, they are gone.
#[derive(Debug)]
pub struct Network {
    /// Stands in the names of its parts: unique among those that live.
    name: String,
    /// Third byte of 10.213.x.y.
    subnet: u8,
    count: usize,
}

impl Network {
    /// `None` where namespaces may not be made.
    pub fn new(count: usize) -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        remove_left_behind();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ek{}n{number}", std::process::id());
        if ip(&["netns", "add", &format!("{name}-0")]).is_err() {
            return Ok(None);
        }
        let used = ip(&["-o", "-4", "addr"])?;
        let wanted = (std::process::id() + number) % 254;
        let subnet = (0..254)
            .map(|more| ((wanted + more) % 254 + 1) as u8)
            .find(|subnet| !used.contains(&format!("10.213.{subnet}.")))
            .context("a free subnet of 10.213.0.0/16")?;
        let network = Self { name, subnet, count };
        network.build()?;
        Ok(Some(network))
    }

    fn build(&self) -> Result<()> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", self.own_ip()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for at in 0..self.count {
            let (space, link) = (self.space(at), format!("{}v{at}", self.name));
            if at > 0 {
                ip(&["netns", "add", &space])?;
            }
            ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["link", "set", &link, "master", &bridge, "up"])?;
            let address = format!("{}/24", self.ip(at));
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn space(&self, at: usize) -> String {
        format!("{}-{at}", self.name)
    }

    /// The test's own address, from which clients come.
    fn own_ip(&self) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, 1).into()
    }

    /// The address of namespace `at`.
    pub fn ip(&self, at: usize) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, 11 + at as u8).into()
    }

    /// What stands before a command that is to run in namespace `at`. The process keeps its id.
    pub fn inside(&self, at: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.space(at)].map(str::to_owned).into()
    }

    /// Drops all that `from` sends to `to`.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        let to = self.ip(to).to_string();
        self.misdirect(&["-n", &self.space(from)], &to, "eth0")
    }

    /// Drops all between namespace `at` and the test's own, both ways.
    pub fn cut_clients(&self, at: usize) -> Result<()> {
        self.misdirect(&["-n", &self.space(at)], &self.own_ip().to_string(), "eth0")?;
        self.misdirect(&[], &self.ip(at).to_string(), &self.bridge())
    }

    fn misdirect(&self, at: &[&str], to: &str, dev: &str) -> Result<()> {
        let set = ["neigh", "replace", to, "lladdr", NOBODY, "dev", dev, "nud", "permanent"];
        ip(&[at, &set].concat()).map(drop)
    }

    /// Every link works again.
    pub fn heal(&self) -> Result<()> {
        for at in 0..self.count {
            let space = self.space(at);
            ip(&["-n", &space, "neigh", "flush", "dev", "eth0", "nud", "permanent"])?;
        }
        ip(&["neigh", "flush", "dev", &self.bridge(), "nud", "permanent"]).map(drop)
    }

    fn remove(name: &str) {
        let _ = ip(&["link", "del", &format!("{name}b")]);
        let spaces = ip(&["netns", "list"]).unwrap_or_default();
        for space in spaces.lines().filter_map(|line| line.split(' ').next()) {
            if space.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')) {
                let _ = ip(&["netns", "del", space]);
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        Self::remove(&self.name);
    }
}

/// A test that was killed could not remove its own.
fn remove_left_behind() {
    let spaces = ip(&["netns", "list"]).unwrap_or_default();
    for space in spaces.lines().filter_map(|line| line.split(' ').next()) {
        let Some((name, _)) = space.split_once('-') else { continue };
        let Some((pid, _)) = name.strip_prefix("ek").and_then(|rest| rest.split_once('n')) else {
            continue;
        };
        let is_number = pid.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true) {
            Network::remove(name);
        }
    }
}

fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(args).output().context("run ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::process::Process;

    /// A process in namespace `at` that prints each datagram it gets.
    fn listener(network: &Network, at: usize, dir: &std::path::Path) -> Process {
        const SCRIPT: &str = "import socket, sys\n\
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            s.bind(('', 999))\n\
            print('bound', flush=True)\n\
            while True: print(s.recv(99).decode(), flush=True)";
        let inside = network.inside(at);
        let mut command = Command::new(&inside[0]);
        command.args(&inside[1..]).args(["python3", "-c", SCRIPT]);
        let log = dir.join(format!("{at}.log"));
        let mut process = Process::start("listener", &mut command, &log).unwrap();
        let is_bound = |process: &Process| process.output().contains("bound");
        process.wait_until(Duration::from_secs(30), is_bound).unwrap();
        process
    }

    fn send(network: &Network, from: usize, to: usize, word: &str) {
        let script = format!("echo {word} > /dev/udp/{}/999", network.ip(to));
        let inside = network.inside(from);
        let mut command = Command::new(&inside[0]);
        command.args(&inside[1..]).args(["bash", "-c", &script]);
        assert!(command.status().unwrap().success(), "{word} is sent, whether it arrives or not");
    }

    fn arrives(process: &Process, word: &str) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            if process.output().contains(word) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    #[test]
    fn a_link_is_cut_one_way_and_heals() {
        let Some(network) = Network::new(2).unwrap() else {
            return crate::peers::skip(
                "a_link_is_cut_one_way_and_heals",
                "the right to make namespaces",
            );
        };
        let dir = tempfile::tempdir().unwrap();
        let (zero, one) = (listener(&network, 0, dir.path()), listener(&network, 1, dir.path()));
        send(&network, 0, 1, "first");
        assert!(arrives(&one, "first"));
        network.cut(0, 1).unwrap();
        send(&network, 0, 1, "second");
        send(&network, 1, 0, "third");
        assert!(arrives(&zero, "third"), "the way back works");
        assert!(!arrives(&one, "second"));
        network.heal().unwrap();
        send(&network, 0, 1, "fourth");
        assert!(arrives(&one, "fourth"));
        assert!(!one.output().contains("second"), "what was dropped is gone");
    }
}
