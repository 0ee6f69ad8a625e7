//! Zigzag varints as records use them, and a reader that cannot leave its slice.

/// A value that ran past the end of its bytes, or a varint longer than its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn varlong(&mut self) -> Result<i64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(Malformed)
    }

    pub(super) fn varint(&mut self) -> Result<i32, Malformed> {
        let mut value = 0u32;
        for shift in (0..32).step_by(7) {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
            }
        }
        Err(Malformed)
    }

    /// A length and that many bytes; a length of -1 is null.
    pub(super) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| Malformed)?).map(Some),
        }
    }
}

pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i32) {
    let mut rest = ((value << 1) ^ (value >> 31)) as u32;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How many bytes [`put_varlong`] writes; the same for [`put_varint`] of the same number.
pub(super) fn varlong_bytes(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    ((64 - (zigzag | 1).leading_zeros()) as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(long: i64, int: i32) {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, long);
            prop_assert_eq!(bytes.len(), varlong_bytes(long));
            put_varint(&mut bytes, int);
            prop_assert_eq!(bytes.len(), varlong_bytes(long) + varlong_bytes(int.into()));
            let mut cursor = Cursor(&bytes);
            prop_assert_eq!(cursor.varlong(), Ok(long));
            prop_assert_eq!(cursor.varint(), Ok(int));
            prop_assert!(cursor.0.is_empty());
        }
    }

    #[test]
    fn an_endless_varint_is_malformed() {
        assert_eq!(Cursor(&[0xff; 20]).varlong(), Err(Malformed));
        assert_eq!(Cursor(&[0xff; 20]).varint(), Err(Malformed));
        assert_eq!(Cursor(&[0x80]).varint(), Err(Malformed));
    }
}
