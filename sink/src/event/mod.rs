//! One event: a tree of fields, as a Logstash pipeline sees it.
//!
//! All text of an event lies in one buffer and all fields in one vector of nodes linked to their
//! siblings; a value is a span of the buffer. So an event costs two allocations however many fields
//! it has, what grok captures from `message` is not copied, and moving a subtree is a relink.
//! Removed nodes and overwritten text stay in the buffers until the event is dropped.

mod field;
mod json_in;
mod json_out;
mod key_index;
mod scan;
mod template;
mod timestamp;
mod view;

use std::borrow::Cow;

pub use field::{FieldRef, FieldRefError};
pub use json_in::JsonError;
pub(crate) use key_index::KeyIndex;
pub use template::{DateFormat, Template, TemplateError};
pub(crate) use template::{MONTHS, WEEKDAYS, pattern_runs};
pub use timestamp::{Civil, Timestamp, civil_from_days, days_from_civil, days_in_month};
pub use view::{Children, Value};

/// Name of the time field that every event has.
pub const TIMESTAMP: &str = "@timestamp";
/// Name of the fields that are never written out.
pub const METADATA: &str = "@metadata";

/// Text of one event never grows beyond this; what a filter writes past it is cut. Well above the
/// largest Kafka record, and below what a span can address.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// A range of the event's text buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The part of this span from `start` to `end`, both in bytes from its beginning.
    pub(crate) fn part(self, start: usize, end: usize) -> Span {
        Span { start: self.start + start as u32, end: self.start + end as u32 }
    }
}

/// Index of a node within its event. The root is 0 and nobody's child, so 0 also ends a list.
pub(crate) type NodeId = u32;
pub(crate) const ROOT: NodeId = 0;
const NONE: NodeId = 0;

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Datum {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A number that neither type holds exactly, as its JSON text.
    BigNumber(Span),
    Text(Span),
    Time(i64, u32),
    Object(List),
    Array(List),
}

/// The children of an object or array, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct List {
    pub(crate) first: NodeId,
    pub(crate) last: NodeId,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub(crate) key: Span,
    pub(crate) datum: Datum,
    pub(crate) next: NodeId,
    /// Of the key; see [`tag`].
    pub(crate) tag: u32,
}

/// Tells most names apart by one comparison: length, and three of the bytes.
#[inline]
pub(crate) fn tag(name: &str) -> u32 {
    match name.as_bytes() {
        [] => 0,
        bytes @ [first, .., last] => {
            let middle = bytes[bytes.len() / 2];
            u32::from_le_bytes([bytes.len() as u8, *first, middle, *last])
        }
        [only] => u32::from_le_bytes([1, *only, 0, 0]),
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) text: String,
    /// `nodes[0]` is the root and always an object.
    pub(crate) nodes: Vec<Node>,
}

/// A field could not be set because its parent is neither object nor array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part of the path is neither an object nor an array")]
pub struct NotAContainer;

impl Default for Event {
    fn default() -> Self {
        Self::empty()
    }
}

impl Event {
    /// An event without any field, not even a time.
    pub fn empty() -> Self {
        let root = Node {
            key: Span::default(),
            datum: Datum::Object(List::default()),
            next: NONE,
            tag: 0,
        };
        Self { text: String::new(), nodes: vec![root] }
    }

    /// An event with `@timestamp`, `@version` and `message`, as a plain codec makes it.
    pub fn from_message(message: &str, time: Timestamp) -> Self {
        let mut event = Self::empty();
        event.set_timestamp(time);
        event.set_root_text("@version", "1");
        event.set_root_text("message", message);
        event
    }

    /// The value at `field`, if there is one; an explicit null is `Some(Value::Null)`.
    pub fn get(&self, field: &FieldRef) -> Option<Value<'_>> {
        self.find(field).map(|id| self.view(id))
    }

    /// The value at `field` as sprintf writes it; `None` where it is missing or null.
    pub fn text(&self, field: &FieldRef) -> Option<Cow<'_, str>> {
        self.find(field).and_then(|id| self.view(id).to_text())
    }

    /// The string at `field`, if it is one.
    pub fn str(&self, field: &FieldRef) -> Option<&str> {
        match self.nodes[self.find(field)? as usize].datum {
            Datum::Text(span) => Some(self.str_at(span)),
            _ => None,
        }
    }

    /// Sets a string.
    pub fn set_text(&mut self, field: &FieldRef, text: &str) -> Result<(), NotAContainer> {
        let span = self.push_text(text);
        self.set(field, Datum::Text(span)).map(drop)
    }

    /// Sets an integer.
    pub fn set_int(&mut self, field: &FieldRef, number: i64) -> Result<(), NotAContainer> {
        self.set(field, Datum::Int(number)).map(drop)
    }

    /// Sets any JSON value.
    pub fn set_json(
        &mut self,
        field: &FieldRef,
        value: &serde_json::Value,
    ) -> Result<(), NotAContainer> {
        let datum = self.import(value);
        self.set(field, datum).map(drop)
    }

    /// Removes a field with all beneath it; whether it was there.
    pub fn remove(&mut self, field: &FieldRef) -> bool {
        self.detach(field).is_some()
    }

    /// The time of the event; `None` only before one was given.
    pub fn timestamp(&self) -> Option<Timestamp> {
        match self.nodes[self.child(ROOT, TIMESTAMP)? as usize].datum {
            Datum::Time(seconds, nanos) => Some(Timestamp { seconds, nanos }),
            _ => None,
        }
    }

    pub fn set_timestamp(&mut self, time: Timestamp) {
        let datum = Datum::Time(time.seconds, time.nanos);
        match self.child(ROOT, TIMESTAMP) {
            Some(id) => self.nodes[id as usize].datum = datum,
            None => {
                let key = self.push_text(TIMESTAMP);
                self.append(ROOT, key, datum);
            }
        }
    }

    /// Adds to `tags` unless it is there already. A single string becomes an array, as Logstash does.
    pub fn tag(&mut self, tag: &str) {
        let Some(id) = self.child(ROOT, "tags") else {
            let (key, span) = (self.push_text("tags"), self.push_text(tag));
            let list = self.append(ROOT, key, Datum::Array(List::default()));
            self.append(list, Span::default(), Datum::Text(span));
            return;
        };
        match self.nodes[id as usize].datum {
            Datum::Array(_) => {}
            Datum::Null => self.nodes[id as usize].datum = Datum::Array(List::default()),
            held => {
                self.nodes[id as usize].datum = Datum::Array(List::default());
                self.append(id, Span::default(), held);
            }
        }
        if !self.has_tag(tag) {
            let span = self.push_text(tag);
            self.append(id, Span::default(), Datum::Text(span));
        }
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.child(ROOT, "tags").is_some_and(|id| match self.nodes[id as usize].datum {
            Datum::Text(span) => self.str_at(span) == tag,
            Datum::Array(_) => self.children(id).any(
                |child| matches!(self.nodes[child as usize].datum, Datum::Text(span) if self.str_at(span) == tag),
            ),
            _ => false,
        })
    }

    /// Removes `tag` from `tags`; the array stays, empty, when it was the last.
    pub fn untag(&mut self, tag: &str) {
        let Some(id) = self.child(ROOT, "tags") else { return };
        let held = self.children(id).find(
            |child| matches!(self.nodes[*child as usize].datum, Datum::Text(span) if self.str_at(span) == tag),
        );
        if let Some(child) = held {
            self.unlink(id, child);
        }
    }
}

/// The tree by nodes, for filters.
impl Event {
    pub(crate) fn str_at(&self, span: Span) -> &str {
        &self.text[span.range()]
    }

    pub(crate) fn datum(&self, id: NodeId) -> Datum {
        self.nodes[id as usize].datum
    }

    /// The text at a node, if it is text.
    pub(crate) fn span(&self, id: NodeId) -> Option<Span> {
        match self.datum(id) {
            Datum::Text(span) => Some(span),
            _ => None,
        }
    }

    /// Copies `text` into the buffer. Cut where the buffer is full.
    pub(crate) fn push_text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        let room = TEXT_BYTES_MAX.saturating_sub(start);
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        self.text.push_str(text);
        Span { start: start as u32, end: self.text.len() as u32 }
    }

    /// The value at a node as text: where it lies if it is text, else written into the buffer.
    pub(crate) fn span_of_text(&mut self, id: NodeId) -> Span {
        if let Datum::Text(span) = self.datum(id) {
            return span;
        }
        let text = self.view(id).to_text().unwrap_or_default().into_owned();
        self.push_text(&text)
    }

    pub(crate) fn list(&self, id: NodeId) -> Option<List> {
        match self.nodes[id as usize].datum {
            Datum::Object(list) | Datum::Array(list) => Some(list),
            _ => None,
        }
    }

    /// The children of a node in order; none for a scalar.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut at = self.list(id).map_or(NONE, |list| list.first);
        std::iter::from_fn(move || {
            let child = (at != NONE).then_some(at)?;
            at = self.nodes[child as usize].next;
            Some(child)
        })
    }

    /// The child of an object by its name.
    pub(crate) fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let Datum::Object(list) = self.nodes[parent as usize].datum else { return None };
        self.child_of(list, name, tag(name))
    }

    /// The child of an object by its name and the tag of that.
    #[inline]
    pub(crate) fn child_of(&self, list: List, name: &str, tag: u32) -> Option<NodeId> {
        let mut at = list.first;
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.tag == tag && self.text.as_bytes()[node.key.range()] == *name.as_bytes() {
                return Some(at);
            }
            at = node.next;
        }
        None
    }

    /// The child that a segment of a path names.
    fn named(&self, list: List, segment: &field::Segment) -> Option<NodeId> {
        self.child_of(list, &segment.name, segment.tag)
    }

    pub(crate) fn find(&self, field: &FieldRef) -> Option<NodeId> {
        field.segments().iter().try_fold(ROOT, |at, segment| match self.nodes[at as usize].datum {
            Datum::Object(list) => self.named(list, segment),
            Datum::Array(_) => self.element(at, segment.index?),
            _ => None,
        })
    }

    /// Element of an array; negative counts from the end.
    fn element(&self, array: NodeId, index: i64) -> Option<NodeId> {
        let index = if index < 0 {
            usize::try_from(self.children(array).count() as i64 + index).ok()?
        } else {
            usize::try_from(index).ok()?
        };
        self.children(array).nth(index)
    }

    /// Adds a node at the end of an object or array. The caller has made sure of the key.
    pub(crate) fn append(&mut self, parent: NodeId, key: Span, datum: Datum) -> NodeId {
        let id = self.nodes.len() as NodeId;
        let tag = tag(self.str_at(key));
        self.nodes.push(Node { key, datum, next: NONE, tag });
        self.link(parent, id);
        id
    }

    fn link(&mut self, parent: NodeId, id: NodeId) {
        let (Datum::Object(list) | Datum::Array(list)) = &mut self.nodes[parent as usize].datum
        else {
            return;
        };
        let last = std::mem::replace(&mut list.last, id);
        if last == NONE {
            list.first = id;
        } else {
            self.nodes[last as usize].next = id;
        }
    }

    pub(crate) fn unlink(&mut self, parent: NodeId, id: NodeId) {
        let next = std::mem::replace(&mut self.nodes[id as usize].next, NONE);
        let before = self.children_until(parent, id);
        if let Some(before) = before {
            self.nodes[before as usize].next = next;
        }
        if let Datum::Object(list) | Datum::Array(list) = &mut self.nodes[parent as usize].datum {
            if before.is_none() {
                list.first = next;
            }
            if list.last == id {
                list.last = before.unwrap_or(NONE);
            }
        }
    }

    /// The sibling before `id`.
    fn children_until(&self, parent: NodeId, id: NodeId) -> Option<NodeId> {
        let (mut at, mut before) = (self.list(parent)?.first, None);
        while at != NONE && at != id {
            before = Some(at);
            at = self.nodes[at as usize].next;
        }
        before
    }

    /// Sets `field`, making the objects on the way.
    pub(crate) fn set(&mut self, field: &FieldRef, datum: Datum) -> Result<NodeId, NotAContainer> {
        let id = self.entry(field)?;
        let is_time = field.is_timestamp();
        match datum {
            // The time of an event is always a time: text that reads as one becomes one.
            Datum::Text(span) if is_time => {
                let time = Timestamp::parse_iso8601(self.str_at(span)).ok_or(NotAContainer)?;
                self.nodes[id as usize].datum = Datum::Time(time.seconds, time.nanos);
            }
            Datum::Time(..) => self.nodes[id as usize].datum = datum,
            _ if is_time => return Err(NotAContainer),
            _ => self.nodes[id as usize].datum = datum,
        }
        Ok(id)
    }

    /// The node at `field`, made as null where it is missing.
    ///
    /// A path can only be refused by what is there already, so before anything was made.
    pub(crate) fn entry(&mut self, field: &FieldRef) -> Result<NodeId, NotAContainer> {
        /// A path may lengthen an array by naming an index beyond its end, but not without limit.
        const INDEX_MAX: usize = 10_000;
        let mut at = ROOT;
        for segment in field.segments() {
            if self.nodes[at as usize].datum == Datum::Null {
                self.nodes[at as usize].datum = Datum::Object(List::default());
            }
            at = match self.nodes[at as usize].datum {
                Datum::Object(list) => match self.named(list, segment) {
                    Some(id) => id,
                    None => {
                        let key = self.push_text(&segment.name);
                        self.append(at, key, Datum::Null)
                    }
                },
                Datum::Array(_) => {
                    let index = segment.index.ok_or(NotAContainer)?;
                    match self.element(at, index) {
                        Some(id) => id,
                        None => {
                            let index = usize::try_from(index).map_err(|_| NotAContainer)?;
                            let missing = index + 1 - self.children(at).count();
                            if index > INDEX_MAX {
                                return Err(NotAContainer);
                            }
                            let mut id = NONE;
                            for _ in 0..missing {
                                id = self.append(at, Span::default(), Datum::Null);
                            }
                            id
                        }
                    }
                }
                _ => return Err(NotAContainer),
            };
        }
        Ok(at)
    }

    /// Takes a field out of the tree; its node keeps its value, to be linked elsewhere.
    pub(crate) fn detach(&mut self, field: &FieldRef) -> Option<NodeId> {
        let (last, parents) = field.segments().split_last()?;
        let parent =
            parents.iter().try_fold(ROOT, |at, segment| match self.nodes[at as usize].datum {
                Datum::Object(list) => self.named(list, segment),
                Datum::Array(_) => self.element(at, segment.index?),
                _ => None,
            })?;
        let id = match self.nodes[parent as usize].datum {
            Datum::Object(list) => self.named(list, last),
            Datum::Array(_) => self.element(parent, last.index?),
            _ => None,
        }?;
        self.unlink(parent, id);
        Some(id)
    }

    /// A copy of everything beneath `id`; texts are shared.
    pub(crate) fn deep_copy(&mut self, id: NodeId) -> Datum {
        let (is_object, list) = match self.datum(id) {
            Datum::Object(list) => (true, list),
            Datum::Array(list) => (false, list),
            scalar => return scalar,
        };
        let (mut copy, mut at) = (List::default(), list.first);
        while at != NONE {
            let (key, next) = (self.nodes[at as usize].key, self.nodes[at as usize].next);
            let datum = self.deep_copy(at);
            self.push_to(&mut copy, key, datum);
            at = next;
        }
        if is_object { Datum::Object(copy) } else { Datum::Array(copy) }
    }

    /// Adds a node to a list that no node owns yet.
    pub(crate) fn push_to(&mut self, list: &mut List, key: Span, datum: Datum) -> NodeId {
        let id = self.nodes.len() as NodeId;
        let tag = tag(self.str_at(key));
        self.nodes.push(Node { key, datum, next: NONE, tag });
        if list.last == NONE {
            list.first = id;
        } else {
            self.nodes[list.last as usize].next = id;
        }
        list.last = id;
        id
    }

    /// Brings a JSON value into the buffers.
    pub(crate) fn import(&mut self, value: &serde_json::Value) -> Datum {
        use serde_json::Value as Json;
        match value {
            Json::Null => Datum::Null,
            Json::Bool(b) => Datum::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(int), _) => Datum::Int(int),
                (None, Some(float)) if n.is_f64() => Datum::Float(float),
                _ => Datum::BigNumber(self.push_text(&n.to_string())),
            },
            Json::String(s) => Datum::Text(self.push_text(s)),
            Json::Array(values) => {
                let mut list = List::default();
                for value in values {
                    let datum = self.import(value);
                    self.push_to(&mut list, Span::default(), datum);
                }
                Datum::Array(list)
            }
            Json::Object(fields) => {
                let mut list = List::default();
                for (name, value) in fields {
                    let (key, datum) = (self.push_text(name), self.import(value));
                    self.push_to(&mut list, key, datum);
                }
                Datum::Object(list)
            }
        }
    }

    pub(crate) fn set_root_text(&mut self, name: &str, text: &str) {
        let span = self.push_text(text);
        self.set_child(ROOT, name, Datum::Text(span));
    }

    /// The child of an object by a name that lies in the buffer.
    pub(crate) fn child_by_key(&self, parent: NodeId, key: Span) -> Option<NodeId> {
        self.child(parent, self.str_at(key))
    }

    /// A node that belongs to nobody yet.
    pub(crate) fn push_node(&mut self, datum: Datum) -> NodeId {
        self.nodes.push(Node { key: Span::default(), datum, next: NONE, tag: 0 });
        self.nodes.len() as NodeId - 1
    }

    /// Sets a child of an object by its name.
    pub(crate) fn set_child(&mut self, parent: NodeId, name: &str, datum: Datum) -> NodeId {
        match self.child(parent, name) {
            Some(id) => {
                self.nodes[id as usize].datum = datum;
                id
            }
            None => {
                let key = self.push_text(name);
                self.append(parent, key, datum)
            }
        }
    }
}

#[cfg(test)]
mod tests;
