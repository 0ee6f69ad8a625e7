//! Frames: an `i32` length and that many bytes.

/// ZooKeeper's default of `jute.maxbuffer`.
pub const DEFAULT_FRAME_BYTES_MAX: usize = 0xfffff;

/// Why a connection cannot go on: after such a length there is no next frame to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame announces {0} bytes")]
    Negative(i32),
    #[error("frame announces {announced_bytes} bytes, jute.maxbuffer is {limit_bytes}")]
    TooLarge { announced_bytes: usize, limit_bytes: usize },
}

/// The first frame's content in `bytes`, or `None` while it is not all there.
///
/// Whoever takes it drops `4 + content.len()` bytes. A length over the limit is told from its four
/// bytes alone, so nothing is gathered for it.
pub fn frame_in(bytes: &[u8], limit_bytes: usize) -> Result<Option<&[u8]>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let announced_bytes = usize::try_from(length).map_err(|_| FrameError::Negative(length))?;
    if announced_bytes > limit_bytes {
        return Err(FrameError::TooLarge { announced_bytes, limit_bytes });
    }
    Ok(rest.get(..announced_bytes))
}

/// Starts a frame at the end of `out`; [`end_frame`] with the returned place completes it.
pub fn start_frame(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; 4]);
    out.len()
}

/// Writes the length of the frame whose content began at `start`.
pub fn end_frame(out: &mut [u8], start: usize) {
    let length = i32::try_from(out.len() - start).expect("a frame below 2 GiB");
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
}
