//! Reads the options of a plugin by name and type, and notes every mistake on the way.
//!
//! Values are coerced as Logstash does: a scalar where an array is wanted becomes an array of one, an
//! array of keys and values becomes a hash, `"true"` is a boolean, `"12"` a number.

use elkfk_base::{Mistakes, mistakes::did_you_mean};

use super::ast::{Place, Plugin, Setting, SettingKind};
use crate::event::{FieldRef, Template};

/// The options of one plugin. Call [`Options::finish`] after the last was read.
#[derive(Debug)]
pub struct Options<'a> {
    plugin: &'a Plugin,
    /// Names asked for, thus known.
    known: Vec<&'static str>,
    mistakes: &'a mut Mistakes,
}

/// A text of the configuration and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    pub value: T,
    pub place: Place,
}

impl<'a> Options<'a> {
    pub fn new(plugin: &'a Plugin, mistakes: &'a mut Mistakes) -> Self {
        Self { plugin, known: Vec::new(), mistakes }
    }

    pub fn plugin(&self) -> &'a Plugin {
        self.plugin
    }

    /// The option as written.
    pub fn setting(&mut self, name: &'static str) -> Option<&'a Setting> {
        self.known.push(name);
        self.plugin.attributes.iter().find(|held| held.name == name).map(|held| &held.value)
    }

    /// Notes a mistake at `place`.
    pub fn mistake(&mut self, place: &Place, text: impl Into<String>) {
        self.mistakes.push(place.mistake(text));
    }

    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.located(name).map(|text| text.value)
    }

    /// A text and where it stands.
    pub fn located(&mut self, name: &'static str) -> Option<Located<String>> {
        let setting = self.setting(name)?;
        match setting.as_text() {
            Some(text) => Some(Located { value: text.to_owned(), place: setting.place.clone() }),
            None => self.wrong_kind(name, setting, "a string"),
        }
    }

    /// A text that must be given.
    pub fn required(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name);
        if text.is_none() && !self.has(name) {
            self.missing(name);
        }
        text
    }

    /// Notes that a required option is missing.
    pub fn missing(&mut self, name: &str) {
        let text = format!("{} \"{}\" needs {name} => …", self.plugin.section, self.plugin.name);
        self.mistakes.push(self.plugin.place.mistake(text));
    }

    /// Whether the option was given, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.plugin.attributes.iter().any(|held| held.name == name)
    }

    pub fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        let Some(setting) = self.setting(name) else { return default };
        match setting.as_text() {
            Some("true") => true,
            Some("false") => false,
            _ => self.wrong_kind(name, setting, "true or false").unwrap_or(default),
        }
    }

    pub fn number(&mut self, name: &'static str) -> Option<f64> {
        let setting = self.setting(name)?;
        match setting.as_text().and_then(|text| text.parse().ok()) {
            Some(number) => Some(number),
            None => self.wrong_kind(name, setting, "a number"),
        }
    }

    /// A whole number not below zero.
    pub fn count(&mut self, name: &'static str, default: u64) -> u64 {
        let Some(setting) = self.setting(name) else { return default };
        match setting.as_text().and_then(|text| text.parse().ok()) {
            Some(number) => number,
            None => self.wrong_kind(name, setting, "a whole number").unwrap_or(default),
        }
    }

    /// One of `choices`.
    pub fn choice(&mut self, name: &'static str, choices: &[&'static str]) -> Option<&'static str> {
        let text = self.located(name)?;
        let found = choices.iter().find(|choice| **choice == text.value);
        if found.is_none() {
            let hint = did_you_mean(&text.value, choices.iter().copied());
            let choices = choices.join(", ");
            let message = format!("{name} is \"{}\"{hint}; it may be {choices}", text.value);
            self.mistake(&text.place, message);
        }
        found.copied()
    }

    /// Texts; a single one stands for an array of one.
    pub fn list(&mut self, name: &'static str) -> Vec<Located<String>> {
        let Some(setting) = self.setting(name) else { return Vec::new() };
        self.texts_of(name, setting)
    }

    /// The texts of a value that is one or an array of them.
    pub fn texts_of(&mut self, name: &str, setting: &Setting) -> Vec<Located<String>> {
        let elements = match &setting.kind {
            SettingKind::Array(elements) => elements.as_slice(),
            _ => std::slice::from_ref(setting),
        };
        let mut texts = Vec::with_capacity(elements.len());
        for element in elements {
            match element.as_text() {
                Some(text) => {
                    texts.push(Located { value: text.to_owned(), place: element.place.clone() })
                }
                None => {
                    self.wrong_kind::<()>(name, element, "a string");
                }
            }
        }
        texts
    }

    /// Keys and values; an array `[key, value, key, value]` stands for a hash.
    pub fn hash(&mut self, name: &'static str) -> Vec<(Located<String>, Setting)> {
        let Some(setting) = self.setting(name) else { return Vec::new() };
        match &setting.kind {
            SettingKind::Hash(entries) => entries
                .iter()
                .map(|(key, value)| {
                    (Located { value: key.clone(), place: value.place.clone() }, value.clone())
                })
                .collect(),
            SettingKind::Array(elements) => self.hash_of_array(name, setting, elements),
            _ => {
                self.wrong_kind::<()>(name, setting, "a hash { key => value }");
                Vec::new()
            }
        }
    }

    fn hash_of_array(
        &mut self,
        name: &str,
        setting: &Setting,
        elements: &[Setting],
    ) -> Vec<(Located<String>, Setting)> {
        // `[{ … }]` is what remains of repeated hashes in old files.
        if !elements.is_empty()
            && elements.iter().all(|element| matches!(element.kind, SettingKind::Hash(_)))
        {
            let entries = elements.iter().flat_map(|element| match &element.kind {
                SettingKind::Hash(entries) => entries.as_slice(),
                _ => &[],
            });
            return entries
                .map(|(key, value)| {
                    (Located { value: key.clone(), place: value.place.clone() }, value.clone())
                })
                .collect();
        }
        if elements.len() % 2 == 1 {
            self.wrong_kind::<()>(name, setting, "a hash, or an array of keys and values in turn");
            return Vec::new();
        }
        let mut entries = Vec::new();
        for pair in elements.chunks_exact(2) {
            match pair[0].as_text() {
                Some(key) => entries.push((
                    Located { value: key.to_owned(), place: pair[0].place.clone() },
                    pair[1].clone(),
                )),
                None => {
                    self.wrong_kind::<()>(name, &pair[0], "a key");
                }
            }
        }
        entries
    }

    pub fn field(&mut self, name: &'static str) -> Option<FieldRef> {
        let text = self.located(name)?;
        self.field_of(&text)
    }

    /// A text read as a field reference.
    pub fn field_of(&mut self, text: &Located<String>) -> Option<FieldRef> {
        match FieldRef::parse(&text.value) {
            Ok(field) => Some(field),
            Err(error) => {
                self.mistake(&text.place, error.to_string());
                None
            }
        }
    }

    pub fn template(&mut self, name: &'static str) -> Option<Template> {
        let text = self.located(name)?;
        self.template_of(&text)
    }

    /// A text read as a template.
    pub fn template_of(&mut self, text: &Located<String>) -> Option<Template> {
        match Template::parse(&text.value) {
            Ok(template) => Some(template),
            Err(error) => {
                self.mistake(&text.place, error.to_string());
                None
            }
        }
    }

    /// A codec: `json` or `json { … }`.
    pub fn codec(&mut self, name: &'static str) -> Option<Plugin> {
        let setting = self.setting(name)?;
        match &setting.kind {
            SettingKind::Plugin(plugin) => Some(plugin.clone()),
            SettingKind::Text(codec) => Some(Plugin {
                section: super::ast::Section::Codec,
                name: codec.clone(),
                place: setting.place.clone(),
                attributes: Vec::new(),
            }),
            _ => self.wrong_kind(name, setting, "a codec"),
        }
    }

    /// Options of Logstash's plugin that have no meaning here: named in a warning if given.
    pub fn ignored(&mut self, names: &[&'static str]) {
        for name in names {
            if let Some(setting) = self.setting(name) {
                tracing::warn!(
                    option = name,
                    plugin = %self.plugin.name,
                    place = %setting.place,
                    "option has no effect"
                );
            }
        }
    }

    /// Options of Logstash's plugin that would change the result and are not done yet: a mistake if given.
    pub fn refused(&mut self, names: &[&'static str]) {
        for name in names {
            if let Some(setting) = self.setting(name) {
                let text = format!(
                    "option \"{name}\" of {} \"{}\" is not supported; remove it",
                    self.plugin.section, self.plugin.name
                );
                self.mistakes.push(setting.place.mistake(text));
            }
        }
    }

    /// Notes every option that was never asked for.
    pub fn finish(self) {
        let known = self.known;
        for attribute in &self.plugin.attributes {
            if !known.contains(&attribute.name.as_str()) {
                let hint = did_you_mean(&attribute.name, known.iter().copied());
                let hint = if hint.is_empty() {
                    let mut known = known.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("; it has {}", known.join(", "))
                } else {
                    hint
                };
                self.mistakes.push(attribute.place.mistake(format!(
                    "unknown option \"{}\" of {} \"{}\"{hint}",
                    attribute.name, self.plugin.section, self.plugin.name
                )));
            }
        }
    }

    fn wrong_kind<T>(&mut self, name: &str, setting: &Setting, wanted: &str) -> Option<T> {
        let given = match setting.as_text() {
            Some(text) => format!("\"{text}\""),
            None => setting.kind_name().to_owned(),
        };
        self.mistakes
            .push(setting.place.mistake(format!("{name} is {given}; it must be {wanted}")));
        None
    }
}
