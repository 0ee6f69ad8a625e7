//! Texts that an expression is likely to match, for tests.

use rand::{Rng, rngs::StdRng};

use super::{
    class::Class,
    parse::{self, Ast, Definitions, Syntax},
};

/// A random text built along the expression; look-around and assertions are not minded.
pub(crate) fn sample(text: &str, definitions: &dyn Definitions, random: &mut StdRng) -> String {
    let syntax = Syntax { definitions: Some(definitions), is_dot_all: true };
    let parsed = parse::parse(text, syntax).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut out = String::new();
    write(&parsed.ast, random, &mut out);
    out
}

fn write(ast: &Ast, random: &mut StdRng, out: &mut String) {
    match ast {
        Ast::Empty | Ast::Look { .. } | Ast::Assert(_) => {}
        Ast::Class(class) => out.push(pick(class, random)),
        Ast::Concat(items) => items.iter().for_each(|item| write(item, random, out)),
        Ast::Alternate(arms) => write(&arms[random.random_range(0..arms.len())], random, out),
        Ast::Repeat { inner, min, max, .. } => {
            let most = max.unwrap_or(min + 4).min(min + 4);
            for _ in 0..random.random_range(*min..=most) {
                write(inner, random, out);
            }
        }
        Ast::Capture(_, inner) | Ast::Atomic(inner) => write(inner, random, out),
    }
}

fn pick(class: &Class, random: &mut StdRng) -> char {
    let fits = |byte: &u8| class.has_ascii(*byte);
    // Mostly what logs hold.
    let common: Vec<u8> = (b' '..=b'~').filter(fits).collect();
    let letters: Vec<u8> = common.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    let from = if !letters.is_empty() && random.random_bool(0.8) { letters } else { common };
    match from.as_slice() {
        [] => (0..128u8).find(fits).map_or('ä', char::from),
        from => char::from(from[random.random_range(0..from.len())]),
    }
}
