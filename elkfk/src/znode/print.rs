//! Stats and data as zkCli and as JSON.

use elkfk_coordinator_client::Stat;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::say::or_end;

pub(super) fn json(value: &Value) {
    or_end(&format!("{value}\n"));
}

/// Data may be any bytes.
pub(super) fn bytes(data: &[u8]) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if out.write_all(data).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// `data` where it is text, `data_hex` where not.
pub(super) fn data_json(data: &[u8]) -> (&'static str, String) {
    match str::from_utf8(data) {
        Ok(text) => ("data", text.to_owned()),
        Err(_) => ("data_hex", data.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

pub(super) fn stat_json(stat: &Stat) -> Value {
    // Zxids and sessions have 64 bits, and JSON's numbers 53.
    json!({
        "czxid": stat.czxid.to_string(),
        "mzxid": stat.mzxid.to_string(),
        "pzxid": stat.pzxid.to_string(),
        "ctime_ms": stat.ctime_ms,
        "mtime_ms": stat.mtime_ms,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeral_owner": stat.ephemeral_owner.to_string(),
        "data_length": stat.data_length,
        "num_children": stat.num_children,
    })
}

/// As zkCli prints it.
pub(super) fn stat(stat: &Stat) -> String {
    let zone = TimeZone::system();
    let date = |ms: i64| {
        let at = Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(zone.clone());
        at.strftime("%a %b %d %H:%M:%S %Z %Y").to_string()
    };
    format!(
        "cZxid = {}\nctime = {}\nmZxid = {}\nmtime = {}\npZxid = {}\ncversion = {}\ndataVersion = {}\n\
         aclVersion = {}\nephemeralOwner = {}\ndataLength = {}\nnumChildren = {}\n",
        stat.czxid,
        date(stat.ctime_ms),
        stat.mzxid,
        date(stat.mtime_ms),
        stat.pzxid,
        stat.cversion,
        stat.version,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children,
    )
}
