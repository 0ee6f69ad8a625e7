//! Text encodings: where a line ends in the raw bytes, and how those become UTF-8.

use encoding_rs::{Encoding as Codec, UTF_8, UTF_16BE, UTF_16LE};

/// How the bytes of a file are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Invalid bytes are replaced.
    Utf8,
    Utf16Le,
    Utf16Be,
    /// Any encoding in which the byte 0x0A is a line feed and nothing else.
    Other(&'static Codec),
}

impl Encoding {
    /// By the names Beats knows: the W3C's labels and a few of its own.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "" | "plain" | "utf-8" | "utf8" | "utf-8-bom" | "nop" => Self::Utf8,
            "utf-16le" | "utf-16le-bom" | "utf-16-bom" | "utf-16" => Self::Utf16Le,
            "utf-16be" | "utf-16be-bom" => Self::Utf16Be,
            "hz-gb-2312" | "iso-2022-jp" => return None,
            other => match Codec::for_label(other.as_bytes())? {
                codec if codec == UTF_8 => Self::Utf8,
                codec if codec == UTF_16LE => Self::Utf16Le,
                codec if codec == UTF_16BE => Self::Utf16Be,
                codec => Self::Other(codec),
            },
        })
    }

    pub fn is_utf16(self) -> bool {
        matches!(self, Self::Utf16Le | Self::Utf16Be)
    }

    /// What a byte order mark at the start of a file says, and its length.
    pub fn of_byte_order_mark(bytes: &[u8]) -> Option<(Self, usize)> {
        match bytes {
            [0xef, 0xbb, 0xbf, ..] => Some((Self::Utf8, 3)),
            [0xff, 0xfe, ..] => Some((Self::Utf16Le, 2)),
            [0xfe, 0xff, ..] => Some((Self::Utf16Be, 2)),
            _ => None,
        }
    }

    /// Whether the 0x0A at `at` of a line whose bytes begin at `bytes[0]` ends it.
    ///
    /// A line begins at a whole character, so two-byte units are counted from its start.
    pub(super) fn is_line_end(self, bytes: &[u8], at: usize) -> LineEnd {
        match self {
            Self::Utf8 | Self::Other(_) => LineEnd::At { content: at, next: at + 1 },
            Self::Utf16Be if at % 2 == 1 && bytes[at - 1] == 0 => {
                LineEnd::At { content: at - 1, next: at + 1 }
            }
            Self::Utf16Le if at.is_multiple_of(2) => match bytes.get(at + 1) {
                Some(0) => LineEnd::At { content: at, next: at + 2 },
                Some(_) => LineEnd::No,
                None => LineEnd::Unknown,
            },
            _ => LineEnd::No,
        }
    }

    /// Appends `raw` as UTF-8 to `text`. Returns whether bytes had to be replaced.
    pub(super) fn decode(self, raw: &[u8], text: &mut Vec<u8>) -> bool {
        let codec = match self {
            Self::Utf8 => match std::str::from_utf8(raw) {
                Ok(_) => {
                    text.extend_from_slice(raw);
                    return false;
                }
                Err(_) => {
                    text.extend_from_slice(String::from_utf8_lossy(raw).as_bytes());
                    return true;
                }
            },
            Self::Utf16Le => UTF_16LE,
            Self::Utf16Be => UTF_16BE,
            Self::Other(codec) => codec,
        };
        let (decoded, replaced) = codec.decode_without_bom_handling(raw);
        text.extend_from_slice(decoded.as_bytes());
        replaced
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// Content ends before `content`, the next line begins at `next`.
    At {
        content: usize,
        next: usize,
    },
    No,
    /// The byte that decides is not there yet.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_beats_are_known() {
        for (name, encoding) in [
            ("plain", Encoding::Utf8),
            ("utf-16le-bom", Encoding::Utf16Le),
            ("utf-16be", Encoding::Utf16Be),
            ("latin1", Encoding::Other(encoding_rs::WINDOWS_1252)),
            ("gbk", Encoding::Other(encoding_rs::GBK)),
        ] {
            assert_eq!(Encoding::named(name), Some(encoding), "{name}");
        }
        assert_eq!(Encoding::named("ebcdic"), None);
    }

    #[test]
    fn a_line_feed_of_two_bytes_stands_on_its_unit() {
        // U+0A0A and U+010A hold the byte, not the character.
        let text: Vec<u8> = "\u{a0a}\u{10a}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let ends: Vec<_> = memchr::memchr_iter(b'\n', &text)
            .filter(|at| Encoding::Utf16Le.is_line_end(&text, *at) != LineEnd::No)
            .collect();
        assert_eq!(ends, [4]);
        assert_eq!(Encoding::Utf16Le.is_line_end(b"\n", 0), LineEnd::Unknown);
    }

    #[test]
    fn invalid_bytes_are_replaced_and_said() {
        let mut text = Vec::new();
        assert!(Encoding::Utf8.decode(b"a\xffb", &mut text));
        assert_eq!(text, "a\u{fffd}b".as_bytes());
        assert!(!Encoding::Other(encoding_rs::WINDOWS_1252).decode(b"\xe9", &mut text));
        assert!(text.ends_with("é".as_bytes()));
    }
}
