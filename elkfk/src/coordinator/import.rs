//! `elkfk coordinator import`: from a ZooKeeper's files to ours.

use anyhow::{Context, Result};
use elkfk_coordinator::{ImportConfig, Zxid};

use super::args::Import;
use crate::say::{asideln, sayln};

pub(super) fn run(args: Import) -> Result<()> {
    let Import { from, log_dir, to, to_log_dir, zxid } = args;
    let config = ImportConfig { from, log_dir, to, to_log_dir, until: zxid.map(Zxid) };
    let done = elkfk_coordinator::import(&config)
        .with_context(|| format!("import {}", config.from.display()))?;
    for warning in &done.warnings {
        asideln!("{warning}");
    }
    let base = match &done.snapshot {
        Some(path) => path.display().to_string(),
        None => "no snapshot".to_owned(),
    };
    sayln!("read      {base} and {} transactions after it", done.transactions);
    sayln!(
        "imported  {} znodes and {} session{}, up to zxid {}",
        done.znodes,
        done.sessions,
        if done.sessions == 1 { "" } else { "s" },
        done.zxid
    );
    if done.sessions > 0 {
        sayln!(
            "          the {} cannot be resumed, as passwords are made otherwise here: each ends with its {} ephemerals after its timeout",
            if done.sessions == 1 { "session" } else { "sessions" },
            done.ephemerals
        );
    }
    sayln!("wrote     {}", done.written.display());
    sayln!(
        "next      a zoo.cfg with dataDir={}, and: elkfk coordinator zoo.cfg",
        config.to.display()
    );
    Ok(())
}
