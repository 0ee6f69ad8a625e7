//! Quotas: how many znodes and bytes there may be at and below a path, and how many there are.
//!
//! As in ZooKeeper a quota of `/a` is the znode `/zookeeper/quota/a/zookeeper_limits`, and its count
//! stands in `zookeeper_stats` beside it, kept by the tree itself: the stat of that znode tells
//! nothing of it. A change counts for the deepest path with a quota, that one alone. Limits are
//! soft, a warning, but for the hard ones of ZooKeeper 3.7 where they are enforced.

use std::fmt::Write;

use elkfk_wire::jute::ErrorCode;
use tracing::warn;

use super::{NodeId, ROOT, Tree, Undo};

const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// `count=3,bytes=-1`, and behind a second `=` what 3.7 has added: `=;byteHardLimit=5`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Numbers {
    /// By their names, which are few.
    values: Vec<(String, i64)>,
}

impl Numbers {
    /// What is no number counts as not there.
    fn parse(data: Option<&[u8]>) -> Self {
        let text = String::from_utf8_lossy(data.unwrap_or_default());
        let pair = |part: &str| {
            let mut words = part.split('=');
            let (name, value) = (words.next()?, words.next()?);
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self { values: text.split([',', ';']).filter_map(pair).collect() }
    }

    /// -1 where there is none.
    fn get(&self, name: &str) -> i64 {
        self.values.iter().rfind(|(known, _)| known == name).map_or(-1, |(_, value)| *value)
    }

    fn add(&mut self, name: &str, difference: i64) {
        let value = self.get(name).saturating_add(difference);
        self.values.retain(|(known, _)| known != name);
        self.values.push((name.to_owned(), value));
    }

    fn text(&self) -> String {
        let mut text = format!("count={},bytes={}", self.get("count"), self.get("bytes"));
        let mut others: Vec<_> =
            self.values.iter().filter(|(name, _)| name != "count" && name != "bytes").collect();
        if !others.is_empty() {
            text.push('=');
            others.sort();
        }
        for (name, value) in others {
            let _ = write!(text, ";{name}={value}");
        }
        text
    }
}

/// One of the two things a quota limits.
struct Measure {
    soft: &'static str,
    hard: &'static str,
}

const COUNT: Measure = Measure { soft: "count", hard: "countHardLimit" };
const BYTES: Measure = Measure { soft: "bytes", hard: "byteHardLimit" };

impl Tree {
    /// The znode below `/zookeeper/quota` that holds the quota of the deepest of `id`, its ancestors
    /// and, where `name` is given, a child of `id` that may not be there yet.
    fn quota_of(&self, id: NodeId, name: Option<&str>) -> Option<NodeId> {
        let quota = self.quota?;
        if self.node(quota).children_len() == 0 {
            return None;
        }
        let mut lineage = Vec::new();
        let mut at = id;
        while at != ROOT {
            lineage.push(at);
            at = self.node(at).parent;
        }
        let names = lineage.iter().rev().map(|id| self.node(*id).name()).chain(name);
        let (mut at, mut found) = (quota, None);
        for name in names {
            let Some(next) = self.child(at, name) else { break };
            at = next;
            if self.child(at, LIMITS).is_some() {
                found = Some(at);
            }
        }
        found
    }

    fn numbers(&self, holder: NodeId, name: &str) -> Option<(NodeId, Numbers)> {
        let id = self.child(holder, name)?;
        Some((id, Numbers::parse(self.node(id).data())))
    }

    /// What a quota that is enforced says to a znode of `bytes` that is to be made.
    pub(crate) fn permit_creation(
        &self,
        parent: NodeId,
        name: &str,
        bytes: usize,
    ) -> Result<(), ErrorCode> {
        self.permit_growth(self.quota_of(parent, Some(name)), 1, bytes as i64)
    }

    /// What a quota that is enforced says to `bytes` in place of the data of `id`.
    pub(crate) fn permit_data(&self, id: NodeId, bytes: usize) -> Result<(), ErrorCode> {
        self.permit_growth(self.quota_of(id, None), 0, bytes as i64 - self.node(id).data_len())
    }

    fn permit_growth(
        &self,
        holder: Option<NodeId>,
        znodes: i64,
        bytes: i64,
    ) -> Result<(), ErrorCode> {
        let Some(holder) = holder else { return Ok(()) };
        let (Some((_, limits)), Some((_, used))) =
            (self.numbers(holder, LIMITS), self.numbers(holder, STATS))
        else {
            return Ok(());
        };
        for (measure, growth) in [(COUNT, znodes), (BYTES, bytes)] {
            let limit = limits.get(measure.hard);
            if growth != 0 && limit > -1 && used.get(measure.soft).saturating_add(growth) > limit {
                return Err(ErrorCode::QuotaExceeded);
            }
        }
        Ok(())
    }

    /// Counts znodes and bytes that came to or went from `id`, which is there.
    pub(super) fn count(&mut self, id: NodeId, znodes: i64, bytes: i64, undo: &mut Vec<Undo>) {
        let Some(holder) = self.quota_of(id, None) else { return };
        let Some((stats, mut used)) = self.numbers(holder, STATS) else { return };
        if let Some((_, limits)) = self.numbers(holder, LIMITS) {
            for (measure, growth) in [(COUNT, znodes), (BYTES, bytes)] {
                let hard = limits.get(measure.hard);
                let limit = if hard > -1 { hard } else { limits.get(measure.soft) };
                let before = used.get(measure.soft);
                let after = before.saturating_add(growth);
                // Said once, not with every change from then on.
                if limit > -1 && before <= limit && after > limit {
                    let (path, what) = (self.path(holder), measure.soft);
                    let path = path.strip_prefix("/zookeeper/quota").unwrap_or(&path);
                    warn!(path, what, limit, used = after, "quota exceeded");
                }
            }
        }
        used.add(COUNT.soft, znodes);
        used.add(BYTES.soft, bytes);
        self.set_stats(stats, &used, undo);
    }

    /// Fills the count of a quota that was just made, where `id` is one.
    pub(super) fn count_anew(&mut self, id: NodeId, undo: &mut Vec<Undo>) {
        if self.node(id).name() != STATS || self.quota.is_none() {
            return;
        }
        let path = self.path(self.node(id).parent);
        let Some(counted) = path.strip_prefix("/zookeeper/quota/") else { return };
        let (mut znodes, mut bytes) = (0, 0);
        let mut below: Vec<NodeId> = self.find(&format!("/{counted}")).into_iter().collect();
        while let Some(id) = below.pop() {
            znodes += 1;
            bytes += self.node(id).data_len();
            below.extend(self.children(id));
        }
        let mut used = Numbers::default();
        used.add(COUNT.soft, znodes + 1);
        used.add(BYTES.soft, bytes + 1);
        self.set_stats(id, &used, undo);
    }

    fn set_stats(&mut self, id: NodeId, used: &Numbers, undo: &mut Vec<Undo>) {
        // Nothing of the stat but the length tells of it.
        self.replace_data(id, Some(used.text().as_bytes()), undo, |_| ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written_as_zookeeper_does() {
        let check = |text: &str, written: &str| {
            assert_eq!(Numbers::parse(Some(text.as_bytes())).text(), written, "{text:?}");
        };
        check("count=3,bytes=-1", "count=3,bytes=-1");
        check("", "count=-1,bytes=-1");
        check("nonsense,=,count=x,bytes=5", "count=-1,bytes=5");
        let hard = "count=3,bytes=4=;byteHardLimit=5;countHardLimit=6";
        check(hard, hard);
        let mut numbers = Numbers::parse(Some(hard.as_bytes()));
        numbers.add("count", 2);
        assert_eq!((numbers.get("count"), numbers.get("byteHardLimit")), (5, 5));
    }
}
