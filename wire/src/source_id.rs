//! Where a record came from: the generation of a file and the place of its line within it.
//!
//! The shipper puts it into each record's header [`HEADER`]; the sink uses its text as the `_id` of
//! the document, so that a line read twice or sent twice is indexed once.

use std::fmt;

/// Name of the record header that carries a [`SourceId`].
pub const HEADER: &str = "elkfk.source";

/// Length of a source id in bytes.
pub const SOURCE_ID_BYTES: usize = 20;
const TEXT_CHARS: usize = 27;

/// One life of a file: from creation, or from a truncation, to the next.
///
/// Six bytes of milliseconds since 1970 when it was first seen, then six random ones, so that
/// generations sort by age: an index can tell from the prefix that an id is newer than all it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub [u8; 12]);

impl Generation {
    /// `random` supplies the low 48 bits.
    pub fn new(first_seen_ms: u64, random: u64) -> Self {
        let mut bytes = [0; 12];
        bytes[..6].copy_from_slice(&first_seen_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random.to_be_bytes()[2..]);
        Self(bytes)
    }

    pub fn first_seen_ms(self) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(bytes)
    }
}

/// A line of one generation, by the position of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId {
    pub generation: Generation,
    /// In bytes from the start of the generation.
    pub position: u64,
}

/// Base64 digits in the order of their bytes, so that texts sort as the ids do; safe in URLs.
const DIGITS: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

impl SourceId {
    pub fn to_bytes(self) -> [u8; SOURCE_ID_BYTES] {
        let mut bytes = [0; SOURCE_ID_BYTES];
        bytes[..12].copy_from_slice(&self.generation.0);
        bytes[12..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    /// `None` unless `bytes` has exactly the length of a source id.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SOURCE_ID_BYTES] = bytes.try_into().ok()?;
        let (generation, position) = (bytes[..12].try_into().ok()?, bytes[12..].try_into().ok()?);
        Some(Self { generation: Generation(generation), position: u64::from_be_bytes(position) })
    }

    /// The text as ASCII bytes, without allocating.
    pub fn to_text(self) -> [u8; TEXT_CHARS] {
        let bytes = self.to_bytes();
        let mut text = [0; TEXT_CHARS];
        for (i, digit) in text.iter_mut().enumerate() {
            let bit = i * 6;
            let high = u16::from(bytes[bit / 8]) << 8;
            let low = bytes.get(bit / 8 + 1).copied().map_or(0, u16::from);
            *digit = DIGITS[usize::from((high | low) >> (10 - bit % 8) & 63)];
        }
        text
    }

    /// The inverse of [`SourceId::to_text`]; `None` for anything it never writes.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_CHARS {
            return None;
        }
        let (mut bytes, mut held, mut bits, mut at) = ([0; SOURCE_ID_BYTES], 0u32, 0, 0);
        for digit in text {
            held = held << 6 | DIGITS.binary_search(digit).ok()? as u32;
            bits += 6;
            if bits >= 8 && at < SOURCE_ID_BYTES {
                bits -= 8;
                bytes[at] = (held >> bits) as u8;
                held &= (1 << bits) - 1;
                at += 1;
            }
        }
        (held == 0).then(|| Self::from_bytes(&bytes)).flatten()
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_text().iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_id() -> impl Strategy<Value = SourceId> {
        (any::<[u8; 12]>(), any::<u64>()).prop_map(|(generation, position)| SourceId {
            generation: Generation(generation),
            position,
        })
    }

    proptest! {
        #[test]
        fn bytes_and_text_round_trip(id in any_id()) {
            prop_assert_eq!(SourceId::from_bytes(&id.to_bytes()), Some(id));
            prop_assert_eq!(SourceId::from_text(&id.to_text()), Some(id));
        }

        #[test]
        fn texts_sort_as_ids_do(a in any_id(), b in any_id()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn any_text_is_refused_or_canonical(text in "[-0-9A-Z_a-z]{27}") {
            if let Some(id) = SourceId::from_text(text.as_bytes()) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn a_generation_remembers_when_it_was_first_seen() {
        let generation = Generation::new(1_772_323_200_000, u64::MAX);
        assert_eq!(generation.first_seen_ms(), 1_772_323_200_000);
    }
}
