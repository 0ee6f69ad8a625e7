//! Shell: asks the store how it is, apart from the lag: a store that hangs must not hold that up.

use std::sync::Arc;
use std::time::Duration;

use elkfk_base::errors::in_one_line;

use crate::{Shared, hold};

const EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.tasks.stopping() => return,
            _ = ticks.tick() => {}
        }
        let health = tokio::select! {
            () = shared.tasks.stopping() => return,
            health = ask(&shared) => health,
        };
        *hold(&shared.store_health) = Some(health);
    }
}

async fn ask(shared: &Shared) -> Result<String, String> {
    let answer = tokio::time::timeout(TIMEOUT, shared.elastic.get("/_cluster/health")).await;
    match answer {
        Ok(Ok(health)) if health["status"] == "red" => Err("status red".to_owned()),
        // Yellow is what one node without replicas always is.
        Ok(Ok(_)) => Ok("answers".to_owned()),
        Ok(Err(error)) => Err(in_one_line(&error)),
        Err(_) => Err(format!("{} does not answer", shared.config.elasticsearch)),
    }
}
