//! The ladders of all that is watched, in bounded memory.
//!
//! Pure: the time is given.

use std::collections::BTreeMap;

use super::MEMORY_MS;
use crate::ladder::{Ladder, Parameters};

/// A group and a topic that it reads.
pub(crate) type Pair = (String, String);

/// What all ladders may hold: some 15,000 topics of 8 partitions, or 170 of 1,000.
pub(crate) const BYTES_MAX: usize = 256 << 20;
/// Where there is no room, ladders that were not asked for so long make some, the longest first. What they
/// knew of cooldowns is read again from the events at the next start.
const IDLE_MS: i64 = 3_600_000;

#[derive(Debug)]
struct Kept {
    ladder: Ladder,
    /// What it may come to hold.
    bytes: usize,
    asked_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Ladders {
    by_pair: BTreeMap<Pair, Kept>,
    /// Of all of them.
    bytes: usize,
    bytes_max: usize,
}

impl Ladders {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { by_pair: BTreeMap::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn clear(&mut self) {
        self.by_pair.clear();
        self.bytes = 0;
    }

    pub(crate) fn get_mut(&mut self, pair: &Pair) -> Option<&mut Ladder> {
        self.by_pair.get_mut(pair).map(|kept| &mut kept.ladder)
    }

    /// The ladder of `pair`, whose topic has so many partitions; a new one where there is none.
    ///
    /// # Errors
    ///
    /// There is no room: how much there may be, and what to do.
    pub(crate) fn of(
        &mut self,
        pair: &Pair,
        partitions: usize,
        now_ms: i64,
        parameters: &Parameters,
    ) -> Result<&mut Ladder, String> {
        let wanted = Ladder::bytes_max(partitions);
        loop {
            let held = self.by_pair.get(pair).map_or(0, |kept| kept.bytes);
            if self.bytes - held + wanted <= self.bytes_max {
                self.bytes = self.bytes - held + wanted;
                break;
            }
            let idle = self.by_pair.iter().filter(|(other, kept)| {
                *other != pair && kept.asked_ms.saturating_add(IDLE_MS) <= now_ms
            });
            let Some(longest) = idle.min_by_key(|(_, kept)| kept.asked_ms) else {
                return Err(format!(
                    "{} groups and topics are watched, whose figures take the {} MiB that there may be; \
                     name those to watch with --group and --topic",
                    self.by_pair.len(),
                    self.bytes_max >> 20
                ));
            };
            let longest = longest.0.clone();
            self.remove(&longest);
        }
        let kept = self.by_pair.entry(pair.clone()).or_insert_with(|| Kept {
            ladder: Ladder::new(pair.0.clone(), pair.1.clone(), parameters.clone()),
            bytes: 0,
            asked_ms: now_ms,
        });
        kept.bytes = wanted;
        kept.asked_ms = kept.asked_ms.max(now_ms);
        Ok(&mut kept.ladder)
    }

    /// Drops those of topics that are gone, and of groups that were not there for longer than any
    /// cooldown lasts.
    pub(crate) fn forget(&mut self, now_ms: i64, has_topic: impl Fn(&str) -> bool) {
        let gone: Vec<Pair> = self
            .by_pair
            .iter()
            .filter(|((_, topic), kept)| {
                !has_topic(topic) || kept.asked_ms.saturating_add(MEMORY_MS) <= now_ms
            })
            .map(|(pair, _)| pair.clone())
            .collect();
        gone.iter().for_each(|pair| self.remove(pair));
    }

    fn remove(&mut self, pair: &Pair) {
        if let Some(kept) = self.by_pair.remove(pair) {
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(group: &str) -> Pair {
        (group.to_owned(), "logs".to_owned())
    }

    #[test]
    fn what_is_watched_is_bounded_in_bytes_and_idle_ladders_make_room() {
        let mut ladders = Ladders::new(3 * Ladder::bytes_max(8));
        let parameters = Parameters::default();
        let mut of = |group: &str, partitions, now_ms| {
            ladders.of(&pair(group), partitions, now_ms, &parameters).map(drop)
        };
        for group in ["a", "b", "c"] {
            assert_eq!(of(group, 8, 0), Ok(()));
        }
        let why = of("d", 8, IDLE_MS - 1).unwrap_err();
        assert!(why.starts_with("3 groups and topics are watched") && why.contains("--group"));
        assert_eq!((of("b", 8, IDLE_MS), of("c", 8, 1)), (Ok(()), Ok(())));
        assert_eq!(of("d", 8, IDLE_MS), Ok(()), "in place of the one that was idle longest");
        assert!(of("b", 1000, IDLE_MS + 1).is_err(), "a topic that grows needs more");
        let names: Vec<_> = ladders.by_pair.keys().map(|(group, _)| group.as_str()).collect();
        assert_eq!(names, ["b", "d"]);
        assert_eq!(ladders.bytes, 2 * Ladder::bytes_max(8));
    }

    #[test]
    fn a_ladder_goes_with_its_topic_and_a_day_after_its_group() {
        let mut ladders = Ladders::new(BYTES_MAX);
        for (group, at_ms) in [("old", 0), ("new", 1)] {
            ladders.of(&pair(group), 1, at_ms, &Parameters::default()).unwrap();
        }
        ladders.forget(MEMORY_MS, |_| true);
        assert_eq!(ladders.by_pair.keys().collect::<Vec<_>>(), [&pair("new")]);
        ladders.forget(MEMORY_MS, |_| false);
        assert_eq!((ladders.by_pair.len(), ladders.bytes), (0, 0));
    }
}
