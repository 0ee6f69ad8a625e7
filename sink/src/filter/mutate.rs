//! Changes fields: coerce, rename, update, replace, convert, gsub, uppercase, capitalize, lowercase,
//! strip, split, join, merge, copy; always in that order, whatever the order written.
//!
//! As in Logstash, the first change that fails (`convert` of a text that is no number) ends the
//! filter with the tag `_mutate_error`; what was changed before stays.

mod convert;

use super::{Context, Filter, Name, Verdict, gsub::Gsub, regex::Exhausted, render, tag_all};
use crate::{
    config::{Located, Options},
    event::{Datum, Event, FieldRef, List, NodeId, Span, Template},
};
use convert::Type;

#[derive(Debug)]
pub(crate) struct Mutate {
    steps: Vec<Step>,
    tag_on_failure: Vec<String>,
}

#[derive(Debug)]
enum Step {
    Coerce(FieldRef, Template),
    Rename(Name, Name),
    Update(FieldRef, Template),
    Replace(FieldRef, Template),
    Convert(FieldRef, Type),
    Gsub(FieldRef, Box<Gsub>),
    Case(FieldRef, Case),
    Strip(FieldRef),
    Split(FieldRef, String),
    Join(FieldRef, String),
    Merge(FieldRef, FieldRef),
    Copy(FieldRef, FieldRef),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Case {
    Upper,
    Lower,
    Capital,
}

impl Case {
    pub(crate) fn apply(self, text: &str) -> String {
        match self {
            Self::Upper => text.to_uppercase(),
            Self::Lower => text.to_lowercase(),
            Self::Capital => {
                let mut chars = text.chars();
                let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
                first + &chars.as_str().to_lowercase()
            }
        }
    }
}

/// A change could not be made.
struct Failed;

impl Mutate {
    pub(crate) fn read(options: &mut Options<'_>) -> Option<Self> {
        let mut steps = Vec::new();
        for (field, template) in templates(options, "coerce") {
            steps.push(Step::Coerce(field, template));
        }
        for (old, new) in pairs(options, "rename") {
            if let (Some(old), Some(new)) = (Name::read(options, &old), Name::read(options, &new)) {
                steps.push(Step::Rename(old, new));
            }
        }
        for (field, template) in templates(options, "update") {
            steps.push(Step::Update(field, template));
        }
        for (field, template) in templates(options, "replace") {
            steps.push(Step::Replace(field, template));
        }
        for (field, kind) in pairs(options, "convert") {
            let Some(field) = options.field_of(&field) else { continue };
            match Type::parse(&kind.value) {
                Ok(kind) => steps.push(Step::Convert(field, kind)),
                Err(reason) => options.mistake(&kind.place, reason),
            }
        }
        read_gsub(options, &mut steps);
        for (option, case) in
            [("uppercase", Case::Upper), ("capitalize", Case::Capital), ("lowercase", Case::Lower)]
        {
            for field in fields(options, option) {
                steps.push(Step::Case(field, case));
            }
        }
        steps.extend(fields(options, "strip").into_iter().map(Step::Strip));
        for (field, text) in pairs(options, "split") {
            let field = options.field_of(&field);
            steps.extend(field.map(|field| Step::Split(field, text.value)));
        }
        for (field, text) in pairs(options, "join") {
            let field = options.field_of(&field);
            steps.extend(field.map(|field| Step::Join(field, text.value)));
        }
        for (to, from) in pairs(options, "merge") {
            if let (Some(to), Some(from)) = (options.field_of(&to), options.field_of(&from)) {
                steps.push(Step::Merge(to, from));
            }
        }
        for (from, to) in pairs(options, "copy") {
            if let (Some(from), Some(to)) = (options.field_of(&from), options.field_of(&to)) {
                steps.push(Step::Copy(from, to));
            }
        }
        let tag = options.text("tag_on_failure").unwrap_or_else(|| "_mutate_error".to_owned());
        Some(Self { steps, tag_on_failure: vec![tag] })
    }
}

/// Keys and texts of a hash option; a key with an array of texts stands for several pairs.
fn pairs(options: &mut Options<'_>, name: &'static str) -> Vec<(Located<String>, Located<String>)> {
    let mut pairs = Vec::new();
    for (key, setting) in options.hash(name) {
        for text in options.texts_of(name, &setting) {
            pairs.push((key.clone(), text));
        }
    }
    pairs
}

fn templates(options: &mut Options<'_>, name: &'static str) -> Vec<(FieldRef, Template)> {
    let mut all = Vec::new();
    for (field, text) in pairs(options, name) {
        if let (Some(field), Some(template)) =
            (options.field_of(&field), options.template_of(&text))
        {
            all.push((field, template));
        }
    }
    all
}

fn fields(options: &mut Options<'_>, name: &'static str) -> Vec<FieldRef> {
    let texts = options.list(name);
    texts.iter().filter_map(|text| options.field_of(text)).collect()
}

fn read_gsub(options: &mut Options<'_>, steps: &mut Vec<Step>) {
    let texts = options.list("gsub");
    for triple in texts.chunks(3) {
        let [field, pattern, replacement] = triple else {
            let place = &triple[0].place;
            options.mistake(place, "gsub takes three texts each time: field, pattern, replacement");
            continue;
        };
        if let (Some(field), Some(gsub)) =
            (options.field_of(field), Gsub::read(options, pattern, replacement))
        {
            steps.push(Step::Gsub(field, Box::new(gsub)));
        }
    }
}

impl Filter for Mutate {
    fn apply(&self, event: &mut Event, context: &mut Context) -> Verdict {
        for step in &self.steps {
            if step.apply(event, context).is_err() {
                tag_all(event, &self.tag_on_failure);
                return Verdict::Unmatched;
            }
        }
        Verdict::Matched
    }
}

impl Step {
    fn apply(&self, event: &mut Event, context: &mut Context) -> Result<(), Failed> {
        match self {
            Self::Coerce(field, template) => {
                if event.find(field).is_some_and(|id| event.datum(id) == Datum::Null) {
                    set_text(event, field, template)?;
                }
            }
            Self::Rename(old, new) => rename(event, old, new)?,
            Self::Update(field, template) => {
                if event.find(field).is_some() {
                    set_text(event, field, template)?;
                }
            }
            Self::Replace(field, template) => set_text(event, field, template)?,
            Self::Convert(field, kind) => {
                let Some(id) = event.find(field) else { return Ok(()) };
                if field.is_timestamp() {
                    return Err(Failed);
                }
                each(event, id, |event, id| kind.apply(event, id).map_err(|_| Failed))?;
            }
            Self::Gsub(field, gsub) => {
                let Some(id) = event.find(field) else { return Ok(()) };
                each_text(event, id, |event, span| {
                    gsub.apply(event, span, context).map_err(|Exhausted| Failed)
                })?;
            }
            Self::Case(field, case) => {
                let Some(id) = event.find(field) else { return Ok(()) };
                each_text(event, id, |event, span| {
                    let text = case.apply(event.str_at(span));
                    Ok(event.push_text(&text))
                })?;
            }
            Self::Strip(field) => {
                let Some(id) = event.find(field) else { return Ok(()) };
                each_text(event, id, |event, span| {
                    let text = event.str_at(span);
                    // Ruby's strip takes white space and null characters.
                    let is_blank = |c: char| matches!(c, '\t'..='\r' | ' ' | '\0');
                    let start = text.len() - text.trim_start_matches(is_blank).len();
                    let end = text.trim_end_matches(is_blank).len().max(start);
                    Ok(span.part(start, end))
                })?;
            }
            Self::Split(field, separator) => split(event, field, separator),
            Self::Join(field, separator) => join(event, field, separator),
            Self::Merge(to, from) => merge(event, to, from)?,
            Self::Copy(from, to) => {
                let Some(id) = event.find(from) else { return Ok(()) };
                if event.datum(id) != Datum::Null {
                    let copy = event.deep_copy(id);
                    event.set(to, copy).map_err(|_| Failed)?;
                }
            }
        }
        Ok(())
    }
}

fn set_text(event: &mut Event, field: &FieldRef, template: &Template) -> Result<(), Failed> {
    let span = render(template, event);
    event.set(field, Datum::Text(span)).map(drop).map_err(|_| Failed)
}

fn rename(event: &mut Event, old: &Name, new: &Name) -> Result<(), Failed> {
    let Some(Some(id)) = old.with(event, |event, old| {
        // The time of an event cannot be taken from it.
        if old.is_timestamp() { None } else { event.detach(old) }
    }) else {
        return Ok(());
    };
    let datum = event.datum(id);
    match new.with(event, |event, new| event.set(new, datum)) {
        Some(Ok(_)) => Ok(()),
        _ => Err(Failed),
    }
}

/// Changes a scalar, or each element of an array; objects are left.
fn each(
    event: &mut Event,
    id: NodeId,
    mut change: impl FnMut(&mut Event, NodeId) -> Result<(), Failed>,
) -> Result<(), Failed> {
    match event.datum(id) {
        Datum::Array(_) => {
            let elements: Vec<NodeId> = event.children(id).collect();
            elements.into_iter().try_for_each(|id| change(event, id))
        }
        Datum::Object(_) => Ok(()),
        _ => change(event, id),
    }
}

/// Changes a text, or each text of an array.
fn each_text(
    event: &mut Event,
    id: NodeId,
    mut change: impl FnMut(&mut Event, Span) -> Result<Span, Failed>,
) -> Result<(), Failed> {
    each(event, id, |event, id| {
        if let Datum::Text(span) = event.datum(id) {
            let changed = change(event, span)?;
            event.nodes[id as usize].datum = Datum::Text(changed);
        }
        Ok(())
    })
}

/// As Ruby's split: empty texts at the end vanish, and a single space stands for any white space.
fn split(event: &mut Event, field: &FieldRef, separator: &str) {
    let Some(id) = event.find(field) else { return };
    let Datum::Text(span) = event.datum(id) else { return };
    let text = event.str_at(span);
    let start_of = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    let part_of = |part: &str| span.part(start_of(part), start_of(part) + part.len());
    let mut spans: Vec<Span> = match separator {
        " " => text.split_ascii_whitespace().map(part_of).collect(),
        "" => text.char_indices().map(|(at, c)| span.part(at, at + c.len_utf8())).collect(),
        separator => text.split(separator).map(part_of).collect(),
    };
    while spans.last().is_some_and(|span| span.is_empty()) {
        spans.pop();
    }
    let mut list = List::default();
    for span in spans {
        event.push_to(&mut list, Span::default(), Datum::Text(span));
    }
    event.nodes[id as usize].datum = Datum::Array(list);
}

fn join(event: &mut Event, field: &FieldRef, separator: &str) {
    let Some(id) = event.find(field) else { return };
    let Datum::Array(_) = event.datum(id) else { return };
    let mut text = String::new();
    for (i, element) in event.children(id).enumerate() {
        if i > 0 {
            text.push_str(separator);
        }
        event.view(element).write_text(&mut text);
    }
    let span = event.push_text(&text);
    event.nodes[id as usize].datum = Datum::Text(span);
}

/// Adds what `from` holds to `to`: arrays and scalars become one array, objects one object.
fn merge(event: &mut Event, to: &FieldRef, from: &FieldRef) -> Result<(), Failed> {
    if to.is_timestamp() {
        return Err(Failed);
    }
    let added = event.find(from).map_or(Datum::Null, |id| event.deep_copy(id));
    let held = event.find(to).map_or(Datum::Null, |id| event.datum(id));
    match (held, added) {
        (Datum::Object(_), Datum::Object(added)) => {
            let Some(id) = event.find(to) else { return Ok(()) };
            let mut at = added.first;
            while at != 0 {
                let node = event.nodes[at as usize];
                at = node.next;
                match event.child_by_key(id, node.key) {
                    Some(child) => event.nodes[child as usize].datum = node.datum,
                    None => {
                        event.append(id, node.key, node.datum);
                    }
                }
            }
        }
        // Logstash logs that an object and an array cannot be merged, and goes on.
        (Datum::Object(_), _) | (_, Datum::Object(_)) => {}
        (held, added) => {
            let id = event.entry(to).map_err(|_| Failed)?;
            if !matches!(held, Datum::Array(_)) {
                event.nodes[id as usize].datum = Datum::Array(List::default());
                if held != Datum::Null {
                    event.append(id, Span::default(), held);
                }
            }
            match added {
                Datum::Null => {}
                Datum::Array(list) => {
                    let mut at = list.first;
                    while at != 0 {
                        let node = event.nodes[at as usize];
                        at = node.next;
                        event.append(id, Span::default(), node.datum);
                    }
                }
                scalar => {
                    event.append(id, Span::default(), scalar);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
