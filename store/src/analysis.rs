//! The standard analyzer: words by the rules of Unicode annex 29 as far as logs need them, lower case.
//!
//! Letters, digits and underscores join; a dot, colon or apostrophe joins two letters, a dot, comma,
//! semicolon or apostrophe joins two digits (so `10.0.0.1` and `index.html` are one word each);
//! ideographs and kana stand alone. Words over 255 characters are cut there.
//! Differs: katakana, Hangul jamo and emoji sequences are not clustered.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

const WORD_MAX: usize = 255;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Underscore,
    Ideograph,
    Extend,
    Other,
}

fn class(character: char) -> Class {
    match character {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Digit,
        '_' => Class::Underscore,
        _ if character.is_ascii() => Class::Other,
        '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => Class::Extend,
        '\u{3040}'..='\u{309f}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' => Class::Ideograph,
        '\u{203f}' | '\u{2040}' => Class::Underscore,
        _ if character.is_alphabetic() => Class::Letter,
        _ if character.is_numeric() => Class::Digit,
        _ => Class::Other,
    }
}

/// The next word of `text` at or after byte `from`, as a byte range.
pub fn next_word(text: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut start = from;
    // Most bytes of a log line are ASCII: find the start without decoding.
    loop {
        let &byte = bytes.get(start)?;
        if byte < 128 {
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                break;
            }
            start += 1;
        } else {
            let character = text[start..].chars().next()?;
            match class(character) {
                Class::Other | Class::Extend => start += character.len_utf8(),
                Class::Ideograph => return Some((start, start + character.len_utf8())),
                _ => break,
            }
        }
    }
    let (mut at, mut characters, mut last, mut has_word) = (start, 0, Class::Other, false);
    while let Some(&byte) = bytes.get(at) {
        let (this, length) = if byte < 128 {
            (ascii_class(byte), 1)
        } else {
            let Some(character) = text[at..].chars().next() else { break };
            (class(character), character.len_utf8())
        };
        match this {
            Class::Letter | Class::Digit | Class::Underscore => {
                has_word |= this != Class::Underscore;
                last = this;
            }
            Class::Extend => {}
            Class::Ideograph => break,
            Class::Other => {
                if !joins(text, at, length, last) {
                    break;
                }
            }
        }
        characters += 1;
        at += length;
        if characters == WORD_MAX {
            break;
        }
    }
    if has_word { Some((start, at)) } else { next_word(text, at) }
}

#[inline]
fn ascii_class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
        b'0'..=b'9' => Class::Digit,
        b'_' => Class::Underscore,
        _ => Class::Other,
    }
}

/// Whether the character at `at` joins the word before it, whose last class is `last`, to the next.
fn joins(text: &str, at: usize, length: usize, last: Class) -> bool {
    let between_letters = || {
        matches!(
            &text[at..at + length],
            "." | ":" | "'" | "\u{2019}" | "\u{b7}" | "\u{2018}" | "\u{2024}" | "\u{ff1a}"
        )
    };
    let between_digits = || {
        matches!(
            &text[at..at + length],
            "." | "," | ";" | "'" | "\u{2019}" | "\u{2018}" | "\u{2024}"
        )
    };
    let next = text[at + length..].chars().next().map(class);
    match (last, next) {
        (Class::Letter, Some(Class::Letter)) => between_letters(),
        (Class::Digit, Some(Class::Digit)) => between_digits(),
        _ => false,
    }
}

/// The words of `text` in lower case.
pub fn words(text: &str) -> Vec<String> {
    let (mut words, mut at) = (Vec::new(), 0);
    while let Some((start, end)) = next_word(text, at) {
        words.push(lowercase(&text[start..end]));
        at = end;
    }
    words
}

pub fn lowercase(word: &str) -> String {
    if word.is_ascii() { word.to_ascii_lowercase() } else { word.to_lowercase() }
}

/// The analyzer under its name in tantivy.
pub const STANDARD: &str = "standard";

#[derive(Debug, Clone, Default)]
pub struct StandardTokenizer {
    token: Token,
}

#[derive(Debug)]
pub struct StandardStream<'a> {
    text: &'a str,
    at: usize,
    token: &'a mut Token,
}

impl Tokenizer for StandardTokenizer {
    type TokenStream<'a> = StandardStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> StandardStream<'a> {
        self.token.reset();
        StandardStream { text, at: 0, token: &mut self.token }
    }
}

impl TokenStream for StandardStream<'_> {
    fn advance(&mut self) -> bool {
        let Some((start, end)) = next_word(self.text, self.at) else { return false };
        self.at = end;
        self.token.position = self.token.position.wrapping_add(1);
        (self.token.offset_from, self.token.offset_to) = (start, end);
        let word = &self.text[start..end];
        self.token.text.clear();
        if word.is_ascii() {
            self.token.text.push_str(word);
            self.token.text.make_ascii_lowercase();
        } else {
            self.token.text.extend(word.chars().flat_map(char::to_lowercase));
        }
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(words(text), expected, "{text}");
    }

    #[test]
    fn words_are_those_of_the_standard_analyzer() {
        check(
            "GET /api/v1/Items?page=2 HTTP/1.1 from 10.0.0.1",
            &["get", "api", "v1", "items", "page", "2", "http", "1.1", "from", "10.0.0.1"],
        );
        check(
            "web-1 don't index.html a_b 1,000.5 x.1",
            &["web", "1", "don't", "index.html", "a_b", "1,000.5", "x", "1"],
        );
        check("end. \"quoted\" (paren) __ _x_", &["end", "quoted", "paren", "_x_"]);
        check("\u{c4}rger \u{65e5}\u{672c}", &["\u{e4}rger", "\u{65e5}", "\u{672c}"]);
        check(&"x".repeat(300), &[&"x".repeat(255), &"x".repeat(45)]);
    }

    proptest! {
        #[test]
        fn words_lie_in_order_within_the_text(text in "\\PC{0,60}") {
            let mut at = 0;
            while let Some((start, end)) = next_word(&text, at) {
                prop_assert!(start >= at && end > start && text.is_char_boundary(start) && text.is_char_boundary(end));
                at = end;
            }
        }
    }
}
