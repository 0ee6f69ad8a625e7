//! Reading Kafka's types from bytes that nobody vouches for.
//!
//! Every length is held against what remains before anything is allocated for it.

use std::borrow::Cow;

use super::Uuid;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{wanted} bytes wanted, {remaining} remain")]
    Truncated { wanted: usize, remaining: usize },
    #[error("length {length} is negative")]
    NegativeLength { length: i64 },
    #[error("{count} elements cannot be in {remaining} bytes")]
    TooMany { count: usize, remaining: usize },
    #[error("null where the version has no null")]
    Null,
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("a variable-length number is longer than its type")]
    VarintTooLong,
    #[error("API {api_key} has no version {version} here")]
    UnsupportedVersion { api_key: i16, version: i16 },
    #[error("{remaining} bytes follow the message")]
    Trailing { remaining: usize },
}

/// A position in bytes. Cheap to copy, so that a caller can look ahead.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! big_endian {
    ($($name:ident)*) => {
        $(
            /// A number, big-endian.
            pub fn $name(&mut self) -> Result<$name, DecodeError> {
                Ok($name::from_be_bytes(self.fixed()?))
            }
        )*
    };
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes have not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// # Errors
    ///
    /// If something remains.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            remaining => Err(DecodeError::Trailing { remaining }),
        }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Truncated { wanted: len, remaining: self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { wanted: N, remaining: self.rest.len() });
        };
        self.rest = rest;
        Ok(*taken)
    }

    big_endian! { i8 i16 u16 i32 u32 i64 f64 }

    /// Any byte but 0 is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid(self.fixed()?))
    }

    /// A number of up to five bytes, seven bits in each, the lowest first.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            if shift == 28 && byte > 0x0f {
                return Err(DecodeError::VarintTooLong);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// A length in the form that strings have; `None` is null.
    fn string_length(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        if compact { self.compact_length() } else { plain_length(self.i16()?.into()) }
    }

    /// A length in the form that bytes and arrays have; `None` is null.
    fn sequence_length(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        if compact { self.compact_length() } else { plain_length(self.i32()?.into()) }
    }

    /// One more than the length, so that 0 is null.
    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self.unsigned_varint()?.checked_sub(1).map(|n| n as usize))
    }

    pub fn nullable_string(&mut self, compact: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let Some(len) = self.string_length(compact)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| DecodeError::NotUtf8)?;
        Ok(Some(Cow::Borrowed(text)))
    }

    pub fn string(&mut self, compact: bool) -> Result<Cow<'a, str>, DecodeError> {
        self.nullable_string(compact)?.ok_or(DecodeError::Null)
    }

    pub fn nullable_bytes(&mut self, compact: bool) -> Result<Option<Cow<'a, [u8]>>, DecodeError> {
        let Some(len) = self.sequence_length(compact)? else { return Ok(None) };
        Ok(Some(Cow::Borrowed(self.take(len)?)))
    }

    pub fn bytes(&mut self, compact: bool) -> Result<Cow<'a, [u8]>, DecodeError> {
        self.nullable_bytes(compact)?.ok_or(DecodeError::Null)
    }

    /// An array whose elements take at least `element_size_min` bytes each.
    ///
    /// A count that cannot be in what remains is refused before anything is allocated.
    pub fn nullable_array<T>(
        &mut self,
        compact: bool,
        element_size_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.sequence_length(compact)? else { return Ok(None) };
        let remaining = self.rest.len();
        if count > remaining / element_size_min.max(1) {
            return Err(DecodeError::TooMany { count, remaining });
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    pub fn array<T>(
        &mut self,
        compact: bool,
        element_size_min: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(compact, element_size_min, element)?.ok_or(DecodeError::Null)
    }

    /// Hands each tagged field to `field`, which reads it or leaves it.
    pub(crate) fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let len = self.unsigned_varint()? as usize;
            let mut value = Self::new(self.take(len)?);
            field(tag, &mut value)?;
        }
        Ok(())
    }

    pub(crate) fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(()))
    }
}

/// -1 is null; other negative lengths are mistakes.
fn plain_length(length: i64) -> Result<Option<usize>, DecodeError> {
    match length {
        -1 => Ok(None),
        _ => match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) => Err(DecodeError::NegativeLength { length }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_varint(bytes: &[u8], expected: Result<u32, DecodeError>) {
        assert_eq!(Reader::new(bytes).unsigned_varint(), expected, "{bytes:02x?}");
    }

    #[test]
    fn varints_end_within_five_bytes() {
        check_varint(&[0], Ok(0));
        check_varint(&[0x7f], Ok(127));
        check_varint(&[0xac, 0x02], Ok(300));
        check_varint(&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX));
        check_varint(&[0xff, 0xff, 0xff, 0xff, 0x1f], Err(DecodeError::VarintTooLong));
        check_varint(&[0x80], Err(DecodeError::Truncated { wanted: 1, remaining: 0 }));
    }

    #[test]
    fn announced_count_is_held_against_what_remains() {
        let mut r = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0, 0]);
        assert_eq!(
            r.array(false, 2, |r| r.i16()),
            Err(DecodeError::TooMany { count: 0x7fff_ffff, remaining: 2 })
        );
    }

    #[test]
    fn null_and_negative_lengths_differ() {
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_string(false), Ok(None));
        assert_eq!(Reader::new(&[0xff, 0xff]).string(false), Err(DecodeError::Null));
        let negative = Reader::new(&[0xff, 0xfe]).nullable_string(false);
        assert_eq!(negative, Err(DecodeError::NegativeLength { length: -2 }));
    }
}
