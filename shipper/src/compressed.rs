//! Rotated files that were compressed, read as the stream they hold.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::disk::Disk;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Gzip,
    Zstd,
    Bzip2,
}

impl Codec {
    /// By the first bytes of a file; its name does not matter.
    pub(crate) fn of(first: &[u8]) -> Option<Self> {
        match first {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Some(Self::Bzip2),
            _ => None,
        }
    }
}

/// The bytes within a compressed file, in order.
pub(crate) struct Stream {
    decoder: Box<dyn Read + Send>,
    position: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn open<D>(disk: &D, file: Arc<D::File>) -> io::Result<Option<Self>>
    where
        D: Disk + Clone + Send + 'static,
        D::File: Send + Sync + 'static,
    {
        let mut first = [0; 8];
        let length = disk.read_at(&file, 0, &mut first)?;
        let Some(codec) = Codec::of(&first[..length]) else { return Ok(None) };
        let raw = Raw { disk: disk.clone(), file, at: 0 };
        let decoder: Box<dyn Read + Send> = match codec {
            Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(raw))),
            Codec::Zstd => Box::new(zstd::stream::read::Decoder::new(raw)?),
            Codec::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(io::BufReader::new(raw))),
        };
        Ok(Some(Self { decoder, position: 0 }))
    }

    /// The first bytes within, up to `length`. An error while the file is too short to tell; none
    /// where it is not compressed.
    pub(crate) fn head<D>(
        disk: &D,
        file: Arc<D::File>,
        length: usize,
    ) -> io::Result<Option<Vec<u8>>>
    where
        D: Disk + Clone + Send + 'static,
        D::File: Send + Sync + 'static,
    {
        let Some(mut stream) = Self::open(disk, file)? else { return Ok(None) };
        let mut head = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match stream.read(&mut head[filled..])? {
                0 => break,
                bytes => filled += bytes,
            }
        }
        head.truncate(filled);
        Ok(Some(head))
    }

    /// Whether the stream goes to its end: a file that is still being written does not.
    pub(crate) fn is_whole<D>(disk: &D, file: Arc<D::File>) -> bool
    where
        D: Disk + Clone + Send + 'static,
        D::File: Send + Sync + 'static,
    {
        let whole = || -> io::Result<bool> {
            let Some(mut stream) = Self::open(disk, file)? else { return Ok(false) };
            let mut buffer = vec![0; 64 << 10];
            while stream.read(&mut buffer)? > 0 {}
            Ok(true)
        };
        whole().unwrap_or(false)
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Fills `into` as far as the stream goes. What was read before an error is not lost: the
    /// error comes with the next call.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.decoder.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// Moves on to `position`; false when the stream ends before.
    pub(crate) fn skip_to(&mut self, position: u64) -> io::Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        while self.position < position {
            let wanted = (position - self.position).min(buffer.len() as u64) as usize;
            if self.read(&mut buffer[..wanted])? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Raw<D: Disk> {
    disk: D,
    file: Arc<D::File>,
    at: u64,
}

impl<D: Disk> Read for Raw<D> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.disk.read_at(&self.file, self.at, into)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}
