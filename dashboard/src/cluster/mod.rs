//! Shell: asks the cluster for its topics, their ends and sizes, and who leads what.

mod facts;
pub(crate) mod topics;

use std::sync::Arc;
use std::time::Duration;

use elkfk_broker_client::{ClientError, ListedOffsets, LogSizes, OffsetAt, TopicPartition};
use tokio::time::Instant;
use tracing::debug;

use crate::{Shared, hold, now_ms};
pub(crate) use facts::{Facts, PartitionFacts, TopicFacts};

/// A small cluster is looked at this often, one of more partitions the less often the more there are, so
/// that watching it costs the same.
const EVERY_MIN: Duration = Duration::from_secs(5);
const EVERY_MAX: Duration = Duration::from_secs(60);
const PARTITIONS_PER_SECOND: usize = 200;
/// Where partitions begin, and how large they are, changes slowly.
const SLOWLY: Duration = Duration::from_secs(60);
/// The offsets of no more than these are asked for.
const PARTITIONS_MAX: usize = 50_000;

/// What is asked for now and then.
#[derive(Debug, Default)]
struct Slow {
    starts: Arc<ListedOffsets>,
    sizes: Arc<LogSizes>,
    at: Option<Instant>,
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut slow = Slow::default();
    loop {
        let begun = Instant::now();
        let looked = tokio::select! {
            () = shared.tasks.stopping() => return,
            looked = look(&shared, &mut slow) => looked,
        };
        let before = hold(&shared.cluster).clone();
        let facts = match looked {
            Ok(facts) => {
                hold(&shared.marks).see_cluster(&facts);
                facts
            }
            Err(error) => {
                debug!(%error, "the cluster cannot be asked for its topics");
                Facts { why: Some(error), ..Facts::clone(&before) }
            }
        };
        let seconds = facts.partitions() / PARTITIONS_PER_SECOND;
        let every = Duration::from_secs(seconds as u64).clamp(EVERY_MIN, EVERY_MAX);
        *hold(&shared.cluster) = Arc::new(facts);
        tokio::select! {
            () = shared.tasks.stopping() => return,
            // A first look that failed is tried again soon: pages wait for it.
            () = tokio::time::sleep_until(begun + if before.at_ms == 0 { EVERY_MIN / 5 } else { every }) => {}
        }
    }
}

/// The error is for the page.
async fn look(shared: &Shared, slow: &mut Slow) -> Result<Facts, String> {
    let told = |error: ClientError| error.in_one_line();
    let client = &shared.client;
    let cluster = client.metadata(None).await.map_err(told)?;
    let places: Vec<TopicPartition> = cluster
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|one| TopicPartition::new(topic.name.as_str(), one.index))
        })
        .take(PARTITIONS_MAX)
        .collect();
    let is_old = slow.at.is_none_or(|at| at.elapsed() >= SLOWLY);
    if is_old || places.iter().any(|place| !slow.starts.contains_key(place)) {
        slow.starts = Arc::new(client.list_offsets(&places, OffsetAt::Start).await.map_err(told)?);
    }
    if is_old {
        // A broker may refuse to tell sizes: they are then unknown.
        slow.sizes = Arc::new(client.log_sizes().await.unwrap_or_default());
        slow.at = Some(Instant::now());
    }
    let ends = client.list_offsets(&places, OffsetAt::End).await.map_err(told)?;
    let before = hold(&shared.cluster).clone();
    let (starts, sizes, now_ms) = (slow.starts.clone(), slow.sizes.clone(), now_ms());
    // Apart from the runtime: of ten thousand partitions it takes some tens of milliseconds.
    let work = move || Facts::of(&before, now_ms, &cluster, &starts, &ends, &sizes);
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}
