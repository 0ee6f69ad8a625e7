//! A JSON reader that borrows from the text and knows where it is: line and column go into
//! Elasticsearch's error messages, and a document is walked once without building a tree.

/// Deepest nesting of objects and arrays that is read.
pub const DEPTH_MAX: usize = 64;

/// A string between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted<'a> {
    /// As written, escapes included.
    pub raw: &'a str,
    pub is_escaped: bool,
}

impl<'a> Quoted<'a> {
    /// Appends the text with its escapes resolved.
    pub fn unescape_into(&self, out: &mut String) {
        if !self.is_escaped {
            out.push_str(self.raw);
            return;
        }
        let mut rest = self.raw;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let bytes = &rest.as_bytes()[at + 1..];
            let (character, length) = match bytes.first() {
                Some(b'n') => ('\n', 2),
                Some(b't') => ('\t', 2),
                Some(b'r') => ('\r', 2),
                Some(b'b') => ('\u{8}', 2),
                Some(b'f') => ('\u{c}', 2),
                Some(b'u') => unicode_escape(bytes),
                Some(&other) => (char::from(other), 2),
                None => break,
            };
            out.push(character);
            rest = &rest[at + length..];
        }
        out.push_str(rest);
    }

    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.raw.len());
        self.unescape_into(&mut text);
        text
    }
}

/// The first backslash of a string that is not followed by what JSON allows, and what follows it.
fn bad_escape(raw: &str) -> Option<(usize, char)> {
    let bytes = raw.as_bytes();
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'\\', &bytes[from..]) {
        let at = from + found + 1;
        let length = match bytes.get(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u')
                if bytes
                    .get(at + 1..at + 5)
                    .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) =>
            {
                5
            }
            _ => return Some((at, raw[at..].chars().next().unwrap_or(' '))),
        };
        from = at + length;
    }
    None
}

/// Whether all of `text` is a number by JSON's grammar: no leading zero, digits on both sides of a dot.
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (integer, rest) = leading_digits(text);
    if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
        return false;
    }
    let rest = match rest.strip_prefix(b".").map(leading_digits) {
        Some(([], _)) => return false,
        Some((_, rest)) => rest,
        None => rest,
    };
    let [b'e' | b'E', exponent @ ..] = rest else { return rest.is_empty() };
    let (digits, rest) = leading_digits(
        exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent),
    );
    !digits.is_empty() && rest.is_empty()
}

fn leading_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Reads `uXXXX`, with its low surrogate if it has one; the length counts the backslash.
fn unicode_escape(bytes: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(1) else { return (char::REPLACEMENT_CHARACTER, 2) };
    if let Some(character) = char::from_u32(first) {
        return (character, 6);
    }
    if first < 0xdc00
        && bytes.get(5..7) == Some(b"\\u")
        && let Some(second) = unit(7)
        && (0xdc00..0xe000).contains(&second)
    {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::REPLACEMENT_CHARACTER, 6)
}

/// What the next value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    ObjectStart,
    ArrayStart,
    String(Quoted<'a>),
    /// The digits as written.
    Number(&'a str),
    Bool(bool),
    Null,
}

/// Why the text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Byte where the reader stood, from 0.
    pub at: usize,
    pub text: String,
    pub is_end: bool,
}

/// A cursor over one JSON text.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Start of the last token that was read well, from 0.
    pub last_token: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, last_token: 0, depth: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn skip_whitespace(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
    }

    #[inline]
    fn peek(&mut self) -> Option<u8> {
        self.skip_whitespace();
        self.text.as_bytes().get(self.at).copied()
    }

    fn end(&self, within: &str) -> JsonError {
        JsonError { at: self.at, text: format!("Unexpected end-of-input{within}"), is_end: true }
    }

    fn unexpected(&self, wanted: &str) -> JsonError {
        let character = self.text[self.at..].chars().next().unwrap_or(' ');
        JsonError {
            at: self.at + 1,
            text: format!(
                "Unexpected character ('{character}' (code {})): {wanted}",
                u32::from(character)
            ),
            is_end: false,
        }
    }

    /// Reads the next value, or its opening bracket.
    #[inline]
    pub fn value(&mut self) -> Result<Token<'a>, JsonError> {
        let Some(byte) = self.peek() else {
            return Err(self.end(" within/between Object entries"));
        };
        let start = self.at;
        let token = match byte {
            b'"' => Token::String(self.string()?),
            b'{' | b'[' => {
                self.at += 1;
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(JsonError {
                        at: self.at,
                        text: format!(
                            "Document nesting depth ({}) exceeds the maximum allowed ({DEPTH_MAX})",
                            self.depth
                        ),
                        is_end: false,
                    });
                }
                if byte == b'{' { Token::ObjectStart } else { Token::ArrayStart }
            }
            b'-' | b'0'..=b'9' => self.number()?,
            _ => self.word()?,
        };
        self.last_token = start;
        Ok(token)
    }

    #[inline]
    fn string(&mut self) -> Result<Quoted<'a>, JsonError> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut is_escaped = false;
        loop {
            match memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
                Some(offset) if bytes[at + offset] == b'"' => {
                    at += offset;
                    break;
                }
                Some(offset) => {
                    is_escaped = true;
                    at += offset + 2;
                }
                None => {
                    self.at = bytes.len();
                    return Err(self.end(" in VALUE_STRING"));
                }
            }
        }
        self.at = at + 1;
        let raw = &self.text[start..at];
        // What is accepted here is later shown verbatim, so it must be JSON to every other reader.
        if let Some(control) = raw.bytes().position(|byte| byte < 0x20) {
            let code = raw.as_bytes()[control];
            return Err(JsonError {
                at: start + control + 1,
                text: format!(
                    "Illegal unquoted character ((CTRL-CHAR, code {code})): has to be escaped using backslash to be included in string value"
                ),
                is_end: false,
            });
        }
        if is_escaped && let Some((place, found)) = bad_escape(raw) {
            return Err(JsonError {
                at: start + place + 1,
                text: format!("Unrecognized character escape {found:?}"),
                is_end: false,
            });
        }
        Ok(Quoted { raw, is_escaped })
    }

    fn number(&mut self) -> Result<Token<'a>, JsonError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start;
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = bytes.get(at) {
            at += 1;
        }
        if !is_number(&bytes[start..at]) {
            return Err(self.unexpected("in numeric value"));
        }
        self.at = at;
        Ok(Token::Number(&self.text[start..at]))
    }

    fn word(&mut self) -> Result<Token<'a>, JsonError> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .unwrap_or(rest.len());
        let token = match &rest[..length] {
            "true" => Token::Bool(true),
            "false" => Token::Bool(false),
            "null" => Token::Null,
            "" => {
                return Err(self.unexpected(
                    "expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')",
                ));
            }
            word => {
                // Jackson has read one character beyond the word when it complains.
                return Err(JsonError {
                    at: self.at + length + 1,
                    text: format!(
                        "Unrecognized token '{word}': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
                    ),
                    is_end: false,
                });
            }
        };
        self.at += length;
        Ok(token)
    }

    /// The next key of an object just entered or whose last value was read; `None` at its end.
    #[inline]
    pub fn key(&mut self, is_first: bool) -> Result<Option<Quoted<'a>>, JsonError> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                self.depth -= 1;
                return Ok(None);
            }
            Some(b',') if !is_first => self.at += 1,
            Some(_) if is_first => {}
            Some(_) => {
                return Err(self.unexpected("was expecting comma to separate Object entries"));
            }
            None => return Err(self.end(" within/between Object entries")),
        }
        match self.peek() {
            Some(b'"') => {}
            Some(_) => {
                return Err(self.unexpected("was expecting double-quote to start field name"));
            }
            None => return Err(self.end(" within/between Object entries")),
        }
        let start = self.at;
        let key = self.string()?;
        self.last_token = start;
        match self.peek() {
            Some(b':') => self.at += 1,
            Some(_) => {
                return Err(
                    self.unexpected("was expecting a colon to separate field name and value")
                );
            }
            None => return Err(self.end(" within/between Object entries")),
        }
        Ok(Some(key))
    }

    /// Whether an array just entered, or whose last element was read, has a further element.
    pub fn element(&mut self, is_first: bool) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !is_first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if is_first => Ok(true),
            Some(_) => Err(self.unexpected("was expecting comma to separate Array entries")),
            None => Err(self.end(" within/between Array entries")),
        }
    }

    /// Reads over the rest of a value whose first token was `token`.
    pub fn skip(&mut self, token: Token<'a>) -> Result<(), JsonError> {
        match token {
            Token::ObjectStart => {
                let mut is_first = true;
                while self.key(is_first)?.is_some() {
                    is_first = false;
                    let value = self.value()?;
                    self.skip(value)?;
                }
            }
            Token::ArrayStart => {
                let mut is_first = true;
                while self.element(is_first)? {
                    is_first = false;
                    let value = self.value()?;
                    self.skip(value)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Where a byte of this text is: line and column from 1, columns in bytes as Jackson counts.
    pub fn line_column(&self, at: usize) -> (usize, usize) {
        line_column(self.text, at)
    }

    /// Whether only white space is left.
    pub fn is_finished(&mut self) -> bool {
        self.peek().is_none()
    }
}

/// Line and column, from 1, of byte `at` of `text`.
pub fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    (line, at - start + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(text: &str) -> Result<(), JsonError> {
        let mut reader = Reader::new(text);
        let token = reader.value()?;
        reader.skip(token)
    }

    #[test]
    fn errors_name_the_place_that_jackson_names() {
        let error = walk("{\"message\": broken}").unwrap_err();
        assert_eq!(line_column("{\"message\": broken}", error.at), (1, 20));
        assert!(error.text.starts_with("Unrecognized token 'broken'"));
        assert!(walk("{\"query\": ").unwrap_err().is_end);
    }

    #[test]
    fn escapes_are_resolved() {
        let mut reader = Reader::new(r#""a\"\\\/\n\u00e9\ud83d\ude00\ud83dx""#);
        let Token::String(text) = reader.value().unwrap() else { panic!("not a string") };
        assert_eq!(text.to_text(), "a\"\\/\n\u{e9}\u{1f600}\u{fffd}x");
    }

    #[test]
    fn nesting_has_a_limit() {
        assert!(walk(&"[".repeat(100_000)).is_err());
        let deep = "[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX);
        assert!(walk(&deep).is_ok());
    }

    #[test]
    fn numbers_are_those_of_json() {
        for text in [
            "0",
            "-0",
            "10",
            "1.5",
            "-0.25",
            "1e5",
            "1E+5",
            "0e-1",
            "123456789012345678901234567890",
        ] {
            assert!(walk(text).is_ok(), "{text}");
        }
        for text in
            ["", "-", "01", "1.", ".5", "1.e5", "1e", "1e+", "+1", "--1", "1-2", "1.2.3", "00.5"]
        {
            assert!(walk(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = walk(&text);
        }

        #[test]
        fn jsonish_text_is_judged_as_serde_judges(text in r#"[\[\]{}:,"0-9a-e\\.tru ]{0,24}"#) {
            let ours = walk(&text).is_ok() && {
                let mut reader = Reader::new(&text);
                let token = reader.value().unwrap();
                reader.skip(token).unwrap();
                reader.is_finished()
            };
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // Half a surrogate pair is read as a replacement character here, and numbers may be of any size.
            let is_out_of_range = theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range"));
            if !text.contains("\\ud") && !is_out_of_range {
                prop_assert_eq!(ours, theirs.is_ok());
            }
        }
    }
}
