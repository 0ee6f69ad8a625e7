//! Cutting frames out of a stream: four bytes of length, then as many of body.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length before each frame.
pub const LENGTH_SIZE: usize = 4;

/// Why a stream holds no frame. It cannot go on after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame length {length} is negative")]
    Negative { length: i32 },
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    TooLarge { length: usize, limit: usize },
}

/// Takes the first frame's body out of `buffer`; `None` means that bytes are missing.
///
/// Nothing is reserved for a frame that is announced: the buffer grows with what arrives.
///
/// # Errors
///
/// If the announced length is negative or above `limit` bytes.
pub fn next(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH_SIZE>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let length = usize::try_from(length).map_err(|_| FrameError::Negative { length })?;
    if length > limit {
        return Err(FrameError::TooLarge { length, limit });
    }
    if buffer.len() - LENGTH_SIZE < length {
        return Ok(None);
    }
    buffer.advance(LENGTH_SIZE);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let stream = [0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for cut in 0..stream.len() {
            let mut buffer = BytesMut::from(&stream[..cut]);
            let mut frames = Vec::new();
            while let Some(frame) = next(&mut buffer, 2).unwrap() {
                frames.push(frame);
            }
            buffer.extend_from_slice(&stream[cut..]);
            while let Some(frame) = next(&mut buffer, 2).unwrap() {
                frames.push(frame);
            }
            assert_eq!(frames, [&[1u8, 2][..], &[], &[9]]);
        }
    }

    #[test]
    fn announced_length_is_checked_before_the_body_arrives() {
        let mut huge = BytesMut::from(&[0x7f, 0xff, 0xff, 0xff][..]);
        let refused = next(&mut huge, 100).unwrap_err();
        assert_eq!(refused, FrameError::TooLarge { length: 0x7fff_ffff, limit: 100 });
        let mut negative = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(next(&mut negative, 100), Err(FrameError::Negative { length: -1 }));
    }
}
