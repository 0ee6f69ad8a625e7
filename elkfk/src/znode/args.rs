//! The command line of `elkfk znode`, with the flags of zkCli.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Znode {
    /// The servers, ours or a ZooKeeper's, and a path that all others are below
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…[/PATH]",
        default_value = "127.0.0.1:2181"
    )]
    pub(crate) zookeeper: String,
    /// Authenticates with this name and password (scheme digest)
    #[arg(long, global = true, value_name = "USER:PASSWORD")]
    pub(crate) auth: Option<String>,
    /// Prints JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: ZnodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ZnodeCommand {
    /// Names of the children, one a line
    Ls {
        #[arg(default_value = "/")]
        path: String,
        /// Also the stat of the parent
        #[arg(short)]
        stat: bool,
        /// Paths of all that is below
        #[arg(short = 'R')]
        recursive: bool,
    },
    /// The data, byte by byte; to a terminal with a line's end
    Get {
        path: String,
        /// Also the stat
        #[arg(short)]
        stat: bool,
    },
    /// Versions, times, zxids and sizes, as zkCli writes them
    Stat { path: String },
    /// Everything below, with the bytes of each and of what is below it
    Tree {
        #[arg(default_value = "/")]
        path: String,
        /// Levels that are shown; the sizes are of all
        #[arg(short = 'L', long, value_name = "N")]
        depth: Option<usize>,
    },
    /// What happens to a znode and its children, a line an event, until Ctrl-C
    Watch {
        path: String,
        /// Ends after so many events
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Changes the data
    #[command(group = ArgGroup::new("given").args(["text", "data_file"]).required(true))]
    Set {
        path: String,
        #[command(flatten)]
        data: Data,
        /// Only if the data has this version
        #[arg(short, value_name = "VERSION")]
        version: Option<i32>,
        /// Also prints the stat
        #[arg(short)]
        stat: bool,
    },
    /// Creates a znode and prints its path
    Create {
        path: String,
        #[command(flatten)]
        data: Data,
        /// Goes with the session: it is held until Ctrl-C
        #[arg(short, conflicts_with = "container")]
        ephemeral: bool,
        /// Adds ten digits to the name, larger than those of its elder siblings
        #[arg(short, conflicts_with = "container")]
        sequential: bool,
        /// Goes some time after its last child has gone
        #[arg(short)]
        container: bool,
        /// Goes when it has no child and was not set for so many milliseconds, where the server allows that
        #[arg(short, value_name = "MS", conflicts_with_all = ["container", "ephemeral"], value_parser = clap::value_parser!(i64).range(1..))]
        ttl: Option<i64>,
        /// Creates what is missing above it, too
        #[arg(short, long)]
        parents: bool,
        /// Who may do what: world:anyone:cdrwa, digest:USER:HASH:rw, auth::cdrwa, ip:10.0.0.0/8:r, joined by
        /// commas [default: everyone everything]
        #[arg(long, value_name = "SCHEME:ID:PERMS,…")]
        acl: Option<String>,
    },
    /// Deletes a znode without children
    Delete {
        path: String,
        /// Only if the data has this version
        #[arg(short, value_name = "VERSION", conflicts_with = "recursive")]
        version: Option<i32>,
        /// Also everything below
        #[arg(short)]
        recursive: bool,
    },
}

/// The data of a znode.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Data {
    /// The data; "" is none, as is nothing for a znode that is created
    #[arg(value_name = "DATA")]
    pub(crate) text: Option<String>,
    /// Takes the data from a file instead; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) data_file: Option<PathBuf>,
}
