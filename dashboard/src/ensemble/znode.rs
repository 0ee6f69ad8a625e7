//! The znode tree, read over one session that is opened when somebody first looks.

use std::time::Duration;

use elkfk_base::errors::in_one_line;
use elkfk_coordinator_client::{Acl, Client, Config, Error, Stat};
use serde_json::{Value, json};

use crate::Shared;
use crate::api::{Answer, Problem};
use crate::ask::Params;

const CHILDREN_MAX: usize = 1_000;
const TEXT_BYTES_MAX: usize = 64 << 10;
const HEX_BYTES_MAX: usize = 1 << 10;
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn answer(shared: &Shared, params: &Params) -> Answer {
    let path = match params.text("path") {
        "" => "/",
        path => path,
    };
    match tokio::time::timeout(TIMEOUT, read(shared, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(Problem::away(format!("no answer in {} s", TIMEOUT.as_secs()))),
    }
}

async fn read(shared: &Shared, path: &str) -> Answer {
    let client = session(shared).await?;
    let told = |error: Error| match &error {
        Error::Path { .. } => Problem::wrong(in_one_line(&error)),
        _ if error.is_no_node() => Problem::missing(format!("there is no znode {path}")),
        _ => Problem::away(in_one_line(&error)),
    };
    let (data, stat) = client.get(path).await.map_err(told)?;
    let (mut children, _) = client.children(path).await.map_err(told)?;
    // Who may not see the list may see the rest.
    let acl = client.get_acl(path).await.map(|(acl, _)| acl).unwrap_or_default();
    children.sort_unstable();
    let total = children.len();
    children.truncate(CHILDREN_MAX);
    Ok(json!({
        "path": path,
        "data": data_json(path, &data),
        "stat": stat_json(&stat),
        "children": children,
        "children_total": total,
        "acl": acl.iter().map(acl_json).collect::<Vec<_>>(),
    }))
}

/// The session of all who look; a new one where the last is over.
async fn session(shared: &Shared) -> Result<Client, Problem> {
    let Some(connect) = shared.config.zookeeper.as_deref() else {
        return Err(Problem::missing("no coordinator or ZooKeeper is given to look at"));
    };
    let mut held = shared.ensemble.session.lock().await;
    if let Some(client) = held.as_ref()
        && !client.state().borrow().is_over()
    {
        return Ok(client.clone());
    }
    let config = Config::parse(connect).map_err(|error| Problem::wrong(error.to_string()))?;
    let config = Config { connect_timeout: TIMEOUT / 2, ..config };
    let client =
        Client::connect(config).await.map_err(|error| Problem::away(in_one_line(&error)))?;
    *held = Some(client.clone());
    Ok(client)
}

fn data_json(path: &str, data: &[u8]) -> Value {
    // Kafka keeps salted passwords of SCRAM users here.
    if path.contains("/config/users/") {
        return json!({"text": null, "json": null, "hex": null, "bytes": data.len(), "truncated": true, "why": "it may hold a password, so it is not shown"});
    }
    let is_truncated = data.len() > TEXT_BYTES_MAX;
    let shown = &data[..data.len().min(TEXT_BYTES_MAX)];
    // A character that is cut in two is left out.
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        Err(error) if is_truncated && error.error_len().is_none() => {
            std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let is_control = |char: char| char.is_control() && !matches!(char, '\n' | '\r' | '\t');
    let text = text.filter(|text| !text.contains(is_control));
    let json: Option<Value> = text
        .filter(|_| !is_truncated && !data.is_empty())
        .and_then(|text| serde_json::from_str(text).ok());
    let hex = data.iter().take(HEX_BYTES_MAX).fold(String::new(), |mut hex, byte| {
        use std::fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    json!({"text": text, "json": json, "hex": hex, "bytes": data.len(), "truncated": is_truncated})
}

fn stat_json(stat: &Stat) -> Value {
    json!({
        "czxid": hex(stat.czxid.0),
        "mzxid": hex(stat.mzxid.0),
        "ctime_ms": stat.ctime_ms,
        "mtime_ms": stat.mtime_ms,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeral_owner": (stat.ephemeral_owner.0 != 0).then(|| hex(stat.ephemeral_owner.0)),
        "data_length": stat.data_length,
        "num_children": stat.num_children,
        "pzxid": hex(stat.pzxid.0),
    })
}

/// 64 bits are more than JavaScript's numbers hold.
fn hex(number: i64) -> String {
    format!("0x{number:x}")
}

fn acl_json(acl: &Acl<'_>) -> Value {
    // The id of a digest is a user and what a password can be guessed from.
    let id = match (&*acl.scheme, acl.id.split_once(':')) {
        ("digest", Some((user, _))) => format!("{user}:…"),
        _ => acl.id.to_string(),
    };
    let letters = [(4, 'c'), (8, 'd'), (1, 'r'), (2, 'w'), (16, 'a')];
    let perms: String =
        letters.iter().filter(|(bit, _)| acl.perms & bit != 0).map(|(_, letter)| letter).collect();
    json!({"scheme": acl.scheme, "id": id, "perms": perms})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_shown_as_what_it_is() {
        let json = data_json("/brokers/ids/1", br#"{"port":9092}"#);
        assert_eq!((&json["json"]["port"], &json["bytes"]), (&9092.into(), &13.into()));
        let binary = data_json("/x", &[0, 255]);
        assert_eq!((&binary["text"], &binary["hex"]), (&Value::Null, &"00ff".into()));
        assert_eq!(data_json("/x", b"")["text"], "");
        let long = data_json("/x", "é".repeat(TEXT_BYTES_MAX).as_bytes());
        assert_eq!((&long["truncated"], long["hex"].as_str().unwrap().len()), (&true.into(), 2048));
        assert_eq!(long["text"].as_str().unwrap().len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn passwords_are_not_shown() {
        let json = data_json("/config/users/alice", br#"{"config":{"SCRAM-SHA-256":"salt=x"}}"#);
        assert!(!json.to_string().contains("salt"));
        let acl = Acl { perms: 31, scheme: "digest".into(), id: "alice:c2VjcmV0".into() };
        let json = acl_json(&acl);
        assert_eq!((&json["id"], &json["perms"]), (&"alice:…".into(), &"cdrwa".into()));
        let open = acl_json(&Acl::OPEN);
        assert_eq!((&open["id"], &open["perms"]), (&"anyone".into(), &"cdrwa".into()));
    }
}
