//! What happens to a znode, as it happens.
//!
//! A watch tells one event and is set again with the next read, so changes that follow fast show as
//! one; the version says how many there were.

use anyhow::{Result, bail};
use elkfk_coordinator_client::{Client, EventKind, Stat, Watch};
use jiff::Timestamp;
use serde_json::json;

use super::print;
use crate::say::{asideln, or_end};

/// What is known of the znode.
struct Seen {
    stat: Option<Stat>,
    children: Vec<String>,
}

pub(super) async fn run(
    client: &Client,
    path: &str,
    count: Option<u64>,
    is_json: bool,
) -> Result<()> {
    let (mut seen, mut watches) = look(client, path).await?;
    match &seen.stat {
        Some(stat) => asideln!("watching {path}, version {}", stat.version),
        None => asideln!("watching {path}, which is not there"),
    }
    let mut told = 0;
    loop {
        let (data, children) = &mut watches;
        let kind = match children {
            Some(children) => tokio::select! {
                event = data => event.kind,
                event = children => event.kind,
            },
            None => data.await.kind,
        };
        if kind == EventKind::Session {
            bail!("the session ended: events after this are not seen; run it again");
        }
        let (now, again) = look(client, path).await?;
        for event in changes(&seen, &now) {
            tell(path, &event, is_json);
            told += 1;
            if Some(told) == count {
                return Ok(());
            }
        }
        (seen, watches) = (now, again);
    }
}

/// Sets both watches and says what there is.
async fn look(client: &Client, path: &str) -> Result<(Seen, (Watch, Option<Watch>))> {
    let (stat, data) = client.exists_watch(path).await?;
    if stat.is_none() {
        return Ok((Seen { stat, children: Vec::new() }, (data, None)));
    }
    match client.children_watch(path).await {
        Ok((mut children, stat, watch)) => {
            children.sort();
            Ok((Seen { stat: Some(stat), children }, (data, Some(watch))))
        }
        // It went in between, and the first watch tells.
        Err(error) if error.is_no_node() => Ok((Seen { stat, children: Vec::new() }, (data, None))),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Created { version: i32 },
    Deleted,
    Data { version: i32, bytes: i32 },
    Children { came: Vec<String>, went: Vec<String> },
}

fn changes(before: &Seen, now: &Seen) -> Vec<Change> {
    let mut changes = Vec::new();
    match (&before.stat, &now.stat) {
        (None, None) => {}
        (None, Some(stat)) => changes.push(Change::Created { version: stat.version }),
        (Some(_), None) => return vec![Change::Deleted],
        (Some(old), Some(stat)) if old.czxid != stat.czxid => {
            changes.extend([Change::Deleted, Change::Created { version: stat.version }]);
        }
        (Some(old), Some(stat)) if old.mzxid != stat.mzxid => {
            changes.push(Change::Data { version: stat.version, bytes: stat.data_length });
        }
        _ => {}
    }
    let but = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|name| those.binary_search(name).is_err()).cloned().collect()
    };
    let (came, went) = (but(&now.children, &before.children), but(&before.children, &now.children));
    let has_moved = match (&before.stat, &now.stat) {
        (Some(old), Some(stat)) => old.czxid == stat.czxid && old.pzxid != stat.pzxid,
        _ => false,
    };
    if has_moved || !came.is_empty() || !went.is_empty() {
        changes.push(Change::Children { came, went });
    }
    changes
}

fn tell(path: &str, change: &Change, is_json: bool) {
    let at = Timestamp::now();
    if is_json {
        let mut event = match change {
            Change::Created { version } => json!({ "event": "created", "version": version }),
            Change::Deleted => json!({ "event": "deleted" }),
            Change::Data { version, bytes } => {
                json!({ "event": "data", "version": version, "data_length": bytes })
            }
            Change::Children { came, went } => {
                json!({ "event": "children", "came": came, "went": went })
            }
        };
        event["path"] = path.into();
        event["time_ms"] = at.as_millisecond().into();
        return print::json(&event);
    }
    let what = match change {
        Change::Created { version } => format!("created {path} version {version}"),
        Change::Deleted => format!("deleted {path}"),
        Change::Data { version, bytes } => format!("data {path} version {version}, {bytes} bytes"),
        Change::Children { came, went } => {
            let came = came.iter().map(|name| format!(" +{name}"));
            let names: String = came.chain(went.iter().map(|name| format!(" -{name}"))).collect();
            format!("children {path}{names}")
        }
    };
    or_end(&format!("{at:.3} {what}\n"));
}

#[cfg(test)]
mod tests {
    use elkfk_coordinator_client::Zxid;

    use super::*;

    fn seen(zxids: Option<(i64, i64, i64)>, children: &[&str]) -> Seen {
        let stat = zxids.map(|(czxid, mzxid, pzxid)| Stat {
            czxid: Zxid(czxid),
            mzxid: Zxid(mzxid),
            pzxid: Zxid(pzxid),
            ..Stat::default()
        });
        Seen { stat, children: children.iter().map(|name| name.to_string()).collect() }
    }

    #[test]
    fn two_looks_tell_what_happened_between() {
        let old = seen(Some((1, 1, 1)), &["a", "b"]);
        assert_eq!(changes(&old, &seen(Some((1, 1, 1)), &["a", "b"])), []);
        assert_eq!(changes(&old, &seen(None, &[])), [Change::Deleted]);
        let created = Change::Created { version: 0 };
        assert_eq!(changes(&seen(None, &[]), &seen(Some((2, 2, 2)), &[])), [created]);
        let moved = Change::Children { came: vec!["c".into()], went: vec!["a".into()] };
        let data = Change::Data { version: 0, bytes: 0 };
        assert_eq!(changes(&old, &seen(Some((1, 5, 6)), &["b", "c"])), [data, moved]);
        // A child that came and went again.
        let nothing = Change::Children { came: vec![], went: vec![] };
        assert_eq!(changes(&old, &seen(Some((1, 1, 6)), &["a", "b"])), [nothing]);
    }
}
