//! Jute's primitives: integers, booleans, buffers, strings and vectors.

use std::borrow::Cow;

/// Why bytes are not the record they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("record ends {missing_bytes} bytes early")]
    Truncated { missing_bytes: usize },
    #[error("length {0} is neither -1 nor within the frame")]
    Length(i32),
    #[error("string is not valid UTF-8")]
    Utf8,
    #[error("a value is missing where none may be")]
    Null,
    #[error("operation {0} cannot stand here")]
    Operation(i32),
}

/// Reads primitives off the front of a slice, borrowing from it.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(DecodeError::Truncated { missing_bytes: count - self.rest.len() }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.u8()? != 0)
    }

    /// `None` is Java's null, which ZooKeeper keeps apart from the empty buffer.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let bytes = usize::try_from(length).map_err(|_| DecodeError::Length(length))?;
        if bytes > self.rest.len() {
            return Err(DecodeError::Length(length));
        }
        self.take(bytes).map(Some)
    }

    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, DecodeError> {
        self.buffer()?.map(|bytes| str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)).transpose()
    }

    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        self.nullable_string()?.ok_or(DecodeError::Null)
    }

    /// A vector whose elements take at least `element_bytes_min` bytes each; `None` is Java's null.
    ///
    /// The count is checked against what remains before anything is allocated.
    pub fn vector<T>(
        &mut self,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let count = self.i32()?;
        if count == -1 {
            return Ok(None);
        }
        let length = usize::try_from(count).map_err(|_| DecodeError::Length(count))?;
        if length > self.rest.len() / element_bytes_min {
            return Err(DecodeError::Length(count));
        }
        let mut elements = Vec::with_capacity(length);
        for _ in 0..length {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// A vector of strings; null counts as empty.
    pub fn strings(&mut self) -> Result<Vec<Cow<'a, str>>, DecodeError> {
        Ok(self.vector(4, |reader| reader.string().map(Cow::Borrowed))?.unwrap_or_default())
    }
}

pub fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Lengths over `i32::MAX` cannot come up: what we hold came in frames, and those are smaller.
fn put_length(out: &mut Vec<u8>, length: usize) {
    put_i32(out, i32::try_from(length).expect("a length within a frame"));
}

pub fn put_buffer(out: &mut Vec<u8>, buffer: Option<&[u8]>) {
    match buffer {
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => put_i32(out, -1),
    }
}

pub fn put_string(out: &mut Vec<u8>, string: &str) {
    put_buffer(out, Some(string.as_bytes()));
}

pub fn put_strings<S: AsRef<str>>(out: &mut Vec<u8>, strings: &[S]) {
    put_length(out, strings.len());
    for string in strings {
        put_string(out, string.as_ref());
    }
}
