//! The command line of `elkfk coordinator`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Coordinator {
    /// zoo.cfg
    #[arg(value_name = "FILE", required = true, value_parser = zoo_cfg)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<CoordinatorCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Says whether servers run and which leads, ours or ZooKeeper's; exit status 1 where one does not serve
    Status(Status),
    /// Reads a ZooKeeper's data directory into one for this program; the ZooKeeper must be stopped
    Import(Import),
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The servers to ask; several get a line each
    #[arg(long, value_name = "HOST:PORT,…", default_value = "127.0.0.1:2181")]
    pub(crate) zookeeper: String,
    /// Asks the server of this zoo.cfg instead
    #[arg(long, value_name = "FILE", conflicts_with = "zookeeper")]
    pub(crate) config: Option<PathBuf>,
    /// One JSON document a server
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// ZooKeeper's dataDir
    #[arg(long, value_name = "ZK_DATA_DIR")]
    pub(crate) from: PathBuf,
    /// Its dataLogDir, where it has one
    #[arg(long, value_name = "ZK_LOG_DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// The dataDir for `elkfk coordinator`
    #[arg(long, value_name = "DATA_DIR")]
    pub(crate) to: PathBuf,
    /// Its dataLogDir, where it is to have one
    #[arg(long, value_name = "LOG_DIR")]
    pub(crate) to_log_dir: Option<PathBuf>,
    /// The last transaction that is taken, such as 0x100000a2b [default: all]
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    pub(crate) zxid: Option<i64>,
}

/// What looks like a command and is no file was mistyped.
fn zoo_cfg(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match text.bytes().all(|byte| byte.is_ascii_lowercase()) && !path.exists() {
        true => Err("it is neither a command (status, import) nor a file that is here".to_owned()),
        false => Ok(path),
    }
}

/// As ZooKeeper prints it, with or without 0x.
fn zxid(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match i64::from_str_radix(digits, 16) {
        Ok(zxid) if zxid >= 0 => Ok(zxid),
        _ => Err("a zxid is a number in hexadecimal, such as 0x100000a2b".to_owned()),
    }
}
