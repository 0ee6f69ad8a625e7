//! A transaction log: `ZKLG`, then transactions, each with its checksum, length and an end mark.
//!
//! Room is taken ahead in zeros, so a log ends where zeros begin. Pure: it is given the bytes.

use elkfk_wire::jute::{Reader, SessionId, Zxid};

use super::Malformed;

const MAGIC: &[u8; 4] = b"ZKLG";
const VERSION: i32 = 2;
/// Magic, version, database id.
const HEADER_BYTES: usize = 16;
/// Checksum and length.
const PREFIX_BYTES: usize = 12;
/// What every transaction has: session, cxid, zxid, time, type.
const TRANSACTION_BYTES_MIN: usize = 32;
/// After each transaction.
const END_MARK: u8 = 0x42;

#[derive(Debug)]
pub(super) struct Log<'a> {
    bytes: &'a [u8],
    at: usize,
    is_over: bool,
    torn: Option<(u64, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Of its checksum, in the file.
    pub(super) offset: u64,
    pub(super) transaction: &'a [u8],
}

impl<'a> Log<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut log = Self { bytes, at: HEADER_BYTES, is_over: false, torn: None };
        if bytes.iter().all(|byte| *byte == 0) {
            // A crash before the first byte was written.
            log.is_over = true;
            return Ok(log);
        }
        if !bytes.starts_with(MAGIC) {
            return Err("it does not begin with ZKLG");
        }
        let Some(version) = bytes.get(4..8) else {
            log.tear(0);
            return Ok(log);
        };
        if version != VERSION.to_be_bytes() {
            return Err("its version is not 2");
        }
        Ok(log)
    }

    /// The next transaction; `Some(Err)` with the place of one that is damaged. After that, and at the
    /// end, `None`.
    pub(super) fn next(&mut self) -> Option<Result<Entry<'a>, u64>> {
        if self.is_over {
            return None;
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if let Some(transaction) = whole(rest) {
            let offset = self.at as u64;
            self.at += PREFIX_BYTES + transaction.len() + 1;
            return Some(Ok(Entry { offset, transaction }));
        }
        self.is_over = true;
        if rest.iter().all(|byte| *byte == 0) {
            return None;
        }
        if (1..rest.len()).any(|at| whole(&rest[at..]).is_some()) {
            return Some(Err(self.at as u64));
        }
        self.tear(self.at);
        None
    }

    fn tear(&mut self, at: usize) {
        self.is_over = true;
        let bytes = self.bytes[at..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.torn = Some((at as u64, bytes));
    }

    /// Where the end was torn by a crash, and how many bytes that left.
    pub(super) fn torn(&self) -> Option<(u64, usize)> {
        self.torn
    }
}

/// The transaction that `bytes` begins with, if it is whole.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes.get(..PREFIX_BYTES)?);
    let (checksum, length) = (reader.i64().ok()?, reader.i32().ok()?);
    let length = usize::try_from(length).ok()?;
    if length < TRANSACTION_BYTES_MIN {
        return None;
    }
    let end = PREFIX_BYTES.checked_add(length)?;
    if *bytes.get(end)? != END_MARK {
        return None;
    }
    let transaction = &bytes[PREFIX_BYTES..end];
    (i64::from(adler32(transaction)) == checksum).then_some(transaction)
}

/// The checksum of zlib, which ZooKeeper uses for its files.
pub(super) fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    // So many bytes cannot overflow the sums between two divisions.
    const BLOCK_BYTES: usize = 5552;
    let (mut low, mut high) = (1u32, 0u32);
    for block in bytes.chunks(BLOCK_BYTES) {
        for byte in block {
            low += u32::from(*byte);
            high += low;
        }
        low %= MODULUS;
        high %= MODULUS;
    }
    high << 16 | low
}

/// What every transaction begins with.
#[derive(Debug, Clone)]
pub(super) struct Header<'a> {
    pub(super) session: SessionId,
    pub(super) zxid: Zxid,
    pub(super) time_ms: i64,
    pub(super) kind: i32,
    /// The record of its kind; newer ZooKeepers add a digest behind it.
    pub(super) body: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn read(transaction: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(transaction);
        let session = SessionId(reader.i64()?);
        let _cxid = reader.i32()?;
        let (zxid, time_ms) = (Zxid(reader.i64()?), reader.i64()?);
        Ok(Self { session, zxid, time_ms, kind: reader.i32()?, body: reader.rest() })
    }
}
