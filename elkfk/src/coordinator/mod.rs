//! `elkfk coordinator`: the box itself, and what is asked of it or done for it.

pub(crate) mod args;
mod import;
mod status;

use anyhow::{Result, bail};

use crate::alone;
use args::{Coordinator, CoordinatorCommand};

/// False where the answer is no.
pub(crate) async fn run(args: Coordinator) -> Result<bool> {
    match (args.command, args.config) {
        (Some(CoordinatorCommand::Status(args)), _) => status::run(args).await,
        (Some(CoordinatorCommand::Import(args)), _) => {
            tokio::task::spawn_blocking(|| import::run(args)).await?.map(|()| true)
        }
        (None, Some(file)) => alone::coordinator(&file).await.map(|()| true),
        (None, None) => bail!("no zoo.cfg is given"),
    }
}
