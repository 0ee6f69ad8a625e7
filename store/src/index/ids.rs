//! Whether an id is in the index already: exactly, and mostly without asking the index.
//!
//! Source ids (file generation and position) arrive nearly in order: per generation the intervals
//! of positions seen are kept, and an id outside them all is new. Ids made here are new. Any other
//! id is asked of a filter, and only where that says "maybe" of the term dictionaries.

use std::collections::HashMap;

use elkfk_wire::source_id::SourceId;

/// Generations remembered; one takes some 200 bytes.
const GENERATIONS_MAX: usize = 8192;
/// Intervals per generation; concurrent bulk requests of one file leave that many gaps at most.
const INTERVALS_MAX: usize = 16;
/// Bytes of a filter at most: 13 million ids at 10 bits each, beyond which it says "maybe" more often.
const FILTER_BYTES_MAX: usize = 16 << 20;

/// What is known of an id before the index is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// New: outside of what was seen of its file.
    Newer,
    /// New: not in the filter.
    NotInFilter,
    Maybe,
}

/// What one index remembers of its ids.
#[derive(Debug, Default)]
pub struct Ledger {
    generations: HashMap<[u8; 12], Intervals>,
    /// `None` until an id of another form comes.
    filter: Option<Filter>,
}

/// Disjoint, ascending, inclusive.
#[derive(Debug, Default, Clone)]
struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    fn contains(&self, position: u64) -> bool {
        let after = self.0.partition_point(|(low, _)| *low <= position);
        after > 0 && self.0[after - 1].1 >= position
    }

    /// Adds a position, to the interval that ends at `previous` if there is one.
    fn insert(&mut self, position: u64, previous: Option<u64>) {
        let after = self.0.partition_point(|(low, _)| *low <= position);
        if after > 0 && self.0[after - 1].1 >= position {
            return;
        }
        if after > 0 && Some(self.0[after - 1].1) == previous {
            self.0[after - 1].1 = position;
            return;
        }
        self.0.insert(after, (position, position));
        if self.0.len() > INTERVALS_MAX {
            // Closing the smallest gap loses the least knowledge, and never makes a seen id new.
            let gap = (1..self.0.len()).min_by_key(|i| self.0[*i].0 - self.0[i - 1].1).unwrap_or(1);
            let (_, high) = self.0.remove(gap);
            self.0[gap - 1].1 = high;
        }
    }
}

impl Ledger {
    /// Decides about `id` and remembers it as seen. `previous` is the last id of the same request.
    ///
    /// `bounds` finds the least and greatest position the index holds of a generation that is met
    /// for the first time; `all_ids` feeds every id of the index to a new filter.
    pub fn see(
        &mut self,
        id: &str,
        previous: Option<&str>,
        bounds: impl FnOnce(&SourceId) -> Option<(u64, u64)>,
        all_ids: impl FnOnce(&mut dyn FnMut(&[u8])),
        documents: u64,
    ) -> Known {
        if let Some(source) = SourceId::from_text(id.as_bytes()) {
            if self.generations.len() >= GENERATIONS_MAX
                && !self.generations.contains_key(&source.generation.0)
            {
                // What is forgotten is found again through `bounds`.
                self.generations.clear();
            }
            let intervals = self
                .generations
                .entry(source.generation.0)
                .or_insert_with(|| Intervals(bounds(&source).into_iter().collect()));
            if intervals.contains(source.position) {
                return Known::Maybe;
            }
            let previous = previous
                .and_then(|previous| SourceId::from_text(previous.as_bytes()))
                .filter(|previous| previous.generation == source.generation)
                .map(|previous| previous.position);
            intervals.insert(source.position, previous);
            return Known::Newer;
        }
        let filter = self.filter.get_or_insert_with(|| Filter::new(documents));
        if filter.is_empty() || filter.is_crowded() {
            if filter.is_crowded() {
                *filter = Filter::new(documents);
            }
            all_ids(&mut |id| {
                filter.insert(id);
            });
        }
        if filter.insert(id.as_bytes()) { Known::Maybe } else { Known::NotInFilter }
    }
}

/// A Bloom filter of blocks of 64 bytes, so that a question costs one cache line.
#[derive(Debug)]
struct Filter {
    blocks: Vec<[u64; 8]>,
    inserted: u64,
    capacity: u64,
}

impl Filter {
    fn new(documents: u64) -> Self {
        let capacity = (documents * 2).max(100_000);
        let blocks = (capacity as usize * 10 / 512 + 1).min(FILTER_BYTES_MAX / 64);
        Self { blocks: vec![[0; 8]; blocks], inserted: 0, capacity }
    }

    fn is_empty(&self) -> bool {
        self.inserted == 0
    }

    fn is_crowded(&self) -> bool {
        self.inserted > self.capacity && self.blocks.len() < FILTER_BYTES_MAX / 64
    }

    /// Whether `id` may have been inserted before.
    fn insert(&mut self, id: &[u8]) -> bool {
        let hash = hash(id);
        let block = ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize;
        let block = &mut self.blocks[block];
        let mut bits = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut is_known = true;
        for _ in 0..6 {
            let (word, bit) = ((bits >> 6 & 7) as usize, 1u64 << (bits & 63));
            is_known &= block[word] & bit != 0;
            block[word] |= bit;
            bits >>= 10;
        }
        self.inserted += u64::from(!is_known);
        is_known
    }
}

/// FNV-1a with a final mix; ids come from trusted programs, so no keyed hash is needed.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use elkfk_wire::source_id::Generation;
    use proptest::prelude::*;

    use super::*;

    fn source(generation: u64, position: u64) -> String {
        SourceId { generation: Generation::new(1_772_323_200_000, generation), position }
            .to_string()
    }

    #[test]
    fn ids_in_order_need_no_lookup() {
        let mut ledger = Ledger::default();
        let mut previous: Option<String> = None;
        for position in (0..100_000).step_by(100) {
            let id = source(1, position);
            assert_eq!(ledger.see(&id, previous.as_deref(), |_| None, |_| {}, 0), Known::Newer);
            previous = Some(id);
        }
        assert_eq!(ledger.see(&source(1, 300), None, |_| None, |_| {}, 0), Known::Maybe);
    }

    #[test]
    fn what_the_index_held_before_is_asked_for() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.see(&source(1, 50), None, |_| Some((0, 90)), |_| {}, 0), Known::Maybe);
        assert_eq!(ledger.see(&source(1, 91), None, |_| panic!("known"), |_| {}, 0), Known::Newer);
        let all = |feed: &mut dyn FnMut(&[u8])| feed(b"logs+0+1");
        assert_eq!(ledger.see("logs+0+1", None, |_| None, all, 1), Known::Maybe);
        assert_eq!(
            ledger.see("logs+0+2", None, |_| None, |_| panic!("full"), 1),
            Known::NotInFilter
        );
    }

    proptest! {
        #[test]
        fn a_seen_id_is_never_new(ids in prop::collection::vec((0u64..3, 0u64..200, any::<bool>()), 1..300)) {
            let (mut ledger, mut seen, mut previous) = (Ledger::default(), HashSet::new(), None::<String>);
            for (generation, position, is_source) in ids {
                let id = if is_source { source(generation, position) } else { format!("{generation}+{position}") };
                let known = ledger.see(&id, previous.as_deref(), |_| None, |_| {}, 0);
                prop_assert!(known == Known::Maybe || !seen.contains(&id), "{} was seen", id);
                seen.insert(id.clone());
                previous = Some(id);
            }
        }
    }
}
