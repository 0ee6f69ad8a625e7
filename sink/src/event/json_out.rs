//! Fields → JSON text.

use std::io::Write;

use super::{Event, METADATA, ROOT, Value, scan::next_special};

impl Event {
    /// Appends the event as the `_source` of a document: everything but `@metadata`, on one line.
    pub fn write_source(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut is_first = true;
        for id in self.children(ROOT) {
            let key = self.str_at(self.nodes[id as usize].key);
            if key == METADATA {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            write_string(out, key);
            out.push(b':');
            write_value(out, self.view(id));
        }
        out.push(b'}');
    }

    /// What [`Event::write_source`] writes, as text.
    pub fn to_source(&self) -> String {
        let mut out = Vec::new();
        self.write_source(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

pub(super) fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(int) => write_int(out, int),
        // JSON knows no infinity; a reader is better served by null than by an invalid document.
        Value::Float(float) if !float.is_finite() => out.extend_from_slice(b"null"),
        Value::Float(float) => {
            // Writing to a vector cannot fail.
            let _ = write!(out, "{float:?}");
        }
        Value::BigNumber(text) => out.extend_from_slice(text.as_bytes()),
        Value::Text(text) => write_string(out, text),
        Value::Time(time) => {
            out.push(b'"');
            time.write_iso8601(out);
            out.push(b'"');
        }
        Value::Array(children) => {
            out.push(b'[');
            for (i, value) in children.values().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(out, value);
            }
            out.push(b']');
        }
        Value::Object(children) => {
            out.push(b'{');
            for (i, (name, value)) in children.fields().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(out, name);
                out.push(b':');
                write_value(out, value);
            }
            out.push(b'}');
        }
    }
}

fn write_int(out: &mut Vec<u8>, int: i64) {
    let (mut digits, mut at, mut rest) = ([0; 20], 20, int.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if int < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a JSON string with its quotes.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    loop {
        let at = next_special(bytes, written);
        out.extend_from_slice(&bytes[written..at]);
        let Some(byte) = bytes.get(at) else { break };
        written = at + 1;
        match ESCAPES[usize::from(*byte)] {
            b'u' => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            escape => out.extend_from_slice(&[b'\\', escape]),
        }
    }
    out.push(b'"');
}

/// The letter after the backslash, for bytes that need one.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0A] = b'n';
    table[0x0C] = b'f';
    table[0x0D] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};
