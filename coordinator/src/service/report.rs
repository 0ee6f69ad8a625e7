//! What the four-letter words tell of the service.

use std::fmt::Write;

use elkfk_wire::jute::{OpCode, SessionId, Zxid};

use super::{ConnectionId, Service};

/// Shortest, longest and sum of what requests took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Latency {
    count: u64,
    sum_ms: u64,
    min_ms: u64,
    max_ms: u64,
}

impl Latency {
    pub(super) fn add(&mut self, latency_ms: u64) {
        self.min_ms = if self.count == 0 { latency_ms } else { self.min_ms.min(latency_ms) };
        self.max_ms = self.max_ms.max(latency_ms);
        self.sum_ms += latency_ms;
        self.count += 1;
    }

    fn average_ms(&self) -> u64 {
        self.sum_ms.checked_div(self.count).unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) latency: Latency,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) outstanding: u64,
    pub(super) last_tick_ms: u64,
}

#[derive(Debug)]
pub(super) struct ConnectionReport {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) timeout_ms: i32,
    pub(super) last_op: i32,
    last_xid: i32,
    pub(super) last_zxid: Zxid,
    since_wall_ms: i64,
    last_latency_ms: u64,
    latency: Latency,
}

impl ConnectionReport {
    pub(super) fn new(since_wall_ms: i64) -> Self {
        Self {
            received: 0,
            sent: 0,
            timeout_ms: 0,
            last_op: 0,
            last_xid: 0,
            last_zxid: Zxid(-1),
            since_wall_ms,
            last_latency_ms: 0,
            latency: Latency::default(),
        }
    }

    pub(super) fn answered(&mut self, xid: i32, op: i32, latency_ms: u64) {
        (self.last_xid, self.last_op, self.last_latency_ms) = (xid, op, latency_ms);
        self.latency.add(latency_ms);
    }
}

/// ZooKeeper's version, in whose place we stand: clients and scripts look for it.
pub(crate) const VERSION: &str =
    concat!("3.5.7-elkfk-", env!("CARGO_PKG_VERSION"), ", built on 02/10/2020 11:30 GMT");

impl Service {
    /// The lines that srvr and stat share. `connections` counts every socket, this one included.
    pub(crate) fn srvr(&self, connections: usize, mode: &str) -> String {
        let Latency { min_ms, max_ms, .. } = self.report.latency;
        let average_ms = self.report.latency.average_ms();
        let (received, sent) = (self.report.received, self.report.sent);
        let (outstanding, zxid) = (self.report.outstanding, self.machine.zxid());
        format!(
            "Latency min/avg/max: {min_ms}/{average_ms}/{max_ms}\nReceived: {received}\nSent: {sent}\n\
             Connections: {connections}\nOutstanding: {outstanding}\nZxid: {zxid}\nMode: {mode}\n\
             Node count: {}\n",
            self.znode_count()
        )
    }

    /// ZooKeeper counts the root twice, under its name and without.
    pub(crate) fn znode_count(&self) -> usize {
        self.machine.tree.len() + 1
    }

    pub(crate) fn mntr(&self, connections: usize, mode: &str) -> String {
        let mut out = String::new();
        let (_, _, watches) = self.watches.counts();
        let tree = &self.machine.tree;
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(out, "zk_{name}\t{value}");
        };
        line("version", &VERSION);
        line("avg_latency", &self.report.latency.average_ms());
        line("max_latency", &self.report.latency.max_ms);
        line("min_latency", &self.report.latency.min_ms);
        line("packets_received", &self.report.received);
        line("packets_sent", &self.report.sent);
        line("num_alive_connections", &connections);
        line("outstanding_requests", &self.report.outstanding);
        line("server_state", &mode);
        line("znode_count", &self.znode_count());
        line("watch_count", &watches);
        line("ephemerals_count", &tree.ephemeral_count());
        line("approximate_data_size", &tree.data_bytes());
        out
    }

    /// One line for each connection with a session: all of it for cons, the short form for stat.
    pub(crate) fn connection_lines(&self, is_long: bool) -> String {
        let mut ids: Vec<_> = self.connections.keys().copied().collect();
        ids.sort_unstable();
        let mut out = String::new();
        for id in ids {
            self.connection_line(id, is_long, &mut out);
        }
        out
    }

    fn connection_line(&self, id: ConnectionId, is_long: bool, out: &mut String) {
        let Some(connection) = self.connections.get(&id) else { return };
        let report = &connection.report;
        let _ = write!(
            out,
            " /{}[1](queued={},recved={},sent={}",
            connection.peer,
            connection.pending.len(),
            report.received,
            report.sent
        );
        if is_long && connection.session != SessionId(0) {
            let op = match OpCode::from_code(report.last_op) {
                Some(OpCode::CreateSession) => "SESS",
                Some(OpCode::Ping) => "PING",
                Some(op) => op.name(),
                None => "NA",
            };
            let Latency { min_ms, max_ms, .. } = report.latency;
            let _ = write!(
                out,
                ",sid={},lop={op},est={},to={},lcxid=0x{:x},lzxid={},lresp={},llat={},minlat={min_ms},avglat={},maxlat={max_ms}",
                connection.session,
                report.since_wall_ms,
                report.timeout_ms,
                report.last_xid,
                report.last_zxid,
                self.now.wall_ms,
                report.last_latency_ms,
                report.latency.average_ms(),
            );
        }
        out.push_str(")\n");
    }

    pub(crate) fn wchs(&self) -> String {
        let (connections, paths, watches) = self.watches.counts();
        format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
    }

    /// Watched paths by session.
    pub(crate) fn wchc(&self) -> String {
        let mut out = String::new();
        for (session, id) in sorted(&self.attached) {
            let paths = self.watches.of(id);
            if !paths.is_empty() {
                let _ = writeln!(out, "{session}");
                for path in paths {
                    let _ = writeln!(out, "\t{path}");
                }
            }
        }
        out
    }

    /// Sessions and ephemerals.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::from("SessionTracker dump:\n");
        let _ = writeln!(out, "Session Sets ({0})/({0}):", self.heard.len());
        for (session, heard) in &self.heard {
            let left_ms = (heard.last_ms + u64::from(heard.timeout_ms.unsigned_abs()))
                .saturating_sub(self.now.steady_ms);
            let _ = writeln!(out, "1 expire in {left_ms} ms:\n\t{session}");
        }
        out.push_str("ephemeral nodes dump:\n");
        let owners = self.machine.tree.ephemeral_owners();
        let _ = writeln!(out, "Sessions with Ephemerals ({}):", owners.len());
        for owner in owners {
            let _ = writeln!(out, "{owner}:");
            for path in self.machine.tree.ephemerals(owner) {
                let _ = writeln!(out, "\t{path}");
            }
        }
        out.push_str("Connections dump:\n");
        let _ = writeln!(out, "Connections Sets ({0})/({0}):", self.connections.len());
        for (session, id) in sorted(&self.attached) {
            if let Some(connection) = self.connections.get(&id) {
                let _ = writeln!(out, "\tip: /{} sessionId: {session}", connection.peer);
            }
        }
        out
    }

    pub(crate) fn reset_connection_reports(&mut self) {
        for connection in self.connections.values_mut() {
            (connection.report.received, connection.report.sent) = (0, 0);
            connection.report.latency = Latency::default();
        }
    }

    pub(crate) fn reset_report(&mut self) {
        self.report.latency = Latency::default();
        (self.report.received, self.report.sent) = (0, 0);
    }
}

fn sorted(
    attached: &std::collections::HashMap<SessionId, ConnectionId>,
) -> Vec<(SessionId, ConnectionId)> {
    let mut pairs: Vec<_> = attached.iter().map(|(session, id)| (*session, *id)).collect();
    pairs.sort_unstable();
    pairs
}
