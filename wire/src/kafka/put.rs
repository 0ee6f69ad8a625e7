//! Writing Kafka's types.

use super::EncodeError;

/// The compact form holds one more than the length, in 32 bits; the plain form 31 or 15 bits.
const COMPACT_MAX: usize = u32::MAX as usize - 1;

pub(crate) fn unsigned_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn string(
    out: &mut Vec<u8>,
    compact: bool,
    text: &str,
    field: &'static str,
) -> Result<(), EncodeError> {
    let too_long = EncodeError::TooLong { field, len: text.len() };
    if compact {
        compact_length(out, text.len(), too_long)?;
    } else {
        let len = i16::try_from(text.len()).map_err(|_| too_long)?;
        out.extend_from_slice(&len.to_be_bytes());
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

pub(crate) fn bytes(
    out: &mut Vec<u8>,
    compact: bool,
    bytes: &[u8],
    field: &'static str,
) -> Result<(), EncodeError> {
    count(out, compact, bytes.len(), field)?;
    out.extend_from_slice(bytes);
    Ok(())
}

/// The length of bytes or of an array.
pub(crate) fn count(
    out: &mut Vec<u8>,
    compact: bool,
    len: usize,
    field: &'static str,
) -> Result<(), EncodeError> {
    let too_long = EncodeError::TooLong { field, len };
    if compact {
        return compact_length(out, len, too_long);
    }
    let len = i32::try_from(len).map_err(|_| too_long)?;
    out.extend_from_slice(&len.to_be_bytes());
    Ok(())
}

pub(crate) fn null_string(out: &mut Vec<u8>, compact: bool) {
    if compact {
        out.push(0);
    } else {
        out.extend_from_slice(&(-1i16).to_be_bytes());
    }
}

/// Null in place of bytes or of an array.
pub(crate) fn null_sequence(out: &mut Vec<u8>, compact: bool) {
    if compact {
        out.push(0);
    } else {
        out.extend_from_slice(&(-1i32).to_be_bytes());
    }
}

fn compact_length(out: &mut Vec<u8>, len: usize, too_long: EncodeError) -> Result<(), EncodeError> {
    if len > COMPACT_MAX {
        return Err(too_long);
    }
    unsigned_varint(out, len as u32 + 1);
    Ok(())
}

/// Tagged fields of one struct, in the order of their tags.
#[derive(Debug, Default)]
pub(crate) struct Tagged {
    fields: Vec<(u32, Vec<u8>)>,
}

impl Tagged {
    /// Where to write the value of `tag`.
    pub(crate) fn start(&mut self, tag: u32) -> &mut Vec<u8> {
        self.fields.push((tag, Vec::new()));
        &mut self.fields.last_mut().expect("just pushed").1
    }

    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        unsigned_varint(out, self.fields.len() as u32);
        for (tag, value) in self.fields {
            unsigned_varint(out, tag);
            unsigned_varint(out, value.len() as u32);
            out.extend_from_slice(&value);
        }
    }
}
