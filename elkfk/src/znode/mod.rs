//! `elkfk znode`: looks at and changes the znodes of a ZooKeeper, ours or a real one.

pub(crate) mod args;
mod print;
mod tree;
mod watch;

use std::io::{IsTerminal, Read};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use elkfk_coordinator_client::{Acl, Client, Config, CreateMode, Error, ErrorCode};
use serde_json::json;

use crate::say::{asideln, or_end};
use crate::signals;
use args::{Data, Znode, ZnodeCommand};

/// How long servers may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a session that ends with the command.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger than a server takes by default, so that it is the server that refuses.
const DATA_BYTES_MAX: u64 = 64 << 20;

/// False where the answer is no: there is no such znode, or the change was not made.
pub(crate) async fn run(args: Znode) -> Result<bool> {
    let config = config(&args)?;
    let at = args.zookeeper.as_str();
    let client = Client::connect(config).await.map_err(|error| not_connected(at, &error))?;
    let done = tokio::select! {
        () = signals::asked_to_stop() => Ok(()),
        done = carry_out(&args, &client) => done,
    };
    client.close().await;
    match done {
        Ok(()) => Ok(true),
        Err(error) => {
            match error.downcast_ref::<Error>().and_then(|error| answered_no(error, at)) {
                Some(text) => {
                    asideln!("{text}");
                    Ok(false)
                }
                None if error.is::<Error>() => Err(error.context(format!("ask {at}"))),
                None => Err(error),
            }
        }
    }
}

fn config(args: &Znode) -> Result<Config> {
    let mut config = Config::parse(&args.zookeeper)
        .with_context(|| format!("--zookeeper {}", args.zookeeper))?
        .with_session_timeout(SESSION_TIMEOUT);
    config.connect_timeout = CONNECT_TIMEOUT;
    // What others wrote with a larger jute.maxbuffer is shown too.
    config.reply_bytes_max = DATA_BYTES_MAX as usize;
    if let Some(auth) = &args.auth {
        if !auth.contains(':') {
            bail!("--auth {auth:?} has no password; give USER:PASSWORD");
        }
        config.auth.push(("digest".to_owned(), auth.clone().into_bytes()));
    }
    Ok(config)
}

fn not_connected(at: &str, error: &Error) -> anyhow::Error {
    match error {
        Error::AuthFailed => anyhow!("{at} refused --auth; give USER:PASSWORD"),
        error => anyhow!(
            "{error}; is a ZooKeeper or `elkfk coordinator` running at {at}, and a majority of its ensemble \
             (`elkfk coordinator status --zookeeper {at}`)? Give another address with --zookeeper HOST:PORT"
        ),
    }
}

/// What to say where the server understood and said no.
fn answered_no(error: &Error, at: &str) -> Option<String> {
    let code = match error {
        Error::Refused { code, .. } | Error::Multi { code, .. } => *code,
        Error::Path { path, .. } => {
            let remedy = "a path starts with / and does not end with it";
            return Some(format!("{path:?} is no path: {}; {remedy}", source(error)));
        }
        _ => return None,
    };
    let remedy = match code {
        ErrorCode::NoNode if is_creation(error) => {
            "create -p creates what is missing above it, too"
        }
        ErrorCode::NoNode => "`elkfk znode tree -L 2` shows what is there",
        ErrorCode::NodeExists => "`set` changes its data",
        ErrorCode::BadVersion => "someone has changed it; `stat` shows its version",
        ErrorCode::NotEmpty => "delete -r deletes what is below, too",
        ErrorCode::NoAuth => "authenticate with --auth USER:PASSWORD",
        ErrorCode::InvalidAcl => {
            "give SCHEME:ID:PERMS such as world:anyone:r, and --auth for auth::cdrwa"
        }
        ErrorCode::NoChildrenForEphemerals => "create it below a znode that is not ephemeral",
        ErrorCode::Unimplemented => {
            "this server does not know the operation; for -t it wants extendedTypesEnabled=true in its zoo.cfg"
        }
        _ => return Some(format!("{error} ({at})")),
    };
    Some(format!("{error} ({at}); {remedy}"))
}

fn is_creation(error: &Error) -> bool {
    matches!(error, Error::Refused { op, .. } if op.starts_with("create"))
}

fn source(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

async fn carry_out(args: &Znode, client: &Client) -> Result<()> {
    let is_json = args.json;
    match &args.command {
        ZnodeCommand::Ls { path, stat: _, recursive: true } => {
            let tree = tree::read(client, path).await?;
            let paths = tree.paths();
            match is_json {
                true => print::json(&json!({ "path": path, "paths": paths })),
                false => paths.iter().for_each(|path| or_end(&format!("{path}\n"))),
            }
        }
        ZnodeCommand::Ls { path, stat: with_stat, .. } => {
            let (mut names, stat) = client.children(path).await?;
            names.sort();
            if is_json {
                print::json(
                    &json!({ "path": path, "children": names, "stat": print::stat_json(&stat) }),
                );
                return Ok(());
            }
            names.iter().for_each(|name| or_end(&format!("{name}\n")));
            if *with_stat {
                or_end(&print::stat(&stat));
            }
        }
        ZnodeCommand::Get { path, stat: with_stat } => {
            let (data, stat) = client.get(path).await?;
            if is_json {
                let (key, value) = print::data_json(&data);
                print::json(&json!({ "path": path, key: value, "stat": print::stat_json(&stat) }));
                return Ok(());
            }
            print::bytes(&data);
            let ends_line = data.ends_with(b"\n") || data.is_empty();
            if !ends_line && (*with_stat || std::io::stdout().is_terminal()) {
                or_end("\n");
            }
            if *with_stat {
                or_end(&print::stat(&stat));
            }
        }
        ZnodeCommand::Stat { path } => {
            let Some(stat) = client.exists(path).await? else {
                let (op, path) = ("stat", path.clone());
                return Err(Error::Refused { op, path, code: ErrorCode::NoNode }.into());
            };
            match is_json {
                true => print::json(&json!({ "path": path, "stat": print::stat_json(&stat) })),
                false => or_end(&print::stat(&stat)),
            }
        }
        ZnodeCommand::Tree { path, depth } => {
            let tree = tree::read(client, path).await?;
            match is_json {
                true => print::json(&tree.json(depth.unwrap_or(usize::MAX))),
                false => or_end(&tree.text(depth.unwrap_or(usize::MAX))),
            }
        }
        ZnodeCommand::Watch { path, count } => watch::run(client, path, *count, is_json).await?,
        ZnodeCommand::Set { path, data, version, stat: with_stat } => {
            let stat = client.set(path, read(data)?, *version).await?;
            match is_json {
                true => print::json(&json!({ "path": path, "stat": print::stat_json(&stat) })),
                false if *with_stat => or_end(&print::stat(&stat)),
                false => {}
            }
        }
        ZnodeCommand::Create { .. } => create(args, client).await?,
        ZnodeCommand::Delete { path, version, recursive } => {
            let deleted = match recursive {
                true => tree::delete(client, path).await?,
                false => client.delete(path, *version).await.map(|()| 1)?,
            };
            match is_json {
                true => print::json(&json!({ "path": path, "deleted": deleted })),
                false if *recursive => or_end(&format!("{deleted} deleted\n")),
                false => {}
            }
        }
    }
    Ok(())
}

async fn create(args: &Znode, client: &Client) -> Result<()> {
    let ZnodeCommand::Create { path, data, ephemeral, sequential, container, ttl, parents, acl } =
        &args.command
    else {
        return Ok(());
    };
    let mode = match (*ephemeral, *sequential, *ttl) {
        _ if *container => CreateMode::Container,
        (_, true, Some(ttl_ms)) => CreateMode::PersistentSequentialWithTtl { ttl_ms },
        (_, false, Some(ttl_ms)) => CreateMode::PersistentWithTtl { ttl_ms },
        (true, true, None) => CreateMode::EphemeralSequential,
        (true, false, None) => CreateMode::Ephemeral,
        (false, true, None) => CreateMode::PersistentSequential,
        (false, false, None) => CreateMode::Persistent,
    };
    let acl = acl.as_deref().map_or_else(|| Ok(vec![Acl::OPEN]), parse_acl)?;
    let data = read(data)?;
    if *parents
        && let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty())
    {
        client.create_all(parent).await?;
    }
    let (created, stat) = client.create_with(path, Some(&data), &acl, mode).await?;
    match args.json {
        true => print::json(&json!({ "path": created, "stat": print::stat_json(&stat) })),
        false => or_end(&format!("{created}\n")),
    }
    if *ephemeral {
        asideln!("{created} is there until Ctrl-C");
        let mut state = client.state();
        // Ctrl-C ends this from outside.
        let over = state.wait_for(|state| state.is_over()).await;
        bail!("the session ended: {:?}", over.map(|state| state.clone()).ok());
    }
    Ok(())
}

fn read(data: &Data) -> Result<Vec<u8>> {
    let Some(file) = &data.data_file else {
        return Ok(data.text.clone().unwrap_or_default().into_bytes());
    };
    let mut bytes = Vec::new();
    let limit = DATA_BYTES_MAX + 1;
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
        false => {
            std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        }
    };
    read.with_context(|| format!("read {}", file.display()))?;
    if bytes.len() as u64 > DATA_BYTES_MAX {
        bail!("{} is larger than {DATA_BYTES_MAX} bytes; a znode holds 1 MiB", file.display());
    }
    Ok(bytes)
}

/// `scheme:id:perms` each, joined by commas; an id may hold colons.
fn parse_acl(text: &str) -> Result<Vec<Acl<'static>>> {
    text.split(',').map(|one| parse_one(one).with_context(|| format!("--acl {text}"))).collect()
}

fn parse_one(text: &str) -> Result<Acl<'static>> {
    let wanted = "give SCHEME:ID:PERMS, such as world:anyone:cdrwa";
    let (scheme, rest) = text.split_once(':').with_context(|| format!("{text:?}: {wanted}"))?;
    let (id, letters) = rest.rsplit_once(':').with_context(|| format!("{text:?}: {wanted}"))?;
    let mut perms = 0;
    for letter in letters.chars() {
        perms |= match letter {
            'r' => 1,
            'w' => 2,
            'c' => 4,
            'd' => 8,
            'a' => 16,
            _ => bail!("{letter:?} in {text:?} is no permission; they are c, d, r, w and a"),
        };
    }
    Ok(Acl { perms, scheme: scheme.to_owned().into(), id: id.to_owned().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_written_as_in_zkcli() {
        let acl = parse_acl("world:anyone:r,digest:bob:abc=:cdrwa").unwrap();
        assert_eq!((acl[0].perms, acl[0].id.as_ref()), (1, "anyone"));
        assert_eq!((acl[1].perms, acl[1].id.as_ref()), (31, "bob:abc="));
        assert_eq!(parse_acl("ip:10.0.0.0/8:rw").unwrap()[0].perms, 3);
        assert_eq!(parse_acl("auth::cdrwa").unwrap()[0].id, "");
        for (text, wanted) in [("world", "SCHEME:ID:PERMS"), ("world:anyone:rx", "'x' in")] {
            let error = format!("{:#}", parse_acl(text).unwrap_err());
            assert!(error.starts_with("--acl ") && error.contains(wanted), "{error}");
        }
    }
}
