//! Java's `.properties` text: comments, continued lines, escapes, three kinds of separators.

/// One assignment as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Property {
    /// Line of the key's first character, from 1.
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// All assignments in the order of the file; a key may occur more than once.
pub(crate) fn parse(text: &str) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut logical = first.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while ends_in_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        properties.push(Property {
            line: index + 1,
            key: unescape(key),
            // Java keeps trailing blanks, which nobody means; Kafka trims them when it parses.
            value: unescape(value).trim_end().to_owned(),
        });
    }
    properties
}

fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The key ends at the first `=`, `:` or blank that no backslash precedes.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '=' | ':' | ' ' | '\t' | '\u{c}' => {
                let rest = line[at..].trim_start();
                let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
                return (&line[..at], rest.trim_start());
            }
            _ => {}
        }
    }
    (line, "")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits = chars.as_str().get(..4);
                match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
                    Some(code) => {
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                        chars = chars.as_str()[4..].chars();
                    }
                    None => out.push('u'),
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(usize, &str, &str)]) {
        let got = parse(text);
        let got: Vec<_> = got.iter().map(|p| (p.line, &p.key[..], &p.value[..])).collect();
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn reads_what_java_reads() {
        check("a=1\n\n# no\n ! no\nb : 2\nc 3", &[(1, "a", "1"), (5, "b", "2"), (6, "c", "3")]);
        check("hosts=a,\\\n   b\nnext=1", &[(1, "hosts", "a,b"), (3, "next", "1")]);
        check("win=C:\\\\logs\\t", &[(1, "win", "C:\\logs")]);
        check("k\\=1=v\\u00e9", &[(1, "k=1", "vé")]);
        check("alone\nempty=", &[(1, "alone", ""), (2, "empty", "")]);
        check("x=1  \r\ny=\\u12", &[(1, "x", "1"), (2, "y", "u12")]);
        check("end=\\", &[(1, "end", "")]);
    }
}
