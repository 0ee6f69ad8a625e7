//! Finding the bytes of a JSON string that do not stand for themselves, eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The place, from `at` on, of the first quote, backslash or control character; the length where
/// there is none.
#[inline]
pub(super) fn next_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(Ok(chunk)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let word = u64::from_le_bytes(chunk);
        // Each term has the high bit of the lowest byte that fits; above that it may be wrong.
        let is_control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = word ^ (ONES * b'"' as u64);
        let is_quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = word ^ (ONES * b'\\' as u64);
        let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
        let found = (is_control | is_quote | is_backslash) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < bytes.len() && !(bytes[at] < 0x20 || bytes[at] == b'"' || bytes[at] == b'\\') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(bytes in prop::collection::vec(any::<u8>(), 0..40), from in 0usize..40) {
            let from = from.min(bytes.len());
            let is_special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            let wanted = bytes[from..].iter().position(is_special).map_or(bytes.len(), |at| from + at);
            prop_assert_eq!(next_special(&bytes, from), wanted);
        }

        #[test]
        fn it_passes_over_long_plain_runs(length in 0usize..64, byte in 0x20u8..=255) {
            prop_assume!(byte != b'"' && byte != b'\\');
            let mut bytes = vec![byte; length];
            prop_assert_eq!(next_special(&bytes, 0), length);
            bytes.push(b'\\');
            prop_assert_eq!(next_special(&bytes, 0), length);
        }
    }
}
