//! Frames off a socket: the length is checked before anything is kept for it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};

use super::memory::{Memory, Share};

/// A request's bytes, without the length, and its share of the broker's memory.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) _memory: Share,
    /// For what the bytes become when they are decoded.
    pub(crate) _decoded: Share,
}

/// Grows with what arrives: who announces a lot and sends nothing gets no memory for it.
const GROWTH: usize = 1 << 20;

/// How long a client may take within a frame: between two of its bytes, and over all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) stall: Duration,
    pub(crate) whole: Duration,
}

/// Reads the rest of a frame of `length` bytes, of which `start` was read. Memory is taken as the
/// bytes arrive; waiting for it is not the client's fault and costs it nothing.
pub(crate) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    start: &[u8],
    length: usize,
    memory: &Memory,
    patience: Patience,
) -> io::Result<(Vec<u8>, Share)> {
    let first = length.min(GROWTH);
    let mut share = memory.take(first).await;
    let mut bytes = Vec::with_capacity(first);
    bytes.extend_from_slice(start);
    let mut limited = stream.take((length - start.len()) as u64);
    let mut left = patience.whole;
    while bytes.len() < length {
        if bytes.len() == bytes.capacity() {
            let more = (length - bytes.len()).min(bytes.len().max(GROWTH));
            memory.grow(&mut share, more).await;
            bytes.reserve_exact(more);
        }
        let began = Instant::now();
        let read = timeout(patience.stall.min(left), limited.read_buf(&mut bytes)).await;
        if read.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(began.elapsed());
    }
    Ok((bytes, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { stall: Duration::from_secs(10), whole: Duration::from_secs(60) };

    #[tokio::test]
    async fn bodies_come_whole_and_no_longer_than_announced() {
        let memory = Memory::new(1 << 20);
        let data: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let mut stream = &data[2..];
        let start = &data[..2];
        let (body, share) =
            read_body(&mut stream, start, 2_500_000, &memory, PATIENCE).await.unwrap();
        assert_eq!((body.len(), stream.len()), (2_500_000, 500_000));
        assert_eq!(body, data[..2_500_000]);
        drop(share);
        let error = read_body(&mut stream, &[], 500_001, &memory, PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_announced_gigabyte_costs_nothing_until_it_arrives() {
        let memory = Memory::new(1 << 20);
        let mut stream = &b"few"[..];
        assert!(read_body(&mut stream, &[], 1 << 30, &memory, PATIENCE).await.is_err());
    }

    #[tokio::test]
    async fn who_stalls_is_left_and_holds_up_nobody() {
        let memory = Memory::new(4 << 20);
        let short = Patience { stall: Duration::from_millis(20), ..PATIENCE };
        // Three announce far more than there is, and send nothing.
        let mut ends: Vec<_> = (0..3).map(|_| tokio::io::duplex(64)).collect();
        let mut stalled: Vec<_> = ends
            .iter_mut()
            .map(|(ours, _)| Box::pin(read_body(ours, &[], 90 << 20, &memory, short)))
            .collect();
        for one in &mut stalled {
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(one.as_mut().poll(context).is_pending())
            });
            assert!(poll.await);
        }
        // They are not polled meanwhile: if this waited for them it would wait for ever.
        let mut stream = &[7u8; 1 << 20][..];
        let read = read_body(&mut stream, &[], 1 << 20, &memory, PATIENCE);
        timeout(Duration::from_secs(60), read).await.unwrap().unwrap();
        for one in stalled {
            assert_eq!(one.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }
}
