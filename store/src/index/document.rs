//! The tantivy schema, and a document as tantivy takes it: slices of the bulk body it came in.
//!
//! `_source` is stored as it came. All fields but `message` and `@timestamp` lie in three JSON
//! fields: `k` (whole strings: postings and columns), `n` (numbers: columns only, postings would
//! cost more than the scans they save), `t` (words of other texts). The message is never in `k`:
//! its values are nearly all distinct, which halves the speed of everything.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use tantivy::Document;
use tantivy::schema::document::{ReferenceValue, ReferenceValueLeaf, Value};
use tantivy::schema::{
    FAST, Field, IndexRecordOption, JsonObjectOptions, NumericOptions, STORED, Schema,
    TextFieldIndexing, TextOptions,
};

use crate::analysis;
use crate::mapping::{Mapping, Place};

/// Handles of the schema's fields, the same in every index.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    pub id: Field,
    pub source: Field,
    pub seq_no: Field,
    pub version: Field,
    pub timestamp: Field,
    pub message: Field,
    pub text: Field,
    pub keyword: Field,
    pub number: Field,
}

/// Column names.
pub const SEQ_NO: &str = "_seq_no";
pub const VERSION: &str = "_version";
pub const TIMESTAMP: &str = "ts";

/// The name of the column of a number or keyword field.
pub fn column_name(place: Place, path: &str) -> String {
    match place {
        Place::Timestamp => TIMESTAMP.to_owned(),
        Place::Number | Place::Message | Place::Text => format!("n.{path}"),
        Place::Keyword | Place::Nowhere => format!("k.{path}"),
    }
}

pub fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let words = TextFieldIndexing::default()
        .set_tokenizer(analysis::STANDARD)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions)
        .set_fieldnorms(false);
    let whole = |tokenizer: &str| {
        TextFieldIndexing::default()
            .set_tokenizer(tokenizer)
            .set_index_option(IndexRecordOption::Basic)
            .set_fieldnorms(false)
    };
    let fields = Fields {
        id: builder.add_text_field(
            "_id",
            TextOptions::default().set_indexing_options(whole("raw")) | STORED,
        ),
        // As text: tantivy writes stored bytes one by one, and stored text at once.
        source: builder.add_text_field("_source", STORED),
        seq_no: builder.add_u64_field(SEQ_NO, FAST),
        version: builder.add_u64_field(VERSION, FAST),
        timestamp: builder.add_i64_field(TIMESTAMP, NumericOptions::default().set_fast()),
        message: builder
            .add_text_field("message", TextOptions::default().set_indexing_options(words.clone())),
        text: builder.add_json_field(
            "t",
            JsonObjectOptions::default().set_indexing_options(words).set_expand_dots_enabled(),
        ),
        keyword: builder.add_json_field(
            "k",
            JsonObjectOptions::default()
                .set_indexing_options(whole("raw"))
                .set_fast("raw")
                .set_expand_dots_enabled(),
        ),
        number: builder.add_json_field(
            "n",
            JsonObjectOptions::default().set_fast("raw").set_expand_dots_enabled(),
        ),
    };
    (builder.build(), fields)
}

/// A value of a field, as a slice of the body or of the texts that had to be rewritten.
#[derive(Debug, Clone)]
pub enum Data {
    Body(Range<u32>),
    Own(Range<u32>),
    I64(i64),
    F64(f64),
}

/// A document read and typed, ready to be indexed.
#[derive(Debug)]
pub struct Prepared {
    /// The bulk request's body, shared by its documents.
    pub body: Arc<String>,
    /// `_source` within it.
    pub source: Range<u32>,
    /// Texts that do not stand in the body as they are: unescaped strings, addresses.
    pub own: String,
    pub mapping: Arc<Mapping>,
    /// Field number, place and value.
    pub values: Vec<(u32, Place, Data)>,
    pub timestamp: Option<i64>,
    pub id: Box<str>,
    pub seq_no: u64,
    /// From 1.
    pub version: u64,
    pub fields: Fields,
}

impl Prepared {
    pub fn source(&self) -> &str {
        &self.body[self.source.start as usize..self.source.end as usize]
    }

    /// Bytes it holds besides its share of the body.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.own.capacity()
            + self.id.len()
            + self.values.capacity() * size_of::<(u32, Place, Data)>()
    }

    fn leaf<'a>(&'a self, data: &Data) -> Leaf<'a> {
        match data {
            Data::Body(range) => Leaf::Text(&self.body[range.start as usize..range.end as usize]),
            Data::Own(range) => Leaf::Text(&self.own[range.start as usize..range.end as usize]),
            Data::I64(number) => Leaf::I64(*number),
            Data::F64(number) => Leaf::F64(*number),
        }
    }
}

/// What tantivy sees of a document.
#[derive(Debug, Clone, Copy)]
pub enum Leaf<'a> {
    Text(&'a str),
    U64(u64),
    I64(i64),
    F64(f64),
    /// All values of one place, as one flat object of dotted paths.
    Object(&'a Prepared, Place),
}

impl<'a> Value<'a> for Leaf<'a> {
    type ArrayIter = iter::Empty<Self>;
    type ObjectIter = ObjectIter<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        ReferenceValue::Leaf(match *self {
            Leaf::Text(text) => ReferenceValueLeaf::Str(text),
            Leaf::U64(number) => ReferenceValueLeaf::U64(number),
            Leaf::I64(number) => ReferenceValueLeaf::I64(number),
            Leaf::F64(number) => ReferenceValueLeaf::F64(number),
            Leaf::Object(document, place) => {
                return ReferenceValue::Object(ObjectIter { document, place, at: 0 });
            }
        })
    }
}

#[derive(Debug)]
pub struct ObjectIter<'a> {
    document: &'a Prepared,
    place: Place,
    at: usize,
}

impl<'a> Iterator for ObjectIter<'a> {
    type Item = (&'a str, Leaf<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (field, place, data) = self.document.values.get(self.at)?;
            self.at += 1;
            if *place == self.place {
                let path = &*self.document.mapping.fields[*field as usize].path;
                return Some((path, self.document.leaf(data)));
            }
        }
    }
}

/// The document's fields in the order of the schema.
#[derive(Debug)]
pub struct FieldsIter<'a> {
    document: &'a Prepared,
    step: u8,
    at: usize,
}

impl<'a> Iterator for FieldsIter<'a> {
    type Item = (Field, Leaf<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let document = self.document;
        let fields = &document.fields;
        loop {
            self.step += 1;
            return Some(match self.step {
                1 => (fields.id, Leaf::Text(&document.id)),
                2 => (fields.source, Leaf::Text(document.source())),
                3 => (fields.seq_no, Leaf::U64(document.seq_no)),
                4 if document.version > 1 => (fields.version, Leaf::U64(document.version)),
                5 => match document.timestamp {
                    Some(timestamp) => (fields.timestamp, Leaf::I64(timestamp)),
                    None => continue,
                },
                6 => {
                    // Every value of the message is a value of its own, so this step repeats.
                    let found = document.values[self.at..]
                        .iter()
                        .position(|(_, place, _)| *place == Place::Message);
                    let Some(found) = found else { continue };
                    let (_, _, data) = &document.values[self.at + found];
                    self.at += found + 1;
                    self.step -= 1;
                    (fields.message, document.leaf(data))
                }
                7 => (fields.text, Leaf::Object(document, Place::Text)),
                8 => (fields.keyword, Leaf::Object(document, Place::Keyword)),
                9 => (fields.number, Leaf::Object(document, Place::Number)),
                4 => continue,
                _ => return None,
            });
        }
    }
}

impl Document for Prepared {
    type Value<'a> = Leaf<'a>;
    type FieldsValuesIter<'a> = FieldsIter<'a>;

    fn iter_fields_and_values(&self) -> FieldsIter<'_> {
        FieldsIter { document: self, step: 0, at: 0 }
    }
}
