//! Random frames, made of the tables.

use crate::table::{Field, Message, Type, Versions};

/// SplitMix64: all chance of a test from one seed.
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A frame of `message` in `version` as Kafka would write it, every value random.
pub(crate) fn random(message: &Message, version: u16, chance: &mut Chance) -> Vec<u8> {
    let mut out = Vec::new();
    structure(message, message.name(), version, chance, &mut out);
    out
}

fn structure(message: &Message, name: &str, version: u16, chance: &mut Chance, out: &mut Vec<u8>) {
    let compact = message.is_flexible(version);
    let present: Vec<&Field> =
        message.find(name).fields.iter().filter(|f| f.versions.contains(version)).collect();
    for field in present.iter().filter(|f| f.tag.is_none()) {
        value(message, field, version, chance, out);
    }
    if !compact {
        return;
    }
    let mut tagged: Vec<&&Field> = present.iter().filter(|f| f.tag.is_some()).collect();
    tagged.sort_by_key(|f| f.tag);
    let mut written = Vec::new();
    for field in tagged {
        let mut value_bytes = Vec::new();
        value(message, field, version, chance, &mut value_bytes);
        // Kafka leaves a default out; a null and a struct of defaults are the ones that random
        // values can hit, besides zeros.
        if chance.below(2) == 0 || value_bytes.iter().all(|b| *b == 0) || value_bytes == [1] {
            continue;
        }
        written.push((field.tag.unwrap(), value_bytes));
    }
    varint(out, written.len() as u32);
    for (tag, bytes) in written {
        varint(out, tag);
        varint(out, bytes.len() as u32);
        out.extend(bytes);
    }
}

fn value(message: &Message, field: &Field, version: u16, chance: &mut Chance, out: &mut Vec<u8>) {
    let compact = message.is_flexible(version);
    if field.nullable.is_some_and(|v: Versions| v.contains(version)) && chance.below(3) == 0 {
        match (&field.ty, compact) {
            (_, true) => out.push(0),
            (Type::String, false) => out.extend([0xff; 2]),
            (_, false) => out.extend([0xff; 4]),
        }
        return;
    }
    plain(message, &field.ty, version, chance, out);
}

fn plain(message: &Message, ty: &Type, version: u16, chance: &mut Chance, out: &mut Vec<u8>) {
    let compact = message.is_flexible(version);
    let random = chance.next().to_be_bytes();
    match ty {
        Type::Bool => out.push(random[0] & 1),
        Type::I8 => out.push(random[0]),
        Type::I16 | Type::U16 => out.extend(&random[..2]),
        Type::I32 | Type::U32 => out.extend(&random[..4]),
        Type::I64 => out.extend(random),
        // Fractions with few digits, so that both sides print them alike.
        Type::F64 => out.extend((f64::from(random[0]) / 4.0).to_be_bytes()),
        Type::Uuid => {
            out.extend(random);
            out.extend(chance.next().to_be_bytes());
        }
        Type::String => {
            let text: String = (0..chance.below(7))
                .map(|i| {
                    ['a', 'é', '"', '\\', '-', '9', '中'][(i as usize + random[0] as usize) % 7]
                })
                .collect();
            if compact {
                varint(out, text.len() as u32 + 1);
            } else {
                out.extend((text.len() as u16).to_be_bytes());
            }
            out.extend(text.as_bytes());
        }
        Type::Bytes => {
            let len = chance.below(9) as usize;
            length(compact, len, out);
            out.extend(random.iter().cycle().take(len));
        }
        Type::Array(element) => {
            let len = chance.below(4) as usize;
            length(compact, len, out);
            for _ in 0..len {
                plain(message, element, version, chance, out);
            }
        }
        Type::Struct(name) => structure(message, name, version, chance, out),
    }
}

fn length(compact: bool, len: usize, out: &mut Vec<u8>) {
    if compact {
        varint(out, len as u32 + 1);
    } else {
        out.extend((len as u32).to_be_bytes());
    }
}

fn varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
