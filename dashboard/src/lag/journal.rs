//! How the history stands on disk: records that can be told whole from torn. Pure: bytes in, bytes out.
//!
//! A file is the magic and then records of length, CRC-32 and payload, numbers in little endian:
//!
//! ```text
//! 1 id:u32 group:text topic:text          a series and its number in this file
//! 2 at_ms:i64 (id:u32 4×value:f32)*       a window that closed
//! 3 json                                  a mark
//! ```

use std::collections::BTreeMap;

use super::history::{Closed, Grain, Series, Values};

pub(super) const MAGIC: &[u8; 8] = b"elkfkhi1";
/// No record is larger; a larger length is damage.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Series in one record of kind 2.
const POINTS_MAX: usize = 2_000;

const SERIES: u8 = 1;
const POINTS: u8 = 2;
const MARK: u8 = 3;

/// The numbers of series in one file.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: BTreeMap<Series, u32>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) closed: Vec<Closed>,
    pub(super) marks: Vec<Vec<u8>>,
    pub(super) names: Names,
    /// Up to here the file is whole.
    pub(super) whole_bytes: usize,
}

/// Reads as far as the records are whole.
pub(super) fn read(bytes: &[u8], grain: Grain) -> Read {
    let mut read = Read::default();
    if !bytes.starts_with(MAGIC) {
        return read;
    }
    let mut names: BTreeMap<u32, Series> = BTreeMap::new();
    read.whole_bytes = MAGIC.len();
    while let Some(payload) = record(&bytes[read.whole_bytes..]) {
        if take(payload, grain, &mut names, &mut read).is_none() {
            break;
        }
        read.whole_bytes += 8 + payload.len();
    }
    read.names.ids = names.into_iter().map(|(id, series)| (series, id)).collect();
    read
}

fn record(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let crc = u32_at(bytes, 4)?;
    let payload = bytes.get(8..8usize.checked_add(length)?)?;
    (length <= RECORD_BYTES_MAX && crc32fast::hash(payload) == crc).then_some(payload)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn take(
    payload: &[u8],
    grain: Grain,
    names: &mut BTreeMap<u32, Series>,
    read: &mut Read,
) -> Option<()> {
    let (kind, rest) = payload.split_first()?;
    match *kind {
        SERIES => {
            let id = u32_at(rest, 0)?;
            let (group, rest) = text(rest.get(4..)?)?;
            let (topic, _) = text(rest)?;
            names.insert(id, (group, topic));
        }
        POINTS => {
            let at_ms = i64::from_le_bytes(rest.get(..8)?.try_into().ok()?);
            for point in rest[8..].chunks_exact(20) {
                let value = |n: usize| u32_at(point, 4 + n * 4).map(f32::from_bits);
                let values: Values = [value(0)?, value(1)?, value(2)?, value(3)?];
                if let Some(series) = names.get(&u32_at(point, 0)?) {
                    let series = series.clone();
                    read.closed.push(Closed { grain, at_ms, series, values });
                }
            }
        }
        MARK => read.marks.push(rest.to_vec()),
        // Of a later program: left as it is.
        _ => {}
    }
    Some(())
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let length = usize::from(u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?));
    let text = bytes.get(2..2 + length)?;
    Some((String::from_utf8_lossy(text).into_owned(), &bytes[2 + length..]))
}

/// The records of windows that closed; with the names of series that this file does not know yet.
pub(super) fn write_closed(names: &mut Names, closed: &[Closed], out: &mut Vec<u8>) {
    let mut windows: BTreeMap<i64, Vec<(u32, Values)>> = BTreeMap::new();
    for one in closed {
        let next = names.ids.len() as u32;
        let id = *names.ids.entry(one.series.clone()).or_insert_with(|| {
            let mut payload = vec![SERIES];
            payload.extend(next.to_le_bytes());
            for name in [&one.series.0, &one.series.1] {
                // Kafka's names are no longer than some hundred bytes.
                let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
                payload.extend((name.len() as u16).to_le_bytes());
                payload.extend(name);
            }
            write(&payload, out);
            next
        });
        windows.entry(one.at_ms).or_default().push((id, one.values));
    }
    for (at_ms, points) in windows {
        for points in points.chunks(POINTS_MAX) {
            let mut payload = vec![POINTS];
            payload.extend(at_ms.to_le_bytes());
            for (id, values) in points {
                payload.extend(id.to_le_bytes());
                values.iter().for_each(|value| payload.extend(value.to_bits().to_le_bytes()));
            }
            write(&payload, out);
        }
    }
}

pub(super) fn write_mark(json: &[u8], out: &mut Vec<u8>) {
    let mut payload = vec![MARK];
    payload.extend(json);
    write(&payload, out);
}

fn write(payload: &[u8], out: &mut Vec<u8>) {
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(crc32fast::hash(payload).to_le_bytes());
    out.extend(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn closed(at_ms: i64, topic: &str, lag: f32) -> Closed {
        let series = ("sink".to_owned(), topic.to_owned());
        Closed { grain: Grain::TenSeconds, at_ms, series, values: [lag, 1.0, 2.0, 3.0] }
    }

    fn file() -> (Vec<u8>, Vec<Closed>) {
        let (mut names, mut bytes) = (Names::default(), MAGIC.to_vec());
        let mut all = Vec::new();
        for window in 0..5 {
            let closed = [closed(window * 10_000, "logs", 1.0), closed(window * 10_000, "é", 2.0)];
            write_closed(&mut names, &closed, &mut bytes);
            all.extend(closed);
        }
        write_mark(b"{}", &mut bytes);
        (bytes, all)
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, all) = file();
        let read = read(&bytes, Grain::TenSeconds);
        assert_eq!((read.closed, read.whole_bytes), (all, bytes.len()));
        assert_eq!(read.marks, [b"{}"]);
        assert_eq!(read.names.ids.len(), 2);
    }

    #[test]
    fn a_torn_tail_costs_only_itself() {
        let (bytes, all) = file();
        for cut in MAGIC.len()..bytes.len() {
            let read = read(&bytes[..cut], Grain::TenSeconds);
            assert!(read.whole_bytes <= cut);
            assert_eq!(read.closed, all[..read.closed.len()]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes, Grain::TenSeconds);
            bytes.splice(0..0, *MAGIC);
            read(&bytes, Grain::FiveMinutes);
            let mut whole = MAGIC.to_vec();
            write(&bytes, &mut whole);
            read(&whole, Grain::FiveMinutes);
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in 8usize..200, bit in 0u8..8) {
            let (mut bytes, all) = file();
            let at = at % bytes.len();
            bytes[at.max(8)] ^= 1 << bit;
            let read = read(&bytes, Grain::TenSeconds);
            prop_assert!(read.whole_bytes <= at.max(8));
            prop_assert_eq!(&read.closed[..], &all[..read.closed.len()]);
        }
    }
}
