//! Frames off a socket: the length is checked before anything is kept for it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OwnedSemaphorePermit;

/// A request's bytes, without the length, and its share of the broker's limits.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) _memory: OwnedSemaphorePermit,
    pub(crate) _place: OwnedSemaphorePermit,
}

/// Grows with what arrives: who announces a lot and sends nothing gets no memory for it.
const GROWTH: usize = 1 << 20;

/// Reads exactly `length` bytes.
pub(crate) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(GROWTH));
    let mut limited = stream.take(length as u64);
    while bytes.len() < length {
        if bytes.len() == bytes.capacity() {
            bytes.reserve((length - bytes.len()).min(bytes.len().max(GROWTH)));
        }
        if limited.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_come_whole_and_no_longer_than_announced() {
        let data: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let mut stream = &data[..];
        let body = read_body(&mut stream, 2_500_000).await.unwrap();
        assert_eq!((body.len(), stream.len()), (2_500_000, 500_000));
        assert_eq!(body, data[..2_500_000]);
        let error = read_body(&mut stream, 500_001).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_announced_gigabyte_costs_nothing_until_it_arrives() {
        let mut stream = &b"few"[..];
        assert!(read_body(&mut stream, 1 << 30).await.is_err());
    }
}
