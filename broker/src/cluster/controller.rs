//! What the elected controller does: leaders for partitions, an end for deleted topics.
//!
//! Every write is conditional on `/controller_epoch`, so that a controller that was replaced
//! without noticing changes nothing.

use elkfk_coordinator_client::{Client, CreateMode, Op};
use tracing::{info, warn};

use super::image::{Image, NO_LEADER, PartitionState, Topic};
use super::{ClusterError, While, znodes};

/// The epoch of one election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) epoch: i32,
    /// Version of `/controller_epoch` during this term.
    version: i32,
}

/// Operations of one multi: some hundred stay far below ZooKeeper's `jute.maxbuffer`.
const OPS_MAX: usize = 300;

/// Tries to become the controller; `None` if another broker is.
pub(super) async fn elect(
    client: &Client,
    broker: i32,
    now_ms: i64,
) -> Result<Option<Term>, ClusterError> {
    let path = znodes::CONTROLLER_EPOCH;
    match client.create(path, b"0", CreateMode::Persistent).await {
        Err(error) if !error.is_node_exists() => {
            return Err(error).during("create the controller epoch");
        }
        _ => {}
    }
    let (data, stat) = client.get(path).await.during("read the controller epoch")?;
    let epoch: i32 = std::str::from_utf8(&data)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| ClusterError::Malformed { path: path.into() })?;
    let epoch = epoch + 1;
    let controller = znodes::encode_controller(broker, now_ms);
    let ops = [
        Op::create(znodes::CONTROLLER, controller, CreateMode::Ephemeral),
        Op::set(path, epoch.to_string(), Some(stat.version)),
    ];
    match client.multi(&ops).await {
        Ok(_) => {
            info!(epoch, "this broker is the controller");
            Ok(Some(Term { epoch, version: stat.version + 1 }))
        }
        Err(error) if error.is_node_exists() || error.is_bad_version() => Ok(None),
        Err(error) => Err(error).during("elect the controller"),
    }
}

/// Gives every partition of `topic` a leader that lives, and writes what changed.
///
/// Returns the topic as it then is, or `None` where nothing was to be done.
pub(super) async fn lead(
    client: &Client,
    term: Term,
    image: &Image,
    name: &str,
    topic: &Topic,
) -> Result<Option<Topic>, ClusterError> {
    let is_alive = |broker: &i32| image.brokers.contains_key(broker);
    let mut changed = topic.clone();
    let mut batches: Vec<Vec<Op>> = vec![Vec::new()];
    let mut has_directory = topic.partitions.iter().any(|partition| partition.version >= 0);
    for (number, partition) in changed.partitions.iter_mut().enumerate() {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let Some(next) = next_state(partition, term.epoch, &is_alive) else { continue };
        let mut ops = Vec::new();
        let json = znodes::encode_state(&next);
        if partition.version < 0 {
            if !has_directory {
                ops.push(bare(znodes::partitions(name)));
                has_directory = true;
            }
            ops.push(bare(znodes::partition(name, number)));
            ops.push(Op::create(znodes::state(name, number), json, CreateMode::Persistent));
        } else {
            ops.push(Op::set(znodes::state(name, number), json, Some(partition.version)));
        }
        // A new topic was logged when it was created.
        if partition.version >= 0 {
            info!(
                topic = name,
                partition = number,
                leader = next.leader,
                epoch = next.leader_epoch,
                "partition leader changed"
            );
        }
        *partition = PartitionState { version: partition.version + 1, ..next };
        if batches.last().is_some_and(|batch| batch.len() + ops.len() > OPS_MAX) {
            batches.push(Vec::new());
        }
        batches.last_mut().expect("one was put there").append(&mut ops);
    }
    batches.retain(|batch| !batch.is_empty());
    if batches.is_empty() {
        return Ok(None);
    }
    for batch in batches {
        write(client, term, batch).await.during("write partition states")?;
    }
    Ok(Some(changed))
}

fn bare(path: String) -> Op {
    let acl = vec![elkfk_coordinator_client::Acl::OPEN];
    Op::Create { path, data: None, acl, mode: CreateMode::Persistent }
}

async fn write(
    client: &Client,
    term: Term,
    mut ops: Vec<Op>,
) -> Result<(), elkfk_coordinator_client::Error> {
    ops.insert(0, Op::check(znodes::CONTROLLER_EPOCH, Some(term.version)));
    client.multi(&ops).await.map(drop)
}

/// The state a partition should have, if not the one it has.
fn next_state(
    partition: &PartitionState,
    controller_epoch: i32,
    is_alive: &impl Fn(&i32) -> bool,
) -> Option<PartitionState> {
    let replicas = partition.replicas.clone();
    if partition.version < 0 {
        // New: everyone who lives is in sync, for there is nothing to be behind of.
        let isr: Vec<i32> = partition.replicas.iter().copied().filter(|id| is_alive(id)).collect();
        let leader = *isr.first()?;
        return Some(PartitionState {
            replicas,
            leader,
            leader_epoch: 0,
            isr,
            controller_epoch,
            version: -1,
        });
    }
    if partition.leader != NO_LEADER && is_alive(&partition.leader) {
        return None;
    }
    // Only who was in sync may lead: another would lose what was acknowledged.
    let is_candidate = |id: &i32| partition.isr.contains(id) && is_alive(id);
    let leader = partition.replicas.iter().copied().find(is_candidate).unwrap_or(NO_LEADER);
    if leader == partition.leader {
        return None;
    }
    let isr: Vec<i32> = match leader {
        NO_LEADER => partition.isr.clone(),
        _ => partition.isr.iter().copied().filter(|id| is_alive(id)).collect(),
    };
    let leader_epoch = partition.leader_epoch + 1;
    Some(PartitionState {
        replicas,
        leader,
        leader_epoch,
        isr,
        controller_epoch,
        version: partition.version,
    })
}

/// Removes every trace of a topic from ZooKeeper; its name is free once this returns.
pub(super) async fn delete(client: &Client, term: Term, name: &str) -> Result<(), ClusterError> {
    let mut ops = Vec::new();
    let partitions = match client.children(&znodes::partitions(name)).await {
        Ok((partitions, _)) => Some(partitions),
        Err(error) if error.is_no_node() => None,
        Err(error) => return Err(error).during("delete a topic"),
    };
    for partition in partitions.iter().flatten() {
        let directory = format!("{}/{partition}", znodes::partitions(name));
        let state = format!("{directory}/state");
        if client.exists(&state).await.during("delete a topic")?.is_some() {
            ops.push(Op::delete(state, None));
        }
        ops.push(Op::delete(directory, None));
    }
    if partitions.is_some() {
        ops.push(Op::delete(znodes::partitions(name), None));
    }
    for batch in ops.chunks(OPS_MAX) {
        write(client, term, batch.to_vec()).await.during("delete a topic")?;
    }
    // The mark goes last: whoever takes over before then goes on deleting.
    for path in [znodes::topic(name), znodes::topic_config(name), znodes::delete_topic(name)] {
        match write(client, term, vec![Op::delete(path, None)]).await {
            Err(error) if !error.is_no_node() => return Err(error).during("delete a topic"),
            _ => {}
        }
    }
    info!(topic = name, "topic deleted");
    Ok(())
}

/// Takes back the mark of a topic that must not be deleted.
pub(super) async fn unmark(client: &Client, name: &str) -> Result<(), ClusterError> {
    warn!(topic = name, "topic is not deleted because delete.topic.enable=false");
    match client.delete(&znodes::delete_topic(name), None).await {
        Err(error) if !error.is_no_node() => Err(error).during("unmark a topic"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(leader: i32, isr: &[i32], version: i32) -> PartitionState {
        let (replicas, isr) = (vec![1, 2, 3], isr.to_vec());
        PartitionState { replicas, leader, leader_epoch: 4, isr, controller_epoch: 1, version }
    }

    fn check(partition: &PartitionState, alive: &[i32], expected: Option<(i32, i32, &[i32])>) {
        let next = next_state(partition, 9, &|id| alive.contains(id));
        let got = next.as_ref().map(|next| (next.leader, next.leader_epoch, &next.isr[..]));
        assert_eq!(got, expected);
    }

    #[test]
    fn only_in_sync_replicas_are_elected() {
        check(&state(1, &[1, 2], 3), &[1, 2, 3], None);
        check(&state(1, &[1, 2], 3), &[2, 3], Some((2, 5, &[2])));
        check(&state(1, &[1], 3), &[2, 3], Some((NO_LEADER, 5, &[1])));
        check(&state(NO_LEADER, &[1], 3), &[2, 3], None);
        check(&state(NO_LEADER, &[1], 3), &[1, 2], Some((1, 5, &[1])));
    }

    #[test]
    fn a_new_partition_starts_with_everyone_who_lives() {
        let new = PartitionState::unelected(vec![1, 2, 3]);
        check(&new, &[3, 2], Some((2, 0, &[2, 3])));
        check(&new, &[7], None);
    }
}
