//! The AdminServer's commands: ZooKeeper 3.5.7's, with its field names, and of later versions
//! `hash`, `last_snapshot`, `leader`, `voting_view` and `zabstate`.

use elkfk_wire::jute::SessionId;
use serde_json::{Map, Value, json};

use crate::server::{
    Member, Membership, Role, Surroundings, directory_bytes, environment, measures,
};
use crate::service::{ConnectionFigures, Service, Sizes, VERSION};
use crate::snapshots;

/// A command and the one argument any of them takes.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// As it was asked for.
    pub(crate) name: String,
    /// `traceMask`.
    pub(crate) trace_mask: Option<String>,
    /// Wanted are the measures in Prometheus' format instead.
    pub(crate) is_scrape: bool,
}

/// Names that are listed, and the others each goes by.
pub(super) const COMMANDS: [(&str, &[&str]); 22] = [
    ("configuration", &["conf", "config"]),
    ("connection_stat_reset", &["crst"]),
    ("connections", &["cons"]),
    ("dirs", &[]),
    ("dump", &[]),
    ("environment", &["env", "envi"]),
    ("get_trace_mask", &["gtmk"]),
    ("hash", &[]),
    ("is_read_only", &["isro"]),
    ("last_snapshot", &["lsnp"]),
    ("leader", &["lead"]),
    ("monitor", &["mntr"]),
    ("ruok", &[]),
    ("server_stats", &["srvr"]),
    ("set_trace_mask", &["stmk"]),
    ("stat_reset", &["srst"]),
    ("stats", &["stat"]),
    ("voting_view", &[]),
    ("watch_summary", &["wchs"]),
    ("watches", &["wchc"]),
    ("watches_by_path", &["wchp"]),
    ("zabstate", &[]),
];

/// Of a name or one of its others.
fn listed_name(name: &str) -> Option<&'static str> {
    COMMANDS
        .iter()
        .find(|(listed, others)| *listed == name || others.contains(&name))
        .map(|(listed, _)| *listed)
}

/// The answer as text.
pub(crate) fn answer(
    command: &Command,
    service: &mut Service,
    around: &Surroundings<'_>,
) -> String {
    if command.is_scrape {
        return super::metrics::text(service, around);
    }
    let mut fields = Map::new();
    let listed = listed_name(&command.name);
    let name = listed.unwrap_or(&command.name);
    let told = match listed {
        None => {
            // Here it stands behind the name, and before it where a command has refused something.
            fields.insert("command".into(), name.into());
            Err(format!("Unknown command: {name}"))
        }
        Some("ruok" | "environment") => tell(name, command, service, around, &mut fields),
        Some(_) if matches!(around.role, Role::Looking) => {
            Err("This ZooKeeper instance is not currently serving requests".to_owned())
        }
        Some(_) => tell(name, command, service, around, &mut fields),
    };
    if let Err(why) = told {
        fields.insert("error".into(), why.into());
    }
    fields.entry("command").or_insert(name.into());
    fields.entry("error").or_insert(Value::Null);
    super::text::pretty(&fields.into())
}

fn tell(
    name: &str,
    command: &Command,
    service: &mut Service,
    around: &Surroundings<'_>,
    out: &mut Map<String, Value>,
) -> Result<(), String> {
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    match name {
        "configuration" => {
            let config = around.config;
            put("client_port", around.port.into());
            put("data_dir", around.data_path().display().to_string().into());
            put("data_log_dir", around.log_path().display().to_string().into());
            put("tick_time", millis(config.tick_time));
            put("max_client_cnxns", config.client_connections_max.into());
            put("min_session_timeout", millis(config.session_timeout_min()));
            put("max_session_timeout", millis(config.session_timeout_max()));
            put("server_id", config.server_id.unwrap_or(0).into());
        }
        "connection_stat_reset" => service.reset_connection_reports(),
        "stat_reset" => service.reset_report(),
        "connections" => {
            let clients = service.connection_figures();
            put("connections", clients.iter().map(|client| connection(client, false)).collect());
            put("secure_connections", json!([]));
        }
        "dirs" => {
            put("datadir_size", directory_bytes(&around.data_path()).into());
            put("logdir_size", directory_bytes(&around.log_path()).into());
        }
        "dump" => {
            let tick_ms = around.config.tick_time.as_millis() as u64;
            let expiries = service.session_expiries(tick_ms).into_iter();
            put(
                "expiry_time_to_session_ids",
                expiries.map(|(at, those)| (at.to_string(), numbers(those))).collect(),
            );
            let ephemerals = service.ephemerals().into_iter();
            put(
                "session_id_to_ephemeral_paths",
                ephemerals.map(|(owner, paths)| (owner.0.to_string(), json!(paths))).collect(),
            );
        }
        "environment" => {
            environment().into_iter().for_each(|(name, value)| put(name, value.into()));
        }
        "get_trace_mask" => put("tracemask", service.trace_mask().into()),
        "set_trace_mask" => {
            let wanted = "setTraceMask requires long traceMask argument";
            let Some(given) = &command.trace_mask else { return Err(wanted.to_owned()) };
            let mask = given.parse::<i64>().map_err(|_| format!("{wanted}, got {given}"))?;
            service.set_trace_mask(mask);
            put("tracemask", mask.into());
        }
        "hash" => {
            let figures = service.figures();
            put("digests", json!([{ "zxid": figures.zxid.0, "digest": figures.digest }]));
        }
        "is_read_only" => put("read_only", false.into()),
        "last_snapshot" => {
            let newest = snapshots::newest(&around.data_path());
            let (zxid, written_secs) = newest.map_or((-1, -1), |(zxid, at)| (zxid.0, at));
            put("zxid", format!("{zxid:x}").into());
            put("timestamp", written_secs.into());
        }
        "leader" => {
            let Some(membership) = around.membership else {
                return Err("server is not initialized".to_owned());
            };
            let leader =
                membership.leader.and_then(|id| membership.members.iter().find(|one| one.id == id));
            put("is_leader", matches!(around.role, Role::Leader(_)).into());
            put("leader_id", leader.map_or(-1, |one| one.id as i64).into());
            put("leader_ip", leader.map_or("", |one| host(&one.quorum)).into());
        }
        "monitor" => {
            put("version", VERSION.into());
            let mut later = Vec::new();
            for (name, value) in measures(service, around) {
                match name {
                    "server_state" => put(name, around.role.name().into()),
                    // ZooKeeper has the sizes of answers between these and the ones before.
                    _ if later.is_empty() && name != "followers" => put(name, value.into()),
                    _ => later.push((name, value)),
                }
            }
            let Sizes { last, min, max } = service.figures().answers;
            put("last_client_response_size", last.into());
            put("max_client_response_size", max.into());
            put("min_client_response_size", min.into());
            later.into_iter().for_each(|(name, value)| put(name, value.into()));
        }
        "ruok" => {}
        "server_stats" | "stats" => {
            let figures = service.figures();
            put("version", VERSION.into());
            put("read_only", false.into());
            put("server_stats", server_stats(service, around));
            put("client_response", sizes(figures.answers));
            if let Role::Leader(leading) = &around.role {
                put("proposal_stats", sizes(leading.proposals));
            }
            put("node_count", figures.znodes.into());
            if name == "stats" {
                let clients = service.connection_figures();
                put("connections", clients.iter().map(|client| connection(client, true)).collect());
                put("secure_connections", json!([]));
            }
        }
        "voting_view" => put("current_config", voting_view(around.membership)),
        "watch_summary" => {
            let by_session = service.watched_by_session();
            put("num_connections", by_session.len().into());
            put("num_paths", service.watchers_by_path().len().into());
            put("num_total_watches", by_session.values().map(Vec::len).sum::<usize>().into());
        }
        "watches" => {
            let watched = service.watched_by_session().into_iter();
            put(
                "session_id_to_watched_paths",
                watched.map(|(session, paths)| (session.0.to_string(), json!(paths))).collect(),
            );
        }
        "watches_by_path" => {
            let watchers = service.watchers_by_path().into_iter();
            put(
                "path_to_session_ids",
                watchers.map(|(path, those)| (path.to_owned(), numbers(those))).collect(),
            );
        }
        "zabstate" => {
            let (is_voter, state) = match (&around.membership, &around.role) {
                (Some(membership), Role::Looking) => (!membership.is_observer, "election"),
                (Some(membership), _) => (!membership.is_observer, "broadcast"),
                (None, _) => (false, ""),
            };
            put("voting", is_voter.into());
            put("zabstate", state.into());
        }
        _ => {}
    }
    Ok(())
}

fn millis(time: std::time::Duration) -> Value {
    (time.as_millis() as u64).into()
}

fn numbers(sessions: Vec<SessionId>) -> Value {
    sessions.into_iter().map(|session| Value::from(session.0)).collect()
}

fn sizes(sizes: Sizes) -> Value {
    let Sizes { last, min, max } = sizes;
    json!({ "last_buffer_size": last, "min_buffer_size": min, "max_buffer_size": max })
}

fn server_stats(service: &Service, around: &Surroundings<'_>) -> Value {
    let figures = service.figures();
    json!({
        "packets_sent": figures.sent,
        "packets_received": figures.received,
        "max_latency": figures.latency.max_ms,
        "min_latency": figures.latency.min_ms,
        // Nothing is acknowledged before its fsync, so none is counted as late.
        "fsync_threshold_exceed_count": 0,
        "client_response_stats": sizes(figures.answers),
        "data_dir_size": directory_bytes(&around.data_path()),
        "log_dir_size": directory_bytes(&around.log_path()),
        "last_processed_zxid": figures.zxid.0,
        "outstanding_requests": figures.outstanding,
        "avg_latency": figures.latency.average_ms(),
        "server_state": around.role.name(),
        "num_alive_client_connections": around.connections,
        "provider_null": false,
    })
}

fn connection(client: &ConnectionFigures, is_brief: bool) -> Value {
    let mut out = json!({
        "remote_socket_address": client.peer.to_string(),
        "interest_ops": 1,
        "outstanding_requests": client.queued,
        "packets_received": client.received,
        "packets_sent": client.sent,
    });
    if let (Value::Object(fields), false) = (&mut out, is_brief) {
        let more = json!({
            "session_id": client.session.0,
            "last_operation": client.last_op,
            "established": client.since_wall_ms,
            "session_timeout": client.timeout_ms,
            "last_cxid": client.last_xid,
            "last_zxid": client.last_zxid.0,
            "last_response_time": client.last_answer_ms,
            "last_latency": client.last_latency_ms,
            "min_latency": client.latency.min_ms,
            "avg_latency": client.latency.average_ms(),
            "max_latency": client.latency.max_ms,
        });
        if let Value::Object(more) = more {
            fields.extend(more);
        }
    }
    out
}

fn voting_view(membership: Option<&Membership>) -> Value {
    let members = membership.into_iter().flat_map(|membership| &membership.members);
    let voters = members.filter(|member| !member.is_observer).map(|member| {
        let Member { id, quorum, election_port, client, .. } = member;
        let view = json!({
            "server_addresses": [quorum],
            "election_addresses": [format!("{}:{election_port}", host(quorum))],
            "client_address": client.as_deref().unwrap_or_default(),
            "learner_type": member.kind(),
        });
        (id.to_string(), view)
    });
    voters.collect()
}

/// `host` of `host:port`.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}
