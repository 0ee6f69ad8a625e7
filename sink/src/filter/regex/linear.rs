//! A tree written for the `regex` crate: exactly, or widened for a first look.

use super::{
    class::{Class, Kind, Other},
    parse::{Assertion, Ast, Mode},
    program::is_nullable,
};

/// The expression in the `regex` crate's syntax; none where it cannot say it.
pub(super) fn exact(ast: &Ast) -> Option<String> {
    let mut out = String::new();
    write_exact(ast, &mut out).then_some(out)
}

fn write_exact(ast: &Ast, out: &mut String) -> bool {
    match ast {
        Ast::Empty => out.push_str("(?:)"),
        Ast::Class(class) => return write_class(class, out),
        Ast::Concat(items) => return items.iter().all(|item| write_exact(item, out)),
        Ast::Alternate(arms) => {
            out.push_str("(?:");
            for (i, arm) in arms.iter().enumerate() {
                if i > 0 {
                    out.push('|');
                }
                if !write_exact(arm, out) {
                    return false;
                }
            }
            out.push(')');
        }
        Ast::Repeat { mode: Mode::Possessive, .. } | Ast::Atomic(_) | Ast::Look { .. } => {
            return false;
        }
        // What a turn of a loop that matches nothing does, each engine sees its own way.
        Ast::Repeat { inner, max, .. } if *max != Some(1) && is_nullable(inner) => return false,
        Ast::Repeat { inner, min, max, mode } => {
            out.push_str("(?:");
            if !write_exact(inner, out) {
                return false;
            }
            out.push(')');
            write_counts(*min, *max, out);
            if *mode == Mode::Lazy {
                out.push('?');
            }
        }
        Ast::Capture(_, inner) => {
            out.push_str("(?:");
            if !write_exact(inner, out) {
                return false;
            }
            out.push(')');
        }
        Ast::Assert(assertion) => out.push_str(match assertion {
            Assertion::TextStart => r"\A",
            Assertion::TextEnd => r"\z",
            Assertion::LineEnd => r"(?m:$)",
            Assertion::WordBoundary => r"\b",
            Assertion::NotWordBoundary => r"\B",
            // Ruby's ^ does not match after a newline that ends the text.
            Assertion::LineStart | Assertion::TextEndOrNewline => return false,
        }),
    }
    true
}

fn write_counts(min: u32, max: Option<u32>, out: &mut String) {
    match (min, max) {
        (0, None) => out.push('*'),
        (1, None) => out.push('+'),
        (0, Some(1)) => out.push('?'),
        (min, None) => out.push_str(&format!("{{{min},}}")),
        (min, Some(max)) => out.push_str(&format!("{{{min},{max}}}")),
    }
}

fn write_ascii(ascii: u128, out: &mut String) {
    let mut at = 0u8;
    while at < 128 {
        if ascii >> at & 1 == 0 {
            at += 1;
            continue;
        }
        let from = at;
        while at < 127 && ascii >> (at + 1) & 1 == 1 {
            at += 1;
        }
        out.push_str(&format!("\\x{from:02X}-\\x{at:02X}"));
        at += 1;
    }
}

fn write_class(class: &Class, out: &mut String) -> bool {
    if class.ascii == 0 && class.other == Other::None {
        // Nothing is in it.
        out.push_str(r"[^\x00-\x{10FFFF}]");
        return true;
    }
    out.push('[');
    write_ascii(class.ascii, out);
    let is_exact = write_other(&class.other, out);
    out.push(']');
    is_exact
}

fn write_other(other: &Other, out: &mut String) -> bool {
    match other {
        Other::None => {}
        Other::All => out.push_str(r"\x{80}-\x{10FFFF}"),
        Other::Range(from, to) => {
            out.push_str(&format!("\\x{{{:X}}}-\\x{{{:X}}}", *from as u32, *to as u32));
        }
        Other::Any(items) => return items.iter().all(|item| write_other(item, out)),
        Other::Not(inner) => {
            out.push_str(r"[\x{80}-\x{10FFFF}&&[^");
            let is_exact = write_other(inner, out);
            out.push_str("]]");
            return is_exact;
        }
        Other::Kind(kind) => {
            let name = match kind {
                Kind::Alpha => "Alphabetic",
                Kind::Upper => "Uppercase",
                Kind::Lower => "Lowercase",
                Kind::Space => "White_Space",
                _ => return false,
            };
            out.push_str(&format!("[\\x{{80}}-\\x{{10FFFF}}&&\\p{{{name}}}]"));
        }
        Other::Both(..) | Other::Fold(_) => return false,
    }
    true
}

/// An expression over bytes that matches wherever `ast` does, and perhaps elsewhere: look-around and
/// word boundaries dropped, atomic groups made plain. So "no match" is proof.
pub(super) fn widened(ast: &Ast) -> String {
    let mut out = "(?s-u)".to_owned();
    write_widened(ast, &mut out);
    out
}

fn write_widened(ast: &Ast, out: &mut String) {
    match ast {
        Ast::Empty | Ast::Look { .. } => out.push_str("(?:)"),
        Ast::Class(class) => write_bytes(class, out),
        Ast::Concat(items) => items.iter().for_each(|item| write_widened(item, out)),
        Ast::Alternate(arms) => {
            out.push_str("(?:");
            for (i, arm) in arms.iter().enumerate() {
                if i > 0 {
                    out.push('|');
                }
                write_widened(arm, out);
            }
            out.push(')');
        }
        Ast::Repeat { inner, min, max, .. } => {
            out.push_str("(?:");
            write_widened(inner, out);
            out.push(')');
            // Greed does not matter to whether there is a match. Large counts cost states.
            let max = max.filter(|max| *max <= 64 || is_nullable(inner));
            write_counts((*min).min(64), max, out);
        }
        Ast::Capture(_, inner) | Ast::Atomic(inner) => {
            out.push_str("(?:");
            write_widened(inner, out);
            out.push(')');
        }
        Ast::Assert(assertion) => out.push_str(match assertion {
            Assertion::TextStart => r"\A",
            Assertion::TextEnd => r"\z",
            Assertion::LineStart => "(?m:^)",
            Assertion::LineEnd | Assertion::TextEndOrNewline => "(?m:$)",
            Assertion::WordBoundary | Assertion::NotWordBoundary => "(?:)",
        }),
    }
}

fn write_bytes(class: &Class, out: &mut String) {
    // A character beyond ASCII is two to four bytes; which one is not looked at.
    let wide = r"[\xC2-\xF4][\x80-\xBF]{1,3}";
    match (class.ascii != 0, class.other != Other::None) {
        (false, false) => out.push_str(r"[^\x00-\xFF]"),
        (false, true) => out.push_str(&format!("(?:{wide})")),
        (true, has_other) => {
            if has_other {
                out.push_str("(?:");
            }
            out.push('[');
            write_ascii(class.ascii, out);
            out.push(']');
            if has_other {
                out.push_str(&format!("|{wide})"));
            }
        }
    }
}
