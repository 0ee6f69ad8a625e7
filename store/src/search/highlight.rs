//! Marks in the texts of a hit what the query looked for.
//!
//! Words, phrases, prefixes and wildcards of the fields asked for. Differs: a fragment is cut at
//! spaces around the first mark, not at sentences.

use serde_json::{Map, Value};

use crate::analysis;
use crate::mapping::{Kind, Mapping, wildcard};
use crate::search::dsl::{Match, MatchKind, Query, text_of};
use crate::search::fetch::leaves;
use crate::search::request::Highlight;

/// What to mark in one field.
enum Wanted {
    /// Words in a row; the last may be a prefix.
    Words(Vec<String>, bool),
    Pattern(String),
    /// A whole keyword.
    Whole(String),
}

/// `field → [fragments]`, of fields in which something was marked.
pub fn highlight(
    mapping: &Mapping,
    source: &Value,
    query: &Query,
    options: &Highlight,
) -> Map<String, Value> {
    let mut marked = Map::new();
    let leaves = leaves(source);
    for field in &mapping.fields {
        if !options.fields.iter().any(|pattern| wildcard(pattern, &field.path)) {
            continue;
        }
        let mut wanted = Vec::new();
        gather(query, &field.path, &mut wanted);
        if wanted.is_empty() {
            continue;
        }
        let mut fragments = Vec::new();
        for (_, value) in leaves.iter().filter(|(path, _)| **path == *field.path) {
            let text = text_of(value);
            let spans = if field.kind == Kind::Text {
                spans(&text, &wanted)
            } else {
                whole(&text, &wanted)
            };
            if !spans.is_empty() {
                fragments.push(Value::from(mark(&text, &spans, options)));
            }
            if options.fragments > 0 && fragments.len() >= options.fragments {
                break;
            }
        }
        if !fragments.is_empty() {
            marked.insert(field.path.to_string(), Value::Array(fragments));
        }
    }
    marked
}

fn gather(query: &Query, field: &str, out: &mut Vec<Wanted>) {
    let is_meant = |name: &str| name == field || (name.contains('*') && wildcard(name, field));
    match query {
        Query::Match(query) if is_meant(&query.field) => gather_match(query, out),
        Query::MultiMatch { fields, template } if fields.iter().any(|name| is_meant(name)) => {
            gather_match(template, out)
        }
        Query::Term { field: name, value, .. } if is_meant(name) => {
            out.push(Wanted::Words(vec![text_of(value)], false));
            out.push(Wanted::Whole(text_of(value)));
        }
        Query::Terms { field: name, values } if is_meant(name) => {
            for value in values {
                out.push(Wanted::Words(vec![text_of(value)], false));
                out.push(Wanted::Whole(text_of(value)));
            }
        }
        Query::Prefix { field: name, value, .. } if is_meant(name) => {
            out.push(Wanted::Words(vec![value.clone()], true))
        }
        Query::Wildcard { field: name, pattern, .. } if is_meant(name) => {
            out.push(Wanted::Pattern(pattern.clone()))
        }
        Query::Bool(query) => {
            for clause in query.must.iter().chain(&query.filter).chain(&query.should) {
                gather(clause, field, out);
            }
        }
        Query::Constant(query) => gather(query, field, out),
        Query::Any(queries) => queries.iter().for_each(|query| gather(query, field, out)),
        Query::QueryString(query) => {
            if let Ok(tree) = &query.tree {
                gather(tree, field, out);
            }
        }
        _ => {}
    }
}

fn gather_match(query: &Match, out: &mut Vec<Wanted>) {
    let text = query.text();
    let words = analysis::words(&text);
    match query.kind {
        MatchKind::Phrase => out.push(Wanted::Words(words, false)),
        MatchKind::PhrasePrefix => out.push(Wanted::Words(words, true)),
        MatchKind::Words | MatchKind::BoolPrefix => {
            out.extend(words.into_iter().map(|word| Wanted::Words(vec![word], false)))
        }
    }
    out.push(Wanted::Whole(text));
}

fn whole(text: &str, wanted: &[Wanted]) -> Vec<(usize, usize)> {
    let is_meant = |wanted: &Wanted| match wanted {
        Wanted::Whole(whole) => whole == text,
        Wanted::Pattern(pattern) => wildcard(pattern, text),
        Wanted::Words(words, true) => words.len() == 1 && text.starts_with(&words[0]),
        Wanted::Words(..) => false,
    };
    if wanted.iter().any(is_meant) { vec![(0, text.len())] } else { Vec::new() }
}

/// Ranges of bytes to mark, in order and apart from each other.
fn spans(text: &str, wanted: &[Wanted]) -> Vec<(usize, usize)> {
    let (mut places, mut at) = (Vec::new(), 0);
    while let Some((start, end)) = analysis::next_word(text, at) {
        places.push((start, end, analysis::lowercase(&text[start..end])));
        at = end;
    }
    let mut spans = Vec::new();
    for i in 0..places.len() {
        for one in wanted {
            let length = match one {
                Wanted::Words(words, last_is_prefix)
                    if !words.is_empty() && i + words.len() <= places.len() =>
                {
                    let matches = words.iter().enumerate().all(|(j, word)| {
                        let found = &places[i + j].2;
                        found == word
                            || (*last_is_prefix
                                && j + 1 == words.len()
                                && found.starts_with(word.as_str()))
                    });
                    if matches { words.len() } else { 0 }
                }
                Wanted::Pattern(pattern) => usize::from(wildcard(pattern, &places[i].2)),
                _ => 0,
            };
            if length > 0 {
                spans.push((places[i].0, places[i + length - 1].1));
            }
        }
    }
    spans.sort_unstable();
    spans.dedup();
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in spans {
        match merged.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn mark(text: &str, spans: &[(usize, usize)], options: &Highlight) -> String {
    // The part shown: everything, or a window around the first mark that ends at spaces.
    let (from, to) = if options.fragments == 0 || text.len() <= options.fragment_size {
        (0, text.len())
    } else {
        let (first, end) = spans[0];
        let space = options.fragment_size.saturating_sub(end - first);
        let mut from = first.saturating_sub(space / 2);
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        if from > 0 {
            from += text[from..first].find(' ').map_or(0, |space| space + 1);
        }
        let mut to = (from + options.fragment_size).max(end).min(text.len());
        while !text.is_char_boundary(to) {
            to += 1;
        }
        if to < text.len()
            && let Some(space) = text[end..to].rfind(' ')
        {
            to = end + space;
        }
        (from, to)
    };
    let mut out = String::with_capacity(to - from + spans.len() * 9);
    let mut at = from;
    for (start, end) in spans.iter().filter(|(start, end)| *start >= from && *end <= to) {
        out.push_str(&text[at..*start]);
        out.push_str(&options.pre);
        out.push_str(&text[*start..*end]);
        out.push_str(&options.post);
        at = *end;
    }
    out.push_str(&text[at..to]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(fragment_size: usize) -> Highlight {
        Highlight {
            fields: Vec::new(),
            pre: "<".into(),
            post: ">".into(),
            fragment_size,
            fragments: 5,
        }
    }

    #[test]
    fn phrases_are_marked_as_one() {
        let text = "GET /missing/page HTTP/1.1";
        let wanted = [Wanted::Words(vec!["missing".into(), "page".into()], false)];
        assert_eq!(
            mark(text, &spans(text, &wanted), &options(100)),
            "GET /<missing/page> HTTP/1.1"
        );
        let wanted = [Wanted::Words(vec!["get".into()], false), Wanted::Pattern("htt*".into())];
        assert_eq!(
            mark(text, &spans(text, &wanted), &options(100)),
            "<GET> /missing/page <HTTP>/1.1"
        );
    }

    proptest! {
        #[test]
        fn a_fragment_is_part_of_the_text(text in "[a-c\u{e9} ]{1,60}", size in 0usize..40) {
            let spans = spans(&text, &[Wanted::Words(vec!["a".into()], true)]);
            if !spans.is_empty() {
                let marked = mark(&text, &spans, &options(size)).replace(['<', '>'], "");
                prop_assert!(text.contains(&marked));
            }
        }
    }
}
