//! The servers of the ensemble, as `/zookeeper/config` has them, and how clients change them.
//!
//! A change is decided like any other write. The agreement then follows, one server at a time: the
//! leader sees that its members are not yet those the znode lists. A second change waits for that.

use std::borrow::Cow;

use elkfk_wire::jute::{ErrorCode, EventKind, Request, Response, perms};

use super::{Event, Machine, Rules};
use crate::consensus::Members;
use crate::ensemble::{self, Server};
use crate::tree::{Change, Identity, Tree, is_permitted};

const CONFIG_PATH: &str = "/zookeeper/config";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ensemble {
    /// By their ids.
    pub(crate) servers: Vec<Server>,
    /// The zxid of the change that made it; 0 for what zoo.cfg says.
    pub(crate) version: i64,
}

impl Ensemble {
    /// What the znode says; `None` where it says nothing.
    pub(super) fn of(tree: &Tree) -> Option<Self> {
        let text = str::from_utf8(tree.get(CONFIG_PATH)?.data()?).ok()?;
        let mut ensemble = Self { servers: Vec::new(), version: 0 };
        for line in text.lines() {
            match line.split_once('=')? {
                ("version", version) => {
                    ensemble.version = i64::from_str_radix(version, 16).ok()?;
                }
                (key, value) => {
                    let id = key.strip_prefix("server.")?.parse().ok()?;
                    ensemble.servers.push(Server::parse(id, value).ok()?);
                }
            }
        }
        (!ensemble.servers.is_empty()).then_some(ensemble)
    }

    pub(crate) fn text(servers: &[Server], version: i64) -> String {
        let lines: String = servers.iter().map(|server| format!("{server}\n")).collect();
        format!("{lines}version={version:x}")
    }

    pub(crate) fn members(&self) -> Members {
        let own = self.servers.first().map_or(0, |server| server.id);
        ensemble::members(&self.servers, own)
    }
}

impl Machine {
    /// Takes what zoo.cfg lists, while no client has changed it.
    pub(super) fn list_servers(&mut self, change: Change, text: &str, events: &mut Vec<Event>) {
        if self.servers.as_ref().is_none_or(|ensemble| ensemble.version == 0) {
            self.set_config(change, text, events);
        }
    }

    fn set_config(&mut self, change: Change, text: &str, events: &mut Vec<Event>) {
        let Some(id) = self.tree.find(CONFIG_PATH) else { return };
        self.tree.set_data(change, id, Some(text.as_bytes()), &mut Vec::new());
        let (path, acl) = (CONFIG_PATH.to_owned(), self.tree.node(id).acl.clone());
        events.push(Event { kind: EventKind::DataChanged, path, acl });
        self.servers = Ensemble::of(&self.tree);
    }

    pub(super) fn reconfigure(
        &mut self,
        change: Change,
        rules: Rules,
        identities: &[Identity<'_>],
        request: &Request<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Response<'static>, ErrorCode> {
        let Request::Reconfig { joining, leaving, members, config_version } = request else {
            return Err(ErrorCode::Unimplemented);
        };
        if !rules.reconfig {
            return Err(ErrorCode::ReconfigDisabled);
        }
        // A server alone has nobody to agree with.
        let current = self.servers.clone().ok_or(ErrorCode::Unimplemented)?;
        let followed = current.members();
        if self.members.as_ref().is_some_and(|members| *members != followed) {
            return Err(ErrorCode::ReconfigInProgress);
        }
        if *config_version != -1 && *config_version != current.version {
            return Err(ErrorCode::BadVersion);
        }
        let servers = changed(current.servers, joining, leaving, members)?;
        if servers.len() < 2 || servers.iter().all(|server| server.is_observer) {
            return Err(ErrorCode::NewConfigNoQuorum);
        }
        // Last, as in ZooKeeper: whoever asks for what cannot be is told that, whoever it is.
        let id = self.tree.find(CONFIG_PATH).ok_or(ErrorCode::NoNode)?;
        if !is_permitted(&self.tree.node(id).acl, perms::WRITE, identities) {
            return Err(ErrorCode::NoAuth);
        }
        // ZooKeeper would take more; here a byte of each session's number says the server.
        if servers.iter().any(|server| server.id > 255) {
            return Err(ErrorCode::BadArguments);
        }
        self.set_config(change, &Ensemble::text(&servers, change.zxid.0), events);
        // From the first change on it is known what the agreement has to follow from.
        self.members = Some(followed);
        let node = self.tree.node(id);
        let data = node.data().map(|data| Cow::Owned(data.to_vec()));
        Ok(Response::Data(data, node.stat()))
    }
}

/// The servers after a change; of those listed, a later one replaces an earlier of the same id.
fn changed(
    servers: Vec<Server>,
    joining: &Option<Cow<'_, str>>,
    leaving: &Option<Cow<'_, str>>,
    members: &Option<Cow<'_, str>>,
) -> Result<Vec<Server>, ErrorCode> {
    let (mut servers, joining) = match members {
        Some(_) if joining.is_some() || leaving.is_some() => return Err(ErrorCode::BadArguments),
        Some(members) => (Vec::new(), Some(members)),
        None => (servers, joining.as_ref()),
    };
    let entries = |text: &str| -> Vec<String> {
        let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::to_owned).collect()
    };
    for entry in leaving.as_deref().map(entries).unwrap_or_default() {
        let id: u64 = entry.parse().map_err(|_| ErrorCode::BadArguments)?;
        servers.retain(|server| server.id != id);
    }
    for entry in joining.map(|text| entries(text)).unwrap_or_default() {
        let (key, value) = entry.split_once('=').ok_or(ErrorCode::BadArguments)?;
        if key == "version" {
            continue;
        }
        let id = key.strip_prefix("server.").and_then(|id| id.parse().ok());
        let id: u64 = id.filter(|id| *id > 0).ok_or(ErrorCode::BadArguments)?;
        let server = Server::parse(id, value).map_err(|_| ErrorCode::BadArguments)?;
        let address = (&server.host, server.peer_port);
        if servers.iter().any(|one| one.id != id && (&one.host, one.peer_port) == address) {
            return Err(ErrorCode::BadArguments);
        }
        servers.retain(|one| one.id != id);
        servers.push(server);
    }
    servers.sort_unstable_by_key(|server| server.id);
    Ok(servers)
}
