//! Sets of characters: ASCII as a bit map, the rest by ranges and Unicode properties.

/// A set of characters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Class {
    /// Bit n: the character n is in.
    pub(crate) ascii: u128,
    pub(crate) other: Other,
}

/// Which characters beyond ASCII are in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Other {
    None,
    All,
    Range(char, char),
    Kind(Kind),
    Not(Box<Other>),
    Any(Vec<Other>),
    Both(Box<Other>, Box<Other>),
    /// In, or in when its case is changed.
    Fold(Box<Other>),
}

/// A Unicode property as POSIX brackets name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Alpha,
    Digit,
    Alnum,
    Upper,
    Lower,
    Space,
    Punct,
    Cntrl,
    Graph,
    Print,
    Word,
}

const fn span(from: u8, to: u8) -> u128 {
    let mut bits = 0;
    let mut at = from;
    while at <= to {
        bits |= 1 << at;
        at += 1;
    }
    bits
}

pub(crate) const DIGIT: u128 = span(b'0', b'9');
const UPPER: u128 = span(b'A', b'Z');
const LOWER: u128 = span(b'a', b'z');
pub(crate) const WORD: u128 = DIGIT | UPPER | LOWER | span(b'_', b'_');
pub(crate) const SPACE: u128 = span(b'\t', b'\r') | span(b' ', b' ');
pub(crate) const HEX: u128 = DIGIT | span(b'a', b'f') | span(b'A', b'F');

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "alpha" | "l" | "letter" | "alphabetic" => Self::Alpha,
            "digit" | "nd" | "n" => Self::Digit,
            "alnum" => Self::Alnum,
            "upper" | "lu" | "uppercase" => Self::Upper,
            "lower" | "ll" | "lowercase" => Self::Lower,
            "space" | "white_space" => Self::Space,
            "punct" | "p" => Self::Punct,
            "cntrl" | "cc" => Self::Cntrl,
            "graph" => Self::Graph,
            "print" => Self::Print,
            "word" => Self::Word,
            _ => return None,
        })
    }

    pub(crate) fn ascii(self) -> u128 {
        match self {
            Self::Alpha => UPPER | LOWER,
            Self::Digit => DIGIT,
            Self::Alnum => UPPER | LOWER | DIGIT,
            Self::Upper => UPPER,
            Self::Lower => LOWER,
            Self::Space => SPACE,
            Self::Punct => {
                span(b'!', b'/') | span(b':', b'@') | span(b'[', b'`') | span(b'{', b'~')
            }
            Self::Cntrl => span(0, 31) | span(127, 127),
            Self::Graph => span(b'!', b'~'),
            Self::Print => span(b' ', b'~'),
            Self::Word => WORD,
        }
    }

    fn has(self, c: char) -> bool {
        match self {
            Self::Alpha => c.is_alphabetic(),
            Self::Digit => c.is_numeric(),
            Self::Alnum => c.is_alphanumeric(),
            Self::Upper => c.is_uppercase(),
            Self::Lower => c.is_lowercase(),
            Self::Space => c.is_whitespace(),
            Self::Punct => !c.is_alphanumeric() && !c.is_whitespace() && !c.is_control(),
            Self::Cntrl => c.is_control(),
            Self::Graph => !c.is_whitespace() && !c.is_control(),
            Self::Print => !c.is_control(),
            Self::Word => is_word(c),
        }
    }
}

/// Whether `\b` counts a character as part of a word. Unlike `\w`, by Unicode, as in Ruby.
pub(crate) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl Other {
    pub(crate) fn has(&self, c: char) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Range(from, to) => (*from..=*to).contains(&c),
            Self::Kind(kind) => kind.has(c),
            Self::Not(inner) => !inner.has(c),
            Self::Any(items) => items.iter().any(|item| item.has(c)),
            Self::Both(left, right) => left.has(c) && right.has(c),
            Self::Fold(inner) => {
                inner.has(c)
                    || c.to_lowercase().next().is_some_and(|c| inner.has(c))
                    || c.to_uppercase().next().is_some_and(|c| inner.has(c))
            }
        }
    }

    fn or(self, more: Self) -> Self {
        match (self, more) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, other) | (other, Self::None) => other,
            (Self::Any(mut items), other) => {
                items.push(other);
                Self::Any(items)
            }
            (one, other) => Self::Any(vec![one, other]),
        }
    }

    fn not(self) -> Self {
        match self {
            Self::None => Self::All,
            Self::All => Self::None,
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }
}

impl Class {
    pub(crate) const ANY: Self = Self { ascii: u128::MAX, other: Other::All };
    pub(crate) const NONE: Self = Self { ascii: 0, other: Other::None };

    pub(crate) const fn ascii(ascii: u128) -> Self {
        Self { ascii, other: Other::None }
    }

    pub(crate) fn char(c: char) -> Self {
        Self::range(c, c)
    }

    pub(crate) fn range(from: char, to: char) -> Self {
        let mut class = Self::NONE;
        for byte in 0..128u8 {
            if (from..=to).contains(&char::from(byte)) {
                class.ascii |= 1 << byte;
            }
        }
        if to > '\u{7f}' {
            class.other = Other::Range(from.max('\u{80}'), to);
        }
        class
    }

    pub(crate) fn kind(kind: Kind) -> Self {
        Self { ascii: kind.ascii(), other: Other::Kind(kind) }
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.ascii |= more.ascii;
        self.other = std::mem::replace(&mut self.other, Other::None).or(more.other);
    }

    pub(crate) fn negated(self) -> Self {
        Self { ascii: !self.ascii, other: self.other.not() }
    }

    pub(crate) fn and(self, right: Self) -> Self {
        let other = match (self.other, right.other) {
            (Other::None, _) | (_, Other::None) => Other::None,
            (Other::All, other) | (other, Other::All) => other,
            (left, right) => Other::Both(Box::new(left), Box::new(right)),
        };
        Self { ascii: self.ascii & right.ascii, other }
    }

    /// With both cases of every letter.
    pub(crate) fn folded(mut self) -> Self {
        let upper = self.ascii & UPPER;
        let lower = self.ascii & LOWER;
        self.ascii |= upper << 32 | lower >> 32;
        if !matches!(self.other, Other::None | Other::All) {
            self.other = Other::Fold(Box::new(self.other));
        }
        self
    }

    pub(crate) fn has_ascii(&self, byte: u8) -> bool {
        self.ascii >> byte & 1 == 1
    }

    pub(crate) fn has(&self, c: char) -> bool {
        if c.is_ascii() { self.has_ascii(c as u8) } else { self.other.has(c) }
    }

    /// The one character it holds, if it is ASCII and the only one.
    pub(crate) fn single_ascii(&self) -> Option<u8> {
        (self.ascii.count_ones() == 1 && self.other == Other::None)
            .then(|| self.ascii.trailing_zeros() as u8)
    }
}

/// Bytes with which something may go on, or that it may go on with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct ByteSet {
    bits: [u64; 4],
    /// Nothing need follow, so that any byte and the end of the text are possible.
    pub(crate) is_open: bool,
}

impl ByteSet {
    pub(crate) fn of(class: &Class) -> Self {
        let mut set = Self::default();
        set.bits[0] = class.ascii as u64;
        set.bits[1] = (class.ascii >> 64) as u64;
        if class.other != Other::None {
            set.bits[2] = u64::MAX;
            set.bits[3] = u64::MAX;
        }
        set
    }

    pub(crate) fn byte(byte: u8) -> Self {
        let mut set = Self::default();
        set.bits[usize::from(byte >> 6)] |= 1 << (byte & 63);
        set
    }

    pub(crate) fn open() -> Self {
        Self { bits: [u64::MAX; 4], is_open: true }
    }

    pub(crate) fn add(&mut self, more: Self) {
        for (held, more) in self.bits.iter_mut().zip(more.bits) {
            *held |= more;
        }
        self.is_open |= more.is_open;
    }

    pub(crate) fn has(&self, byte: u8) -> bool {
        self.bits[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    /// Whether something may go on at `at`, the end included.
    pub(crate) fn allows(&self, text: &[u8], at: usize) -> bool {
        match text.get(at) {
            Some(byte) => self.has(*byte),
            None => self.is_open,
        }
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.bits.iter().zip(other.bits).any(|(a, b)| a & b != 0)
    }

    /// The only byte it holds.
    pub(crate) fn single(&self) -> Option<u8> {
        if self.is_open || self.bits.iter().map(|bits| bits.count_ones()).sum::<u32>() != 1 {
            return None;
        }
        (0..=255).find(|byte| self.has(*byte))
    }
}
