//! The order in which Java's and Scala's maps hand out their keys.
//!
//! Kafka's tools print what such maps hold without sorting it, so the order of their lines is the
//! order of hash buckets. Who compares our output with theirs, or parses by line, finds the same.

/// `String.hashCode`: over UTF-16 units.
pub(crate) fn string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()))
}

/// `TopicPartition.hashCode`.
pub(crate) fn partition_hash(topic: &str, partition: i32) -> i32 {
    31i32.wrapping_add(partition).wrapping_mul(31).wrapping_add(string_hash(topic))
}

/// Sorts as a `java.util.HashMap` into which the items were put one by one would iterate.
///
/// `capacity` is what its constructor was given; 16 where nothing was.
pub(crate) fn java_hash_map<T>(items: &mut [T], capacity: usize, hash: impl Fn(&T) -> i32) {
    let mut buckets = capacity.max(1).next_power_of_two();
    while items.len() * 4 > buckets * 3 {
        buckets *= 2;
    }
    let mask = buckets as u32 - 1;
    // Items of one bucket keep their order: the sort is stable.
    items.sort_by_key(|item| {
        let hash = hash(item) as u32;
        (hash ^ (hash >> 16)) & mask
    });
}

/// Sorts as an immutable Scala 2.13 map made of the items would iterate.
///
/// Up to four it keeps their order; beyond, it is a trie over five bits of the hash at a time, of
/// which each node hands out its own entries before its children's.
pub(crate) fn scala_map<T>(items: &mut [T], hash: impl Fn(&T) -> i32) {
    if items.len() <= 4 {
        return;
    }
    let mut order: Vec<(u32, usize)> = items.iter().map(&hash).map(improve).zip(0..).collect();
    let mut sorted = Vec::with_capacity(items.len());
    walk(&mut order, 0, &mut sorted);
    let mut rank = vec![0; items.len()];
    for (position, index) in sorted.into_iter().enumerate() {
        rank[index] = position;
    }
    permute(items, rank);
}

/// `scala.collection.Hashing.improve`.
fn improve(hash: i32) -> u32 {
    let mut h = hash as u32;
    h = h.wrapping_add(!(h << 9));
    h ^= h >> 14;
    h = h.wrapping_add(h << 4);
    h ^ (h >> 10)
}

fn walk(node: &mut [(u32, usize)], shift: u32, out: &mut Vec<usize>) {
    if shift >= 32 {
        out.extend(node.iter().map(|(_, index)| *index));
        return;
    }
    node.sort_by_key(|(hash, _)| (hash >> shift) & 31);
    let same = |a: &(u32, usize), b: &(u32, usize)| (a.0 >> shift) & 31 == (b.0 >> shift) & 31;
    out.extend(node.chunk_by(same).filter(|group| group.len() == 1).map(|group| group[0].1));
    for group in node.chunk_by_mut(same).filter(|group| group.len() > 1) {
        walk(group, shift + 5, out);
    }
}

/// Moves each item to its rank.
fn permute<T>(items: &mut [T], mut rank: Vec<usize>) {
    for at in 0..items.len() {
        while rank[at] != at {
            let to = rank[at];
            items.swap(at, to);
            rank.swap(at, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_hash_as_in_java() {
        assert_eq!(string_hash(""), 0);
        assert_eq!(string_hash("hello"), 99_162_322);
    }

    #[test]
    fn settings_come_in_the_order_seen_from_kafka() {
        // peers/kafka/golden/031-topic-describe-all.txt, its first and last lines.
        let seen = [
            "compression.type",
            "leader.replication.throttled.replicas",
            "message.downconversion.enable",
            "min.insync.replicas",
            "segment.jitter.ms",
            "cleanup.policy",
            "flush.ms",
            "follower.replication.throttled.replicas",
            "segment.bytes",
            "retention.ms",
            "flush.messages",
            "message.format.version",
            "max.compaction.lag.ms",
            "file.delete.delay.ms",
            "max.message.bytes",
            "min.compaction.lag.ms",
            "message.timestamp.type",
            "preallocate",
            "min.cleanable.dirty.ratio",
            "index.interval.bytes",
            "unclean.leader.election.enable",
            "retention.bytes",
            "delete.retention.ms",
            "segment.ms",
            "message.timestamp.difference.max.ms",
            "segment.index.bytes",
        ];
        let mut sorted = seen;
        // Two of one bucket stay in the order in which the broker sent them.
        sorted.rotate_left(8);
        java_hash_map(&mut sorted, 16, |name| string_hash(name));
        assert_eq!(sorted, seen);
    }
}
