//! A whole subtree: read, shown with its sizes, deleted.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use anyhow::{Result, bail};
use elkfk_coordinator_client::{Client, Error, Stat};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Requests under way at once.
const IN_FLIGHT_MAX: usize = 64;
/// A znode read takes some 300 bytes here.
const ZNODES_MAX: usize = 2_000_000;

/// By path.
#[derive(Debug)]
pub(super) struct Tree {
    root: String,
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug)]
struct Node {
    stat: Stat,
    /// Sorted.
    children: Vec<String>,
}

/// Of a znode and all below.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    znodes: u64,
    bytes: u64,
}

fn below(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}

/// Everything at and below `path`. What goes while it is read is left out.
pub(super) async fn read(client: &Client, path: &str) -> Result<Tree> {
    let mut nodes = BTreeMap::new();
    let mut waiting = VecDeque::from([path.to_owned()]);
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < IN_FLIGHT_MAX
            && let Some(path) = waiting.pop_front()
        {
            let client = client.clone();
            asked.spawn(async move {
                let answer = client.children(&path).await;
                (path, answer)
            });
        }
        let Some(answered) = asked.join_next().await else { break };
        let (found, answer) = answered?;
        let (mut children, stat) = match answer {
            Ok(answer) => answer,
            Err(error) if error.is_no_node() && found != path => continue,
            Err(error) => return Err(error.into()),
        };
        children.sort();
        waiting.extend(children.iter().map(|name| below(&found, name)));
        if nodes.len() + waiting.len() > ZNODES_MAX {
            bail!("more than {ZNODES_MAX} znodes are below {path}; ask for a part of them");
        }
        nodes.insert(found, Node { stat, children });
    }
    Ok(Tree { root: path.to_owned(), nodes })
}

/// Deletes everything at and below `path`; returns how many znodes went.
pub(super) async fn delete(client: &Client, path: &str) -> Result<u64> {
    if path == "/" {
        bail!("/ cannot be deleted; name what is below it");
    }
    let tree = read(client, path).await?;
    let mut deleted = 0;
    // Children come after their parents in the order of paths.
    for path in tree.nodes.keys().rev() {
        match client.delete(path, None).await {
            Ok(()) => deleted += 1,
            // Someone else was faster.
            Err(error) if error.is_no_node() => {}
            Err(error) => return Err(Error::into(error)),
        }
    }
    Ok(deleted)
}

impl Tree {
    /// In the order they are shown in.
    pub(super) fn paths(&self) -> Vec<&str> {
        let mut paths = Vec::with_capacity(self.nodes.len());
        self.walk(usize::MAX, &mut |path, _, _| paths.push(path));
        paths
    }

    /// Each znode down to `depth`, with its depth, parents before their children.
    fn walk<'a>(&'a self, depth_max: usize, visit: &mut impl FnMut(&'a str, usize, &'a Node)) {
        let mut waiting = vec![(self.root.clone(), 0)];
        while let Some((path, depth)) = waiting.pop() {
            let Some((path, node)) = self.nodes.get_key_value(&path) else { continue };
            visit(path, depth, node);
            if depth < depth_max {
                let children = node.children.iter().rev();
                waiting.extend(children.map(|name| (below(path, name), depth + 1)));
            }
        }
    }

    fn sums(&self) -> BTreeMap<&str, Sum> {
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for (path, node) in self.nodes.iter().rev() {
            let sum = sums.entry(path).or_default();
            sum.znodes += 1;
            sum.bytes += node.stat.data_length.unsigned_abs() as u64;
            let sum = *sum;
            if *path != self.root
                && let Some((parent, _)) = path.rsplit_once('/')
            {
                let parent = if parent.is_empty() { "/" } else { parent };
                if let Some((parent, _)) = self.nodes.get_key_value(parent) {
                    let above = sums.entry(parent).or_default();
                    above.znodes += sum.znodes;
                    above.bytes += sum.bytes;
                }
            }
        }
        sums
    }

    /// A table: bytes of its own, bytes and znodes with all below, and the name at its depth.
    pub(super) fn text(&self, depth_max: usize) -> String {
        let sums = self.sums();
        let mut rows =
            vec![["BYTES".to_owned(), "BELOW".to_owned(), "ZNODES".to_owned(), "ZNODE".to_owned()]];
        self.walk(depth_max, &mut |path, depth, node| {
            let sum = sums.get(path).copied().unwrap_or_default();
            let name = match depth {
                0 => path,
                _ => path.rsplit('/').next().unwrap_or(path),
            };
            rows.push([
                node.stat.data_length.to_string(),
                sum.bytes.to_string(),
                sum.znodes.to_string(),
                format!("{}{name}{}", "  ".repeat(depth), kind(&node.stat)),
            ]);
        });
        let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
        let (own, all, count) = (width(0), width(1), width(2));
        let mut out = String::new();
        for [bytes, below, znodes, name] in &rows {
            let _ = writeln!(out, "{bytes:>own$}  {below:>all$}  {znodes:>count$}  {name}");
        }
        out
    }

    pub(super) fn json(&self, depth_max: usize) -> Value {
        let sums = self.sums();
        let mut znodes = Vec::new();
        self.walk(depth_max, &mut |path, _, node| {
            let sum = sums.get(path).copied().unwrap_or_default();
            znodes.push(json!({
                "path": path,
                "bytes": node.stat.data_length,
                "bytes_below": sum.bytes,
                "znodes_below": sum.znodes,
                "ephemeral_owner": node.stat.ephemeral_owner.to_string(),
            }));
        });
        json!({ "path": self.root, "znodes": znodes })
    }
}

/// Whose session a znode goes with, if it does. Servers tell nobody of containers and times to live.
fn kind(stat: &Stat) -> String {
    match stat.ephemeral_owner.0 {
        0 => String::new(),
        _ => format!("  (ephemeral of {})", stat.ephemeral_owner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_all_below_and_children_stand_under_their_parent() {
        let node = |bytes: i32, children: &[&str]| Node {
            stat: Stat { data_length: bytes, ..Stat::default() },
            children: children.iter().map(|name| name.to_string()).collect(),
        };
        let nodes = [
            ("/", node(0, &["a", "a-b"])),
            ("/a", node(10, &["x"])),
            ("/a/x", node(5, &[])),
            ("/a-b", node(1, &[])),
        ];
        let nodes = nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect();
        let tree = Tree { root: "/".into(), nodes };
        assert_eq!(
            tree.text(9),
            "BYTES  BELOW  ZNODES  ZNODE\n    0     16       4  /\n   10     15       2    a\n    5      5       1      x\n    1      1       1    a-b\n"
        );
        assert_eq!(tree.text(1).lines().count(), 4);
        assert_eq!(tree.paths(), ["/", "/a", "/a/x", "/a-b"]);
    }
}
