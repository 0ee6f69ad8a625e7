//! The options that every filter has: `add_field`, `remove_field`, `add_tag`, `remove_tag`, `id`.
//!
//! They act only where the filter succeeded, in the order Logstash applies them.

use crate::{
    config::{Options, SettingKind},
    event::{Datum, Event, FieldRef, Span, Template},
};

/// What follows a filter that matched.
#[derive(Debug, Default)]
pub(crate) struct Common {
    add_field: Vec<(Name, Vec<Template>)>,
    remove_field: Vec<Name>,
    add_tag: Vec<Template>,
    remove_tag: Vec<Template>,
    is_empty: bool,
}

/// A field's name, which may be a template itself.
#[derive(Debug)]
pub(crate) enum Name {
    Fixed(FieldRef),
    Computed(Template),
}

impl Name {
    pub(crate) fn read(
        options: &mut Options<'_>,
        text: &crate::config::Located<String>,
    ) -> Option<Self> {
        if text.value.contains("%{") {
            options.template_of(text).map(Self::Computed)
        } else {
            options.field_of(text).map(Self::Fixed)
        }
    }

    /// Calls `then` with the reference; not at all where the computed name is none.
    pub(crate) fn with<T>(
        &self,
        event: &mut Event,
        then: impl FnOnce(&mut Event, &FieldRef) -> T,
    ) -> Option<T> {
        match self {
            Self::Fixed(field) => Some(then(event, field)),
            Self::Computed(template) => {
                let field = FieldRef::parse(&template.to_text(event)).ok()?;
                Some(then(event, &field))
            }
        }
    }
}

impl Common {
    pub(crate) fn read(options: &mut Options<'_>) -> Self {
        let mut common = Self::default();
        for (key, setting) in options.hash("add_field") {
            let Some(name) = Name::read(options, &key) else { continue };
            if matches!(setting.kind, SettingKind::Hash(_)) {
                options.mistake(
                    &setting.place,
                    "add_field takes texts; write [outer][inner] => \"text\"",
                );
                continue;
            }
            let texts = options.texts_of("add_field", &setting);
            let values = texts.iter().filter_map(|text| options.template_of(text)).collect();
            common.add_field.push((name, values));
        }
        for text in options.list("remove_field") {
            common.remove_field.extend(Name::read(options, &text));
        }
        for text in options.list("add_tag") {
            common.add_tag.extend(options.template_of(&text));
        }
        for text in options.list("remove_tag") {
            common.remove_tag.extend(options.template_of(&text));
        }
        options.text("id");
        options.ignored(&["enable_metric", "periodic_flush"]);
        common.is_empty = common.add_field.is_empty()
            && common.remove_field.is_empty()
            && common.add_tag.is_empty()
            && common.remove_tag.is_empty();
        common
    }

    /// Applies to an event that the filter matched.
    pub(crate) fn apply(&self, event: &mut Event) {
        if self.is_empty {
            return;
        }
        for (name, values) in &self.add_field {
            for value in values {
                let span = render(value, event);
                name.with(event, |event, field| add(event, field, span));
            }
        }
        for name in &self.remove_field {
            name.with(event, |event, field| event.remove(field));
        }
        for tag in &self.add_tag {
            match tag.as_literal() {
                Some(tag) => event.tag(tag),
                None => {
                    let tag = tag.to_text(event);
                    event.tag(&tag);
                }
            }
        }
        for tag in &self.remove_tag {
            let tag = tag.to_text(event);
            event.untag(&tag);
        }
    }
}

/// The text of a template, in the event's buffer.
pub(crate) fn render(template: &Template, event: &mut Event) -> Span {
    match template.as_literal() {
        Some(text) => event.push_text(text),
        None => {
            let text = template.to_text(event);
            event.push_text(&text)
        }
    }
}

/// Sets a field that is missing; one that is there becomes an array with the new value at its end.
fn add(event: &mut Event, field: &FieldRef, span: Span) {
    let Some(id) = event.find(field) else {
        // Where the path leads through a text, Logstash fails the whole event; we leave it as it is.
        let _ = event.set(field, Datum::Text(span));
        return;
    };
    match event.datum(id) {
        Datum::Array(_) => {}
        Datum::Null => {
            event.nodes[id as usize].datum = Datum::Text(span);
            return;
        }
        Datum::Time(..) if field.is_timestamp() => return,
        held => {
            event.nodes[id as usize].datum = Datum::Array(Default::default());
            event.append(id, Span::default(), held);
        }
    }
    event.append(id, Span::default(), Datum::Text(span));
}
