//! Takes a text apart by named patterns: `%{IPORHOST:[source][address]} %{WORD:verb}`.
//!
//! Patterns compile before the first event. A line is tried from its start by a backtracking machine,
//! which nearly every matching line survives in one pass; one that fails there meets a linear-time
//! expression that can prove there is no match; what is left is searched within a budget of steps,
//! past which the event is tagged `_groktimeout`.
//! Differs: the budget is steps, some 10 ms, whatever `timeout_millis` allows beyond; with
//! `break_on_match => false` one match suffices, where Logstash looks at the last pattern only.

mod patterns;

use std::path::{Path, PathBuf};

use super::{Context, Filter, Verdict, numbers};
use crate::{
    config::{Located, Options},
    event::{Datum, Event, FieldRef, Span},
    filter::regex::{CaptureName, Exhausted, Expression, UNSET},
};

pub(crate) use patterns::Patterns;

#[derive(Debug)]
pub(crate) struct Grok {
    matches: Vec<Match>,
    breaks_on_match: bool,
    keeps_empty: bool,
    tags_on_failure: Vec<String>,
    tag_on_timeout: String,
}

/// A field and the expressions it is matched against, in turn.
#[derive(Debug)]
struct Match {
    source: FieldRef,
    expressions: Vec<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    expression: Expression,
    fields: Vec<Field>,
}

/// Where a capture goes.
#[derive(Debug)]
struct Field {
    /// Index of the capture.
    capture: usize,
    field: FieldRef,
    kind: Kind,
    is_overwritten: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
    Float,
}

impl Grok {
    pub(crate) fn read(options: &mut Options<'_>) -> Option<Self> {
        let ecs = options.choice("ecs_compatibility", &["disabled", "v1", "v8"]);
        let mut patterns = Patterns::stock(ecs != Some("disabled"));
        let glob = options.located("patterns_files_glob");
        for directory in options.list("patterns_dir") {
            add_directory(&mut patterns, options, &directory, glob.as_ref());
        }
        for (name, setting) in options.hash("pattern_definitions") {
            match setting.as_text() {
                Some(definition) => patterns.add(&name.value, definition.trim_end_matches('\n')),
                None => options.mistake(&setting.place, "a definition is a text"),
            }
        }
        let target = options.field("target");
        let overwrites: Vec<FieldRef> =
            options.list("overwrite").iter().filter_map(|text| options.field_of(text)).collect();
        let reader = Reader {
            patterns,
            target,
            overwrites,
            is_named_only: options.boolean("named_captures_only", true),
        };
        if !options.has("match") {
            options.missing("match");
        }
        let mut matches = Vec::new();
        for (source, setting) in options.hash("match") {
            let texts = options.texts_of("match", &setting);
            let Some(source) = options.field_of(&source) else { continue };
            let expressions =
                texts.iter().filter_map(|text| reader.compile(options, text)).collect();
            matches.push(Match { source, expressions });
        }
        options.ignored(&["timeout_millis", "timeout_scope"]);
        let tags = options.list("tag_on_failure");
        Some(Self {
            matches,
            breaks_on_match: options.boolean("break_on_match", true),
            keeps_empty: options.boolean("keep_empty_captures", false),
            tags_on_failure: if options.has("tag_on_failure") {
                tags.into_iter().map(|tag| tag.value).collect()
            } else {
                vec!["_grokparsefailure".to_owned()]
            },
            tag_on_timeout: options
                .text("tag_on_timeout")
                .unwrap_or_else(|| "_groktimeout".to_owned()),
        })
    }

    /// Matches one field; whether any expression did.
    fn match_field(
        &self,
        one: &Match,
        event: &mut Event,
        context: &mut Context,
    ) -> Result<bool, Exhausted> {
        let Some(id) = event.find(&one.source) else {
            return self.match_span(one, Span::default(), event, context);
        };
        match event.datum(id) {
            Datum::Text(span) => self.match_span(one, span, event, context),
            Datum::Array(_) => {
                let mut is_matched = false;
                let elements: Vec<_> = event.children(id).collect();
                for id in elements {
                    let span = event.span_of_text(id);
                    is_matched |= self.match_span(one, span, event, context)?;
                }
                Ok(is_matched)
            }
            _ => {
                let span = event.span_of_text(id);
                self.match_span(one, span, event, context)
            }
        }
    }

    fn match_span(
        &self,
        one: &Match,
        span: Span,
        event: &mut Event,
        context: &mut Context,
    ) -> Result<bool, Exhausted> {
        let mut is_matched = false;
        for compiled in &one.expressions {
            if !compiled.expression.find(event.str_at(span), &mut context.machine)? {
                continue;
            }
            is_matched = true;
            self.set_fields(compiled, span, event, context);
            if self.breaks_on_match {
                break;
            }
        }
        Ok(is_matched)
    }

    fn set_fields(&self, compiled: &Compiled, span: Span, event: &mut Event, context: &Context) {
        for field in &compiled.fields {
            let slots = &context.machine.slots[field.capture * 2..];
            let is_set = slots[0] != UNSET && slots[1] != UNSET;
            if !is_set || slots[0] == slots[1] {
                if self.keeps_empty {
                    let empty = Datum::Text(Span::default());
                    self.set_field(field, if is_set { empty } else { Datum::Null }, event);
                }
                continue;
            }
            let captured = span.part(slots[0] as usize, slots[1] as usize);
            let datum = match field.kind {
                Kind::Text => Datum::Text(captured),
                Kind::Int => numbers::leading_int(event, captured),
                Kind::Float => Datum::Float(numbers::leading_float(event.str_at(captured))),
            };
            self.set_field(field, datum, event);
        }
    }

    /// Sets a field; a text that is there already becomes an array, other values stay as they are.
    fn set_field(&self, field: &Field, datum: Datum, event: &mut Event) {
        // A path through a text, or a time that is none, leaves the event as it was.
        let Ok(id) = event.entry(&field.field) else { return };
        if field.field.is_timestamp() {
            let _ = event.set(&field.field, datum);
            return;
        }
        if field.is_overwritten || event.datum(id) == Datum::Null {
            event.nodes[id as usize].datum = datum;
            return;
        }
        match event.datum(id) {
            Datum::Array(_) => {}
            held @ Datum::Text(_) => {
                event.nodes[id as usize].datum = Datum::Array(Default::default());
                event.append(id, Span::default(), held);
            }
            _ => return,
        }
        event.append(id, Span::default(), datum);
    }
}

impl Filter for Grok {
    fn apply(&self, event: &mut Event, context: &mut Context) -> Verdict {
        let mut is_matched = false;
        for one in &self.matches {
            match self.match_field(one, event, context) {
                Ok(matched) => is_matched |= matched,
                Err(Exhausted) => {
                    context.grok_failures += 1;
                    event.tag(&self.tag_on_timeout);
                    return Verdict::Unmatched;
                }
            }
            if is_matched && self.breaks_on_match {
                break;
            }
        }
        if is_matched {
            return Verdict::Matched;
        }
        context.grok_failures += 1;
        for tag in &self.tags_on_failure {
            event.tag(tag);
        }
        Verdict::Unmatched
    }
}

/// What the expressions of a filter share while they are compiled.
struct Reader {
    patterns: Patterns,
    target: Option<FieldRef>,
    overwrites: Vec<FieldRef>,
    is_named_only: bool,
}

impl Reader {
    fn compile(&self, options: &mut Options<'_>, text: &Located<String>) -> Option<Compiled> {
        let is_wanted = |name: &CaptureName| match name {
            CaptureName::Name(_) => true,
            CaptureName::Pattern(_) => !self.is_named_only,
            CaptureName::Number(_) => false,
        };
        let expression = match Expression::grok(&text.value, &self.patterns, is_wanted) {
            Ok(expression) => expression,
            Err(reason) => {
                options.mistake(&text.place, format!("grok pattern \"{}\": {reason}", text.value));
                return None;
            }
        };
        let mut fields = Vec::new();
        for (capture, name) in expression.captures().iter().enumerate() {
            if !is_wanted(name) {
                continue;
            }
            let name = match name {
                CaptureName::Name(name) | CaptureName::Pattern(name) => name,
                CaptureName::Number(_) => continue,
            };
            let (name, kind) = self.kind(name, text);
            let located = Located { value: name.to_owned(), place: text.place.clone() };
            let field = options.field_of(&located)?;
            fields.push(Field {
                capture,
                kind,
                is_overwritten: self.overwrites.contains(&field),
                field: match &self.target {
                    Some(target) => target.join(&field),
                    None => field,
                },
            });
        }
        Some(Compiled { expression, fields })
    }

    fn kind<'n>(&self, name: &'n str, text: &Located<String>) -> (&'n str, Kind) {
        match name.split_once(':') {
            None => (name, Kind::Text),
            Some((name, "int")) => (name, Kind::Int),
            Some((name, "float")) => (name, Kind::Float),
            Some((name, "string" | "")) => (name, Kind::Text),
            Some((name, other)) => {
                tracing::warn!(
                    kind = other,
                    field = name,
                    place = %text.place,
                    "grok knows int and float; the field stays a text"
                );
                (name, Kind::Text)
            }
        }
    }
}

fn add_directory(
    patterns: &mut Patterns,
    options: &mut Options<'_>,
    directory: &Located<String>,
    glob: Option<&Located<String>>,
) {
    let path = Path::new(&directory.value);
    let listed = if path.is_dir() { list(path, glob) } else { Ok(vec![path.to_owned()]) };
    let read = listed.and_then(|files| files.iter().try_for_each(|file| patterns.add_file(file)));
    if let Err(error) = read {
        options.mistake(
            &directory.place,
            format!("patterns_dir \"{}\" cannot be read: {error}", directory.value),
        );
    }
}

fn list(directory: &Path, glob: Option<&Located<String>>) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_file()
            && !name.starts_with('.')
            && glob.is_none_or(|glob| fits(&glob.value, name))
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a name fits a glob of `*` and `?`.
fn fits(glob: &str, name: &str) -> bool {
    match glob.chars().next() {
        None => name.is_empty(),
        Some('*') => name
            .char_indices()
            .map(|(at, _)| at)
            .chain([name.len()])
            .any(|at| fits(&glob[1..], &name[at..])),
        Some(wanted) => {
            let mut rest = name.chars();
            rest.next().is_some_and(|c| wanted == '?' || c == wanted)
                && fits(&glob[wanted.len_utf8()..], rest.as_str())
        }
    }
}

#[cfg(test)]
mod tests;
