//! Takes `key=value` pairs from a text.
//!
//! One expression finds a key, the splitter, a value (bare, quoted or in brackets) and the end of the
//! field, as Logstash builds it. Differs: a text on which the expression takes too long is tagged
//! `_kv_filter_timeout` by steps, not by time.

use super::{
    Context, Filter, Verdict,
    gsub::replace_all,
    mutate::Case,
    regex::{Exhausted, Pattern, UNSET},
    render, tag_all,
};
use crate::{
    config::Options,
    event::{Datum, Event, FieldRef, KeyIndex, List, NodeId, ROOT, Span, Template},
};

#[derive(Debug)]
pub(crate) struct Kv {
    source: FieldRef,
    target: Option<FieldRef>,
    /// Key, splitter, value, end of field; values are its captures from the second on.
    scan: Pattern,
    splitter: Pattern,
    prefix: Template,
    trim_key: Option<Pattern>,
    trim_value: Option<Pattern>,
    remove_char_key: Option<Pattern>,
    remove_char_value: Option<Pattern>,
    transform_key: Option<Case>,
    transform_value: Option<Case>,
    include_keys: Vec<Template>,
    exclude_keys: Vec<Template>,
    default_keys: Vec<(String, Template)>,
    allows_duplicates: bool,
    allows_empty: bool,
    is_recursive: bool,
    tags_on_failure: Vec<String>,
    tag_on_timeout: String,
}

/// A value within a value is looked into this often under `recursive`.
const DEPTH_MAX: usize = 16;

impl Kv {
    pub(crate) fn read(options: &mut Options<'_>) -> Option<Self> {
        let field_split = options.text("field_split").unwrap_or_else(|| " ".to_owned());
        let value_split = options.located("value_split");
        if let Some(empty) = value_split.as_ref().filter(|text| text.value.is_empty()) {
            options.mistake(&empty.place, "value_split must not be empty");
            return None;
        }
        let value_split = value_split.map_or_else(|| "=".to_owned(), |text| text.value);
        let field_pattern = options.located("field_split_pattern");
        let value_pattern = options.located("value_split_pattern");
        let is_lenient = options.choice("whitespace", &["strict", "lenient"]) != Some("strict");
        let has_brackets = options.boolean("include_brackets", true);

        let field_end = field_pattern
            .as_ref()
            .map_or_else(|| format!("[{field_split}]"), |text| text.value.clone());
        let mut splitter = value_pattern
            .as_ref()
            .map_or_else(|| format!("[{value_split}]"), |text| format!("(?:{})", text.value));
        if is_lenient {
            splitter = format!("(?: *){splitter}(?: *)");
        }
        let until_class = |class: &str| format!("(?<v>(?:\\\\.|[^{class}])+)");
        let until_pattern = |pattern: &str| format!("(?<v>(?:(?!{pattern})(?:\\\\.|.))+)");
        let key = if field_pattern.is_some() || value_pattern.is_some() {
            until_pattern(&format!("(?:{splitter}|{field_end})"))
        } else {
            until_class(&format!("{value_split}{field_split}"))
        };
        let quoted = |open: &str, close: &str| format!("{open}{}?{close}", until_class(close));
        let mut values = vec![quoted("\"", "\""), quoted("'", "'")];
        if has_brackets {
            values.extend([quoted(r"\(", r"\)"), quoted(r"\[", r"\]"), quoted("<", ">")]);
        }
        values.push(if field_pattern.is_some() {
            until_pattern(&format!("(?:{field_end})"))
        } else {
            until_class(&field_split)
        });
        let scan = format!("{key}{splitter}(?:{})?(?:(?:{field_end})|$)", values.join("|"));

        let place = options.plugin().place.clone();
        let pattern = |options: &mut Options<'_>, text: &str| match Pattern::new(text) {
            Ok(pattern) => Some(pattern),
            Err(reason) => {
                options
                    .mistake(&place, format!("the splitters make no regular expression: {reason}"));
                None
            }
        };
        let (scan, splitter) = (pattern(options, &scan), pattern(options, &splitter));
        let of_class = |options: &mut Options<'_>, name: &'static str, is_trim: bool| {
            let class = options.text(name)?;
            pattern(
                options,
                &if is_trim { format!("^[{class}]+|[{class}]+$") } else { format!("[{class}]") },
            )
        };
        let trim_key = of_class(options, "trim_key", true);
        let trim_value = of_class(options, "trim_value", true);
        let remove_char_key = of_class(options, "remove_char_key", false);
        let remove_char_value = of_class(options, "remove_char_value", false);
        let case = |options: &mut Options<'_>, name| {
            options.choice(name, &["lowercase", "uppercase", "capitalize"]).map(|case| match case {
                "lowercase" => Case::Lower,
                "uppercase" => Case::Upper,
                _ => Case::Capital,
            })
        };
        let (transform_key, transform_value) =
            (case(options, "transform_key"), case(options, "transform_value"));
        let templates = |options: &mut Options<'_>, name| {
            let texts = options.list(name);
            texts.iter().filter_map(|text| options.template_of(text)).collect()
        };
        let (include_keys, exclude_keys) =
            (templates(options, "include_keys"), templates(options, "exclude_keys"));
        let mut default_keys = Vec::new();
        for (key, setting) in options.hash("default_keys") {
            for text in options.texts_of("default_keys", &setting) {
                default_keys
                    .extend(options.template_of(&text).map(|text| (key.value.clone(), text)));
            }
        }
        options.ignored(&["timeout_millis", "ecs_compatibility"]);
        let tags = options.list("tag_on_failure");
        Some(Self {
            source: if options.has("source") {
                options.field("source")?
            } else {
                options.field("source").unwrap_or_else(|| FieldRef::top("message"))
            },
            target: options.field("target"),
            scan: scan?,
            splitter: splitter?,
            prefix: options.template("prefix").unwrap_or_else(|| Template::literal("")),
            trim_key,
            trim_value,
            remove_char_key,
            remove_char_value,
            transform_key,
            transform_value,
            include_keys,
            exclude_keys,
            default_keys,
            allows_duplicates: options.boolean("allow_duplicate_values", true),
            allows_empty: options.boolean("allow_empty_values", false),
            is_recursive: options.boolean("recursive", false),
            tags_on_failure: if options.has("tag_on_failure") {
                tags.into_iter().map(|tag| tag.value).collect()
            } else {
                vec!["_kv_filter_error".to_owned()]
            },
            tag_on_timeout: options
                .text("tag_on_timeout")
                .unwrap_or_else(|| "_kv_filter_timeout".to_owned()),
        })
    }

    /// Adds the pairs of a text to the object `into`.
    fn parse(
        &self,
        event: &mut Event,
        text: Span,
        into: NodeId,
        depth: usize,
        context: &mut Context,
    ) -> Result<(), Exhausted> {
        if self.splitter.find_at(event.str_at(text), 0, &mut context.machine)?.is_none() {
            return Ok(());
        }
        let include = rendered(&self.include_keys, event);
        let exclude = rendered(&self.exclude_keys, event);
        let prefix = render(&self.prefix, event);
        let mut at = 0;
        let mut pairs = KeyIndex::new(into);
        while let Some((start, end)) =
            self.scan.find_at(event.str_at(text), at, &mut context.machine)?
        {
            let slots = &context.machine.slots;
            let pair = |capture: usize| {
                let (start, end) = (slots[capture * 2], slots[capture * 2 + 1]);
                (start != UNSET && end != UNSET).then(|| text.part(start as usize, end as usize))
            };
            let key = pair(0);
            let value = (1..self.scan.captures().len()).find_map(pair).unwrap_or_default();
            at = if end > start { end } else { end + 1 };
            let Some(key) = key else { continue };
            if value.is_empty() && !self.allows_empty {
                continue;
            }
            let key = self.shape(
                event,
                key,
                [&self.trim_key, &self.remove_char_key],
                self.transform_key,
                context,
            )?;
            let name = event.str_at(key);
            if (!include.is_empty() && !include.iter().any(|held| held == name))
                || exclude.iter().any(|held| held == name)
            {
                continue;
            }
            let key = if prefix.is_empty() {
                key
            } else {
                let joined = [event.str_at(prefix), event.str_at(key)].concat();
                event.push_text(&joined)
            };
            let value = self.shape(
                event,
                value,
                [&self.trim_value, &self.remove_char_value],
                self.transform_value,
                context,
            )?;
            let held = pairs.find(event, key);
            self.add(event, into, (key, held), value, depth, context)?;
        }
        Ok(())
    }

    fn shape(
        &self,
        event: &mut Event,
        mut span: Span,
        patterns: [&Option<Pattern>; 2],
        case: Option<Case>,
        context: &mut Context,
    ) -> Result<Span, Exhausted> {
        for pattern in patterns.into_iter().flatten() {
            let text = event.str_at(span);
            if pattern.find_at(text, 0, &mut context.machine)?.is_some() {
                let text = replace_all(pattern, text, "", &mut context.machine)?;
                span = event.push_text(&text);
            }
        }
        Ok(match case {
            Some(case) => {
                let text = case.apply(event.str_at(span));
                event.push_text(&text)
            }
            None => span,
        })
    }

    fn add(
        &self,
        event: &mut Event,
        into: NodeId,
        (key, held): (Span, Option<NodeId>),
        value: Span,
        depth: usize,
        context: &mut Context,
    ) -> Result<(), Exhausted> {
        if let Some(held) = held.filter(|_| !self.allows_duplicates) {
            let text = event.str_at(value);
            let is_same =
                |id: NodeId| event.span(id).is_some_and(|span| event.str_at(span) == text);
            if is_same(held) || event.children(held).any(is_same) {
                return Ok(());
            }
        }
        let mut datum = Datum::Text(value);
        if self.is_recursive && depth < DEPTH_MAX {
            let inner = event.push_node(Datum::Object(List::default()));
            self.parse(event, value, inner, depth + 1, context)?;
            if event.children(inner).next().is_some() {
                datum = event.datum(inner);
            }
        }
        let Some(held) = held else {
            event.append(into, key, datum);
            return Ok(());
        };
        if !matches!(event.datum(held), Datum::Array(_)) {
            let first = event.datum(held);
            event.nodes[held as usize].datum = Datum::Array(List::default());
            event.append(held, Span::default(), first);
        }
        event.append(held, Span::default(), datum);
        Ok(())
    }
}

fn rendered(templates: &[Template], event: &Event) -> Vec<String> {
    templates.iter().map(|template| template.to_text(event)).collect()
}

impl Filter for Kv {
    fn apply(&self, event: &mut Event, context: &mut Context) -> Verdict {
        let found = event.push_node(Datum::Object(List::default()));
        let spans: Vec<Span> = match event.find(&self.source).map(|id| (id, event.datum(id))) {
            Some((_, Datum::Text(span))) => vec![span],
            Some((id, Datum::Array(_))) => {
                event.children(id).filter_map(|element| event.span(element)).collect()
            }
            _ => Vec::new(),
        };
        let parsed =
            spans.into_iter().try_for_each(|span| self.parse(event, span, found, 0, context));
        if parsed == Err(Exhausted) {
            // Nor the pairs found so far: which are missing could not be told. As in Logstash.
            event.tag(&self.tag_on_timeout);
            return Verdict::Unmatched;
        }
        for (key, template) in &self.default_keys {
            if event.child(found, key).is_none() {
                let value = render(template, event);
                event.set_child(found, key, Datum::Text(value));
            }
        }
        if event.children(found).next().is_none() {
            return Verdict::Unmatched;
        }
        let is_set = match &self.target {
            Some(target) => {
                let datum = event.datum(found);
                event.set(target, datum).is_ok()
            }
            None => {
                let pairs: Vec<NodeId> = event.children(found).collect();
                let mut fields = KeyIndex::new(ROOT);
                pairs.into_iter().all(|id| {
                    let node = event.nodes[id as usize];
                    let key = event.str_at(node.key);
                    // Logstash reads each key as a field reference.
                    if key.contains(['[', ']']) || key == crate::event::TIMESTAMP {
                        let field = FieldRef::parse(key);
                        return field.is_ok_and(|field| event.set(&field, node.datum).is_ok());
                    }
                    match fields.find(event, node.key) {
                        Some(held) => event.nodes[held as usize].datum = node.datum,
                        None => {
                            event.append(ROOT, node.key, node.datum);
                        }
                    }
                    true
                })
            }
        };
        if is_set {
            Verdict::Matched
        } else {
            tag_all(event, &self.tags_on_failure);
            Verdict::Unmatched
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::filter::testing::{check, refused};

    fn one(options: &str, message: &str, wanted: &str) {
        let json = serde_json::json!({ "message": message, "x": "k" }).to_string();
        check(
            &format!("kv {{ {options} }} mutate {{ remove_field => [message, x] }}"),
            &json,
            wanted,
        );
    }

    #[test]
    fn pairs_become_fields() {
        one("", "a=1 b=two c= d", r#"{"a":"1","b":"two","c":"d"}"#);
        one(
            "",
            r#"a="x y" b='p q' c=(r s) d=[t u] e=<v w> f="it\"s" "#,
            r#"{"a":"x y","b":"p q","c":"r s","d":"t u","e":"v w","f":"it\\\"s"}"#,
        );
        one("", "a = 1  b =2", r#"{"a":"1","b":"2"}"#);
        one("", "a=1 a=2 a=1", r#"{"a":["1","2","1"]}"#);
        one("allow_duplicate_values => false", "a=1 a=2 a=1", r#"{"a":["1","2"]}"#);
        one(
            "allow_empty_values => true whitespace => strict",
            "a= b=\"\" c=1",
            r#"{"a":"","b":"","c":"1"}"#,
        );
        one("field_split => \"&?\" value_split => \":\"", "p?a:1&b:x y", r#"{"a":"1","b":"x y"}"#);
        one(
            "field_split_pattern => \"::\" value_split_pattern => \"=>\"",
            "a=>1::b=>2:3",
            r#"{"a":"1","b":"2:3"}"#,
        );
        one("include_brackets => false", "a=[x b=y]", r#"{"a":"[x","b":"y]"}"#);
        one("whitespace => strict", "a=1 b = 2", r#"{"a":"1"}"#);
        one("", "nothing here", "{}");
    }

    #[test]
    fn keys_and_values_are_shaped() {
        one("target => kv prefix => \"%{x}_\"", "a=1", r#"{"kv":{"k_a":"1"}}"#);
        one("trim_key => \"<>\" trim_value => \",;\"", "<a>=,1,2; b=3", r#"{"a":"1,2","b":"3"}"#);
        one("remove_char_key => \"-\" remove_char_value => \",\"", "a-b=1,2", r#"{"ab":"12"}"#);
        one("transform_key => uppercase transform_value => capitalize", "a=xY", r#"{"A":"Xy"}"#);
        one("include_keys => [a, \"%{x}\"] ", "a=1 b=2 k=3", r#"{"a":"1","k":"3"}"#);
        one("exclude_keys => a", "a=1 b=2", r#"{"b":"2"}"#);
        one("default_keys => { a => none z => \"%{x}\" }", "a=1", r#"{"a":"1","z":"k"}"#);
        one("recursive => true", r#"a="b=1 c=2" d=3"#, r#"{"a":{"b":"1","c":"2"},"d":"3"}"#);
        one("source => nope add_tag => never", "a=1", "{}");
        one("target => \"[o][p]\" add_tag => ok", "a=1", r#"{"o":{"p":{"a":"1"}},"tags":["ok"]}"#);
    }

    #[test]
    fn long_words_without_a_value_cost_no_pairs() {
        let word = "x".repeat(50_000);
        one("", &format!("{word} a=1 {word} b=2"), r#"{"a":"1","b":"2"}"#);
    }

    #[test]
    fn text_on_which_it_takes_too_long_is_tagged() {
        let message = format!("a=1 {}", "x".repeat(5_000));
        let options = "field_split_pattern => \"(?=(?:x+)+y)x\"";
        one(options, &message, r#"{"tags":["_kv_filter_timeout"]}"#);
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(refused("kv { value_split => \"\" }"), "1:30: value_split must not be empty");
        assert!(
            refused("kv { field_split => \"z-a\" }")
                .contains("the splitters make no regular expression")
        );
        assert_eq!(
            refused("kv { whitespace => none }"),
            "1:29: whitespace is \"none\"; it may be strict, lenient"
        );
    }
}
