//! What fields an index has and how each is kept: Elasticsearch's mappings, explicit and dynamic.
//!
//! Where a value goes: text without a keyword sub-field into positions; text with one is kept as the
//! keyword only, and its words are found through the dictionary of keywords when a query asks.
//! Numbers, booleans and dates live in columns. Nodes and fields are only ever added, so their
//! numbers stay valid for a document that was read under an older mapping.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::dates;
use crate::error::EsError;

/// Beyond this many fields new ones are kept in `_source` only, as with
/// `index.mapping.total_fields.ignore_dynamic_beyond_limit`.
pub const FIELDS_MAX: usize = 1000;
const IGNORE_ABOVE_DYNAMIC: u32 = 256;
/// Beyond this many bytes of its path a new field is kept in `_source` only.
const PATH_BYTES_MAX: usize = 2048;

/// What a field's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Keyword,
    /// Whole numbers within the bounds of their type.
    Integer,
    Float,
    Boolean,
    Date,
    Ip,
    /// A type that is accepted and shown but not searched.
    Opaque,
}

/// Where a field's values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The column of the top-level `@timestamp`.
    Timestamp,
    /// The top-level `message`: words with positions.
    Message,
    /// Words with positions of other text fields.
    Text,
    /// Whole strings, in postings and a column.
    Keyword,
    /// A column of numbers.
    Number,
    /// `_source` only.
    Nowhere,
}

/// A leaf of the mapping.
#[derive(Debug, Clone)]
pub struct Field {
    pub path: Box<str>,
    pub kind: Kind,
    pub place: Place,
    /// `keyword`, `scaled_float`, …
    pub type_name: Box<str>,
    /// In characters; longer strings are not kept as keywords.
    pub ignore_above: u32,
    /// Of dates.
    pub format: Box<str>,
    pub is_dynamic: bool,
    pub ignores_malformed: bool,
    /// As Elasticsearch shows it.
    definition: Map<String, Value>,
    subfields: Vec<Subfield>,
}

#[derive(Debug, Clone)]
struct Subfield {
    name: Box<str>,
    kind: Kind,
    type_name: Box<str>,
    ignore_above: u32,
}

/// How a query finds a field.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'a> {
    /// The path under which values are kept: that of the parent for a sub-field.
    pub path: &'a str,
    pub kind: Kind,
    pub place: Place,
    pub type_name: &'a str,
    pub format: &'a str,
    pub ignore_above: u32,
}

impl Resolved<'_> {
    /// Text whose short values are kept as keywords.
    pub fn is_text_by_keyword(&self) -> bool {
        self.kind == Kind::Text && self.place == Place::Keyword
    }

    /// Whether sorting and aggregations can read it.
    pub fn is_aggregatable(&self) -> bool {
        !matches!(self.kind, Kind::Text | Kind::Opaque)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    Object(u32),
    Leaf(u32),
    /// Not mapped and not to be: `dynamic: false` or beyond the limit.
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dynamic {
    True,
    False,
    Strict,
}

#[derive(Debug, Clone)]
struct Node {
    path: Box<str>,
    /// Children in order of appearance; dotted keys that lead further down are among them.
    slots: Vec<(Box<str>, Child)>,
    index: HashMap<Box<str>, u32>,
    dynamic: Dynamic,
    is_enabled: bool,
}

impl Node {
    fn new(path: &str, dynamic: Dynamic) -> Self {
        Self {
            path: path.into(),
            slots: Vec::new(),
            index: HashMap::new(),
            dynamic,
            is_enabled: true,
        }
    }

    fn insert(&mut self, key: &str, child: Child) {
        self.index.insert(key.into(), self.slots.len() as u32);
        self.slots.push((key.into(), child));
    }

    fn get(&self, key: &str) -> Option<Child> {
        self.index.get(key).map(|slot| self.slots[*slot as usize].1)
    }
}

/// The first value seen of a field that is not mapped yet.
#[derive(Debug, Clone, Copy)]
pub enum Sample<'a> {
    Object,
    String(&'a str),
    Integer,
    Float,
    Boolean,
}

/// The mapping of one index.
#[derive(Debug, Clone)]
pub struct Mapping {
    nodes: Vec<Node>,
    pub fields: Vec<Field>,
    dynamic_templates: Vec<Value>,
    /// Other keys of the mapping, kept as they came: `_meta`, `date_detection`, …
    others: Map<String, Value>,
    detects_dates: bool,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            nodes: vec![Node::new("", Dynamic::True)],
            fields: Vec::new(),
            dynamic_templates: Vec::new(),
            others: Map::new(),
            detects_dates: true,
        }
    }
}

pub const ROOT: u32 = 0;

/// Ways out of one node that are remembered: each field may be reached by several spellings, with
/// dots or without.
const SLOTS_MAX: usize = 2 * FIELDS_MAX;

impl Mapping {
    pub fn from_json(json: &Value) -> Result<Self, EsError> {
        let mut mapping = Self::default();
        mapping.merge(json)?;
        Ok(mapping)
    }

    /// Takes over what `json` maps.
    ///
    /// # Errors
    /// A type that does not exist, or one that differs from a field's present type.
    pub fn merge(&mut self, json: &Value) -> Result<(), EsError> {
        let Some(object) = json.as_object() else { return Ok(()) };
        for (key, value) in object {
            match key.as_str() {
                "properties" => self.merge_properties(ROOT, value)?,
                "dynamic_templates" => {
                    for template in value.as_array().into_iter().flatten() {
                        let name = template.as_object().and_then(|t| t.keys().next().cloned());
                        self.dynamic_templates.retain(|known| {
                            known.as_object().and_then(|t| t.keys().next().cloned()) != name
                        });
                        self.dynamic_templates.push(template.clone());
                    }
                }
                "dynamic" => {
                    self.nodes[0].dynamic = dynamic_of(value);
                    self.others.insert(key.clone(), value.clone());
                }
                "date_detection" => {
                    self.detects_dates = value.as_bool().unwrap_or(true);
                    self.others.insert(key.clone(), value.clone());
                }
                _ => {
                    self.others.insert(key.clone(), value.clone());
                }
            }
        }
        Ok(())
    }

    fn merge_properties(&mut self, node: u32, properties: &Value) -> Result<(), EsError> {
        for (key, definition) in properties.as_object().into_iter().flatten() {
            let Some(definition) = definition.as_object() else { continue };
            let type_name = definition.get("type").and_then(Value::as_str);
            let is_object = match type_name {
                None => {
                    definition.contains_key("properties")
                        || definition.is_empty()
                        || definition.contains_key("dynamic")
                        || definition.contains_key("enabled")
                }
                Some("object" | "nested") => true,
                Some(_) => false,
            };
            let (node, key) = self.descend(node, key);
            if is_object {
                let child = self.object_child(node, key);
                if let Some(dynamic) = definition.get("dynamic") {
                    self.nodes[child as usize].dynamic = dynamic_of(dynamic);
                }
                if definition.get("enabled").and_then(Value::as_bool) == Some(false) {
                    self.nodes[child as usize].is_enabled = false;
                }
                if let Some(properties) = definition.get("properties") {
                    self.merge_properties(child, properties)?;
                }
            } else {
                let path = self.join(node, key);
                let field = Field::from_definition(&path, key, definition, false)?;
                match self.nodes[node as usize].get(key) {
                    Some(Child::Leaf(old)) => {
                        let old = &mut self.fields[old as usize];
                        if old.type_name != field.type_name {
                            return Err(EsError::illegal_argument(format!(
                                "mapper [{path}] cannot be changed from type [{}] to [{}]",
                                old.type_name, field.type_name
                            )));
                        }
                        // What was indexed stays as it is; only what is shown may grow.
                        for (key, value) in field.definition {
                            old.definition.insert(key, value);
                        }
                    }
                    Some(Child::Object(_)) => {
                        return Err(EsError::illegal_argument(format!(
                            "can't merge a non object mapping [{path}] with an object mapping"
                        )));
                    }
                    _ => self.add_leaf(node, key, field),
                }
            }
        }
        Ok(())
    }

    fn join(&self, node: u32, key: &str) -> String {
        let path = &self.nodes[node as usize].path;
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    }

    /// The node that holds the last part of a dotted key, and that part. Creates objects on the way.
    fn descend<'k>(&mut self, mut node: u32, mut key: &'k str) -> (u32, &'k str) {
        while let Some((first, rest)) = key.split_once('.') {
            if first.is_empty() || rest.is_empty() {
                break;
            }
            node = self.object_child(node, first);
            key = rest;
        }
        (node, key)
    }

    fn object_child(&mut self, node: u32, key: &str) -> u32 {
        if let Some(Child::Object(child)) = self.nodes[node as usize].get(key) {
            return child;
        }
        let path = self.join(node, key);
        let dynamic = self.nodes[node as usize].dynamic;
        let child = self.nodes.len() as u32;
        self.nodes.push(Node::new(&path, dynamic));
        self.nodes[node as usize].insert(key, Child::Object(child));
        child
    }

    fn add_leaf(&mut self, node: u32, key: &str, field: Field) {
        let leaf = self.fields.len() as u32;
        self.fields.push(field);
        self.nodes[node as usize].insert(key, Child::Leaf(leaf));
    }

    /// The child that `key` (dotted keys included) leads to; `guess` is where it was last time
    /// and is moved to where the next key is expected.
    #[inline]
    pub fn child(&self, node: u32, key: &str, guess: &mut usize) -> Option<Child> {
        let node = &self.nodes[node as usize];
        if let Some((known, child)) = node.slots.get(*guess)
            && &**known == key
        {
            *guess += 1;
            return Some(*child);
        }
        let slot = *node.index.get(key)? as usize;
        *guess = slot + 1;
        Some(node.slots[slot].1)
    }

    pub fn node_path(&self, node: u32) -> &str {
        &self.nodes[node as usize].path
    }

    pub fn is_enabled(&self, node: u32) -> bool {
        self.nodes[node as usize].is_enabled
    }

    /// Maps a key that [`Mapping::child`] does not know, by the first value seen under it.
    ///
    /// # Errors
    /// `dynamic: strict`, or a dotted key that leads through a leaf.
    pub fn add_dynamic(
        &mut self,
        node: u32,
        key: &str,
        sample: Sample<'_>,
    ) -> Result<Child, EsError> {
        if let Some(child) = self.nodes[node as usize].get(key) {
            return Ok(child);
        }
        let child = self.find_or_add(node, key, sample)?;
        // A key with dots is remembered whole, as a way to where it leads; one that leads nowhere is
        // not, because there is no end to the keys that a document may have.
        let here = &mut self.nodes[node as usize];
        if child != Child::Ignored && here.get(key).is_none() && here.slots.len() < SLOTS_MAX {
            here.insert(key, child);
        }
        Ok(child)
    }

    /// Where a key that [`Mapping::child`] does not know leads without the mapping being changed:
    /// nowhere, or along its dots to what is known. `None` where it is to be mapped.
    pub fn known(&self, mut node: u32, mut key: &str) -> Option<Child> {
        let is_full = self.nodes[node as usize].slots.len() >= SLOTS_MAX;
        while let Some((first, rest)) = key.split_once('.')
            && !first.is_empty()
            && !rest.is_empty()
        {
            match self.nodes[node as usize].get(first) {
                Some(Child::Object(next)) => (node, key) = (next, rest),
                Some(Child::Ignored) => return Some(Child::Ignored),
                Some(Child::Leaf(_)) => return None,
                None => break,
            }
            if let Some(child) = self.nodes[node as usize].get(key) {
                return Some(child).filter(|_| is_full);
            }
        }
        let here = &self.nodes[node as usize];
        match here.dynamic {
            Dynamic::False => Some(Child::Ignored),
            Dynamic::Strict => None,
            Dynamic::True => self.is_full_for(here, key).then_some(Child::Ignored),
        }
    }

    /// Whether no new field of this name can come under `node`.
    fn is_full_for(&self, node: &Node, key: &str) -> bool {
        self.fields.len() + self.nodes.len() > FIELDS_MAX
            || node.path.len() + key.len() >= PATH_BYTES_MAX
    }

    fn find_or_add(&mut self, node: u32, key: &str, sample: Sample<'_>) -> Result<Child, EsError> {
        if let Some((first, rest)) = key.split_once('.')
            && !first.is_empty()
            && !rest.is_empty()
        {
            let next = match self.nodes[node as usize].get(first) {
                Some(Child::Object(next)) => next,
                Some(Child::Leaf(_)) => {
                    return Err(EsError::illegal_argument(format!(
                        "can't merge a non object mapping [{}] with an object mapping",
                        self.join(node, first)
                    )));
                }
                Some(Child::Ignored) => return Ok(Child::Ignored),
                None => match self.find_or_add(node, first, Sample::Object)? {
                    Child::Object(next) => next,
                    _ => return Ok(Child::Ignored),
                },
            };
            return match self.nodes[next as usize].get(rest) {
                Some(child) => Ok(child),
                None => self.find_or_add(next, rest, sample),
            };
        }
        match self.nodes[node as usize].dynamic {
            Dynamic::True => {}
            Dynamic::False => return Ok(Child::Ignored),
            Dynamic::Strict => {
                let parent = &self.nodes[node as usize].path;
                let parent = if parent.is_empty() { "_doc" } else { parent };
                return Err(EsError::new(
                    400,
                    "strict_dynamic_mapping_exception",
                    format!(
                        "mapping set to strict, dynamic introduction of [{key}] within [{parent}] is not allowed"
                    ),
                ));
            }
        }
        if self.is_full_for(&self.nodes[node as usize], key) {
            return Ok(Child::Ignored);
        }
        if let Sample::Object = sample {
            return Ok(Child::Object(self.object_child(node, key)));
        }
        let path = self.join(node, key);
        let definition = self.dynamic_definition(&path, key, sample);
        let field = Field::from_definition(&path, key, &definition, true)?;
        self.add_leaf(node, key, field);
        Ok(Child::Leaf(self.fields.len() as u32 - 1))
    }

    fn dynamic_definition(&self, path: &str, key: &str, sample: Sample<'_>) -> Map<String, Value> {
        let detected = match sample {
            Sample::String(text) if self.detects_dates && looks_like_date(text) => "date",
            Sample::String(_) => "string",
            Sample::Integer => "long",
            Sample::Float => "double",
            Sample::Boolean => "boolean",
            Sample::Object => "object",
        };
        for template in &self.dynamic_templates {
            let Some((_, template)) = template.as_object().and_then(|t| t.iter().next()) else {
                continue;
            };
            if let Some(definition) = apply_template(template, detected, path, key) {
                return definition;
            }
        }
        let definition = match detected {
            "string" => {
                json!({"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": IGNORE_ABOVE_DYNAMIC}}})
            }
            "double" => json!({"type": "float"}),
            other => json!({"type": other}),
        };
        definition.as_object().cloned().unwrap_or_default()
    }

    /// A field or sub-field by its full path.
    pub fn resolve(&self, path: &str) -> Option<Resolved<'_>> {
        if let Some(field) = self.leaf(path) {
            return Some(field.resolved());
        }
        let (parent, name) = path.rsplit_once('.')?;
        let field = self.leaf(parent)?;
        let sub = field.subfields.iter().find(|sub| &*sub.name == name)?;
        let place = match (field.place, sub.kind) {
            (Place::Keyword, Kind::Text | Kind::Keyword) => Place::Keyword,
            (Place::Message, Kind::Keyword | Kind::Text) => Place::Message,
            (Place::Text, Kind::Text) => Place::Text,
            _ => Place::Nowhere,
        };
        Some(Resolved {
            path: &field.path,
            kind: sub.kind,
            place,
            type_name: &sub.type_name,
            format: dates::DEFAULT_FORMAT,
            ignore_above: sub.ignore_above,
        })
    }

    pub fn leaf(&self, path: &str) -> Option<&Field> {
        let mut node = ROOT;
        let mut rest = path;
        loop {
            match self.nodes[node as usize].get(rest) {
                Some(Child::Leaf(leaf)) => return self.fields.get(leaf as usize),
                Some(_) => return None,
                None => {}
            }
            let (first, tail) = rest.split_once('.')?;
            match self.nodes[node as usize].get(first) {
                Some(Child::Object(next)) => (node, rest) = (next, tail),
                _ => return None,
            }
        }
    }

    /// Whether `path` is an object.
    pub fn is_object(&self, path: &str) -> bool {
        self.nodes.iter().skip(1).any(|node| &*node.path == path)
    }

    /// Every field and sub-field, each with its full path.
    pub fn all(&self) -> Vec<(String, Resolved<'_>)> {
        let mut all = Vec::new();
        for field in &self.fields {
            all.push((field.path.to_string(), field.resolved()));
            for sub in &field.subfields {
                let path = format!("{}.{}", field.path, sub.name);
                if let Some(resolved) = self.resolve(&path) {
                    all.push((path, resolved));
                }
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Paths of the objects that hold something.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().skip(1).map(|node| &*node.path)
    }

    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        for (key, value) in &self.others {
            json.insert(key.clone(), value.clone());
        }
        if !self.dynamic_templates.is_empty() {
            json.insert("dynamic_templates".into(), Value::Array(self.dynamic_templates.clone()));
        }
        let properties = self.properties_json(ROOT);
        if !properties.is_empty() {
            json.insert("properties".into(), Value::Object(properties));
        }
        Value::Object(json)
    }

    fn properties_json(&self, node: u32) -> Map<String, Value> {
        let mut children: Vec<_> = self.nodes[node as usize]
            .slots
            .iter()
            .filter(|(key, child)| {
                // Dotted ways to somewhere deeper are shown where they lead.
                let path = match child {
                    Child::Object(object) => &*self.nodes[*object as usize].path,
                    Child::Leaf(leaf) => &*self.fields[*leaf as usize].path,
                    Child::Ignored => return false,
                };
                path.len()
                    == self.nodes[node as usize].path.len() + key.len() + usize::from(node != ROOT)
                    && !key.contains('.')
            })
            .collect();
        children.sort_by(|a, b| a.0.cmp(&b.0));
        let mut properties = Map::new();
        for (key, child) in children {
            let value = match child {
                Child::Object(object) => {
                    let mut value = Map::new();
                    let node = &self.nodes[*object as usize];
                    if !node.is_enabled {
                        value.insert("type".into(), "object".into());
                        value.insert("enabled".into(), false.into());
                    }
                    let inner = self.properties_json(*object);
                    if inner.is_empty() {
                        value.insert("type".into(), "object".into());
                    } else {
                        value.insert("properties".into(), Value::Object(inner));
                    }
                    Value::Object(value)
                }
                Child::Leaf(leaf) => Value::Object(self.fields[*leaf as usize].definition.clone()),
                Child::Ignored => continue,
            };
            properties.insert(key.to_string(), value);
        }
        properties
    }
}

fn dynamic_of(value: &Value) -> Dynamic {
    match value {
        Value::Bool(false) => Dynamic::False,
        Value::String(text) if text == "false" || text == "runtime" => Dynamic::False,
        Value::String(text) if text == "strict" => Dynamic::Strict,
        _ => Dynamic::True,
    }
}

fn looks_like_date(text: &str) -> bool {
    text.len() >= 7
        && text.len() < 40
        && text.as_bytes()[0].is_ascii_digit()
        && text.contains([':', '-', '/'])
        && (dates::parse_iso(text).is_some()
            || dates::parse(text, "yyyy/MM/dd HH:mm:ss||yyyy/MM/dd", &jiff::tz::TimeZone::UTC)
                .is_some())
}

fn apply_template(
    template: &Value,
    detected: &str,
    path: &str,
    key: &str,
) -> Option<Map<String, Value>> {
    let patterns = |name: &str| -> Option<Vec<String>> {
        match template.get(name)? {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => {
                Some(list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
            }
            _ => None,
        }
    };
    let any =
        |patterns: Vec<String>, text: &str| patterns.iter().any(|pattern| wildcard(pattern, text));
    if let Some(types) = patterns("match_mapping_type")
        && !types.iter().any(|t| t == "*" || t == detected)
    {
        return None;
    }
    if patterns("match").is_some_and(|p| !any(p, key))
        || patterns("unmatch").is_some_and(|p| any(p, key))
        || patterns("path_match").is_some_and(|p| !any(p, path))
        || patterns("path_unmatch").is_some_and(|p| any(p, path))
    {
        return None;
    }
    let default_type = match detected {
        "string" => "text",
        "double" => "float",
        other => other,
    };
    let text = template
        .get("mapping")?
        .to_string()
        .replace("{dynamic_type}", default_type)
        .replace("{name}", key);
    let mut definition: Map<String, Value> = serde_json::from_str(&text).ok()?;
    if !definition.contains_key("type") {
        definition.insert("type".into(), default_type.into());
    }
    Some(definition)
}

/// Whether `text` matches a pattern of `*` and `?`.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, star_t + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

fn kind_of(type_name: &str) -> Option<Kind> {
    Some(match type_name {
        "text" | "match_only_text" | "search_as_you_type" => Kind::Text,
        "keyword" | "constant_keyword" | "wildcard" | "version" => Kind::Keyword,
        "long" | "integer" | "short" | "byte" | "unsigned_long" => Kind::Integer,
        "double" | "float" | "half_float" | "scaled_float" => Kind::Float,
        "boolean" => Kind::Boolean,
        "date" | "date_nanos" => Kind::Date,
        "ip" => Kind::Ip,
        "binary"
        | "flattened"
        | "geo_point"
        | "geo_shape"
        | "point"
        | "shape"
        | "completion"
        | "alias"
        | "join"
        | "integer_range"
        | "long_range"
        | "float_range"
        | "double_range"
        | "date_range"
        | "ip_range"
        | "histogram"
        | "dense_vector"
        | "sparse_vector"
        | "rank_feature"
        | "rank_features"
        | "token_count"
        | "percolator"
        | "aggregate_metric_double" => Kind::Opaque,
        _ => return None,
    })
}

/// Long texts of the Elastic Common Schema that are searched by word and never aggregated.
fn is_prose(path: &str) -> bool {
    matches!(path, "message" | "error.message" | "error.stack_trace" | "log.original")
}

impl Field {
    fn from_definition(
        path: &str,
        name: &str,
        definition: &Map<String, Value>,
        is_dynamic: bool,
    ) -> Result<Self, EsError> {
        let type_name = definition.get("type").and_then(Value::as_str).unwrap_or("object");
        let kind = kind_of(type_name).ok_or_else(|| {
            let reason = format!(
                "The mapper type [{type_name}] declared on field [{name}] does not exist. It might have been created within a future version or requires a plugin to be installed. Check the documentation."
            );
            let cause = EsError::new(400, "mapper_parsing_exception", reason.clone());
            EsError::new(400, "mapper_parsing_exception", format!("Failed to parse mapping: {reason}"))
                .caused_by(cause.clone())
                .rooted_in(cause)
        })?;
        let mut subfields = Vec::new();
        for (name, sub) in definition.get("fields").and_then(Value::as_object).into_iter().flatten()
        {
            let type_name = sub.get("type").and_then(Value::as_str).unwrap_or("keyword");
            subfields.push(Subfield {
                name: name.as_str().into(),
                kind: kind_of(type_name).unwrap_or(Kind::Opaque),
                type_name: type_name.into(),
                ignore_above: ignore_above(sub.as_object()),
            });
        }
        let is_indexed = definition.get("index").and_then(Value::as_bool) != Some(false);
        let keyword = subfields.iter().find(|sub| sub.kind == Kind::Keyword);
        let mut own_ignore_above = ignore_above(Some(definition));
        let place = match kind {
            // Filled by Logstash with the whole line again; not indexed by the Elastic Common Schema either.
            _ if path == "event.original" => Place::Nowhere,
            Kind::Text if !is_indexed => Place::Nowhere,
            Kind::Text if path == "message" => Place::Message,
            Kind::Text => match keyword {
                Some(keyword) if !is_prose(path) => {
                    own_ignore_above = keyword.ignore_above;
                    Place::Keyword
                }
                _ => Place::Text,
            },
            Kind::Keyword | Kind::Ip => Place::Keyword,
            Kind::Date if path == "@timestamp" => Place::Timestamp,
            Kind::Integer | Kind::Float | Kind::Boolean | Kind::Date => Place::Number,
            Kind::Opaque => Place::Nowhere,
        };
        Ok(Self {
            path: path.into(),
            kind,
            place,
            type_name: type_name.into(),
            ignore_above: own_ignore_above,
            format: definition
                .get("format")
                .and_then(Value::as_str)
                .unwrap_or(dates::DEFAULT_FORMAT)
                .into(),
            is_dynamic,
            ignores_malformed: definition.get("ignore_malformed").and_then(Value::as_bool)
                == Some(true),
            definition: definition.clone(),
            subfields,
        })
    }

    fn resolved(&self) -> Resolved<'_> {
        Resolved {
            path: &self.path,
            kind: self.kind,
            place: self.place,
            type_name: &self.type_name,
            format: &self.format,
            ignore_above: self.ignore_above,
        }
    }

    /// The names of its sub-fields that are keywords, for `fields` of a search.
    pub fn subfield_names(&self) -> impl Iterator<Item = &str> {
        self.subfields.iter().map(|sub| &*sub.name)
    }

    /// Its definition as Elasticsearch shows it.
    pub fn definition(&self) -> &Map<String, Value> {
        &self.definition
    }
}

fn ignore_above(definition: Option<&Map<String, Value>>) -> u32 {
    definition
        .and_then(|definition| definition.get("ignore_above"))
        .and_then(Value::as_u64)
        .map_or(KEYWORD_BYTES_MAX, |limit| limit.min(u64::from(KEYWORD_BYTES_MAX)) as u32)
}

/// Longest keyword in bytes, as Lucene's longest term.
pub const KEYWORD_BYTES_MAX: u32 = 32_766;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_strings_are_text_with_a_keyword() {
        let mut mapping = Mapping::default();
        mapping.add_dynamic(ROOT, "host", Sample::Object).unwrap();
        mapping.add_dynamic(1, "name", Sample::String("web-1")).unwrap();
        mapping.add_dynamic(ROOT, "d", Sample::String("2026-03-01")).unwrap();
        assert_eq!(
            mapping.to_json(),
            json!({"properties": {"d": {"type": "date"}, "host": {"properties": {"name":
                {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}}}}})
        );
        let name = mapping.resolve("host.name.keyword").unwrap();
        assert_eq!(
            (name.path, name.kind, name.place),
            ("host.name", Kind::Keyword, Place::Keyword)
        );
        assert!(mapping.resolve("host.name").unwrap().is_text_by_keyword());
        assert!(mapping.resolve("host.name.other").is_none());
    }

    #[test]
    fn a_dotted_key_leads_where_the_nested_one_does() {
        let mut mapping = Mapping::default();
        let dotted = mapping.add_dynamic(ROOT, "a.b.c", Sample::Integer).unwrap();
        let Child::Object(a) = mapping.child(ROOT, "a", &mut 0).unwrap() else {
            panic!("no object")
        };
        assert_eq!(mapping.add_dynamic(a, "b.c", Sample::Float).unwrap(), dotted);
        assert_eq!(mapping.child(ROOT, "a.b.c", &mut 0), Some(dotted));
        let properties =
            json!({"a": {"properties": {"b": {"properties": {"c": {"type": "long"}}}}}});
        assert_eq!(mapping.to_json(), json!({"properties": properties}));
    }

    #[test]
    fn a_round_trip_through_json_keeps_everything() {
        let json = json!({"dynamic_templates": [{"s": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}}],
            "properties": {"n": {"type": "long"}, "o": {"properties": {"ip": {"type": "ip"}}}}});
        let mut mapping = Mapping::from_json(&json).unwrap();
        assert_eq!(mapping.to_json(), json);
        mapping.add_dynamic(ROOT, "tag", Sample::String("2026")).unwrap();
        assert_eq!(mapping.resolve("tag").unwrap().kind, Kind::Keyword);
        let error = mapping.merge(&json!({"properties": {"n": {"type": "keyword"}}})).unwrap_err();
        assert_eq!(error.reason(), "mapper [n] cannot be changed from type [long] to [keyword]");
    }

    #[test]
    fn fields_beyond_the_limit_stay_in_the_source() {
        let mut mapping = Mapping::default();
        for i in 0..FIELDS_MAX * 2 {
            mapping.add_dynamic(ROOT, &format!("f{i}"), Sample::Integer).unwrap();
        }
        assert_eq!(mapping.fields.len(), FIELDS_MAX);
    }

    #[test]
    fn wildcards_match_as_globs() {
        for (pattern, text, matches) in [
            ("logs-*", "logs-2026.03.01", true),
            ("*.bytes", "http.response.bytes", true),
            ("a*b*c", "axxbxxbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("*", "", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(wildcard(pattern, text), matches, "{pattern} {text}");
        }
    }
}
