//! Numbers at the beginning of a text, as Ruby's `to_i` and `to_f` read them: what follows is
//! ignored, no number is zero.

use crate::event::{Datum, Event, Span};

/// The integer a text begins with; one beyond 64 bits keeps its digits.
pub(crate) fn leading_int(event: &mut Event, span: Span) -> Datum {
    let digits = int_digits(event.str_at(span));
    match digits.parse() {
        Ok(int) => Datum::Int(int),
        Err(_) if digits.trim_start_matches(['-', '+']).is_empty() => Datum::Int(0),
        Err(_) => {
            let digits = digits.trim_start_matches('+').to_owned();
            Datum::BigNumber(event.push_text(&digits))
        }
    }
}

/// Sign and digits at the beginning; an underscore may stand between digits.
fn int_digits(text: &str) -> std::borrow::Cow<'_, str> {
    let text = text.trim_start();
    let sign = usize::from(text.starts_with(['-', '+']));
    let bytes = text.as_bytes();
    let mut end = sign;
    while end < bytes.len()
        && (bytes[end].is_ascii_digit()
            || (bytes[end] == b'_'
                && end > sign
                && bytes.get(end + 1).is_some_and(u8::is_ascii_digit)))
    {
        end += 1;
    }
    let digits = &text[..end];
    if digits.contains('_') { digits.replace('_', "").into() } else { digits.into() }
}

/// The decimal number a text begins with.
pub(crate) fn leading_float(text: &str) -> f64 {
    let text = text.trim_start();
    if let Ok(float) = text.parse::<f64>()
        && text.ends_with(|c: char| c.is_ascii_digit())
    {
        return float;
    }
    let bytes = text.as_bytes();
    let mut end = usize::from(text.starts_with(['-', '+']));
    let digits = |at: &mut usize| {
        let start = *at;
        while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
            *at += 1;
        }
        *at > start
    };
    digits(&mut end);
    let mut longer = end + 1;
    if bytes.get(end) == Some(&b'.') && digits(&mut longer) {
        end = longer;
    }
    let mut longer = end + 1;
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        if matches!(bytes.get(longer), Some(b'-' | b'+')) {
            longer += 1;
        }
        if digits(&mut longer) {
            end = longer;
        }
    }
    text[..end].parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_beginning() {
        for (text, wanted) in [
            ("12", "12"),
            (" 12ab", "12"),
            ("-7.9", "-7"),
            ("+3", "3"),
            ("abc", "0"),
            ("", "0"),
            ("-", "0"),
            ("1_000_", "1000"),
            ("99999999999999999999", "99999999999999999999"),
        ] {
            let mut event = Event::empty();
            let span = event.push_text(text);
            let datum = leading_int(&mut event, span);
            event.set_child(0, "n", datum);
            assert_eq!(event.to_source(), format!("{{\"n\":{wanted}}}"), "{text}");
        }
        for (text, wanted) in [
            ("1.5", 1.5),
            ("1.5s", 1.5),
            (".5", 0.5),
            ("-2e3x", -2000.0),
            ("1e", 1.0),
            ("1.", 1.0),
            ("inf", 0.0),
            ("x", 0.0),
            ("0.000", 0.0),
        ] {
            assert_eq!(leading_float(text), wanted, "{text}");
        }
    }
}
