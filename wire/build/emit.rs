//! Makes Rust of the tables.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::table::{Field, Message, Struct, Table, Type, Versions};

/// The text of `elkfk_wire::kafka::messages`: a module per message, a constant per API.
pub(crate) fn rust(table: &Table) -> String {
    let mut out = String::new();
    out.push_str("/// Keys of the APIs, under Kafka's names.\npub mod api_key {\n");
    for api in &table.apis {
        let name = snake(&api.name).to_uppercase();
        writeln!(out, "    /// {}.\n    pub const {name}: i16 = {};", api.name, api.key).unwrap();
    }
    out.push_str("}\n\n/// Every API of the table, by key.\npub const APIS: &[Api] = &[\n");
    for api in &table.apis {
        let flexible = api.flexible.map_or("None".to_owned(), |v| format!("Some({v})"));
        let Versions { first, last } = api.versions;
        writeln!(
            out,
            "    Api {{ key: {}, name: {:?}, versions: {first}..={last}, flexible_from: {flexible} }},",
            api.key, api.name
        )
        .unwrap();
    }
    out.push_str("];\n");
    for message in &table.messages {
        let name = message.name();
        writeln!(out, "#[doc(no_inline)]\npub use {}::{name};", snake(name)).unwrap();
    }
    for message in &table.messages {
        module(&mut out, message);
    }
    out
}

fn module(out: &mut String, message: &Message) {
    let Versions { first, last } = message.versions;
    let borrowing = borrowing(message);
    writeln!(
        out,
        "\n/// [`{name}`]({module}::{name}), versions {first} to {last}.\npub mod {module} {{\n    use super::prelude::*;",
        name = message.name(),
        module = snake(message.name()),
    )
    .unwrap();
    for (i, item) in message.structs.iter().enumerate() {
        structure(out, message, item, &borrowing, i == 0);
    }
    let name = message.name();
    let life = life(name, &borrowing);
    let key = message.key;
    writeln!(
        out,
        "
    impl<'a> Message<'a> for {name}{life} {{
        const API_KEY: i16 = {key};
        const VERSIONS: RangeInclusive<i16> = {first}..={last};
        fn decode(r: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {{
            if !Self::VERSIONS.contains(&version) {{
                return Err(DecodeError::UnsupportedVersion {{ api_key: {key}, version }});
            }}
            Self::read(r, version)
        }}
        fn encode(&self, out: &mut Vec<u8>, version: i16) -> Result<(), EncodeError> {{
            if !Self::VERSIONS.contains(&version) {{
                return Err(EncodeError::UnsupportedVersion {{ api_key: {key}, version }});
            }}
            self.write(out, version)
        }}
    }}
}}"
    )
    .unwrap();
}

/// Names of the structs that hold strings or bytes, so borrow from the frame.
fn borrowing(message: &Message) -> BTreeSet<String> {
    fn borrows(message: &Message, ty: &Type) -> bool {
        match ty {
            Type::String | Type::Bytes => true,
            Type::Array(element) => borrows(message, element),
            Type::Struct(name) => message.find(name).fields.iter().any(|f| borrows(message, &f.ty)),
            _ => false,
        }
    }
    let all = message.structs.iter().map(|s| s.name.clone());
    all.filter(|name| borrows(message, &Type::Struct(name.clone()))).collect()
}

fn life(name: &str, borrowing: &BTreeSet<String>) -> &'static str {
    if borrowing.contains(name) { "<'a>" } else { "" }
}

fn structure(
    out: &mut String,
    message: &Message,
    item: &Struct,
    borrowing: &BTreeSet<String>,
    is_top: bool,
) {
    let name = &item.name;
    let life = life(name, borrowing);
    let plain_default = item.fields.iter().all(|f| f.default.is_none());
    let derive =
        if plain_default { "Clone, Debug, Default, PartialEq" } else { "Clone, Debug, PartialEq" };
    let doc = if is_top { "The message." } else { "A part of the message." };
    writeln!(out, "\n    /// {doc}\n    #[derive({derive})]\n    pub struct {name}{life} {{")
        .unwrap();
    for field in &item.fields {
        writeln!(out, "        /// {}", describe(message, field)).unwrap();
        writeln!(out, "        pub {}: {},", ident(&field.name), field_type(field, borrowing))
            .unwrap();
    }
    out.push_str("    }\n");
    if !plain_default {
        writeln!(out, "\n    impl Default for {name}{} {{", life.replace("'a", "'_")).unwrap();
        out.push_str("        fn default() -> Self {\n            Self {\n");
        for field in &item.fields {
            writeln!(out, "                {}: {},", ident(&field.name), default_value(field))
                .unwrap();
        }
        out.push_str("            }\n        }\n    }\n");
    }
    let implementation = if life.is_empty() { "impl" } else { "impl<'a>" };
    writeln!(out, "\n    {implementation} {name}{life} {{").unwrap();
    if let Some(size) = element_size_min(message, name) {
        writeln!(out, "        const MIN_SIZE: usize = {size};").unwrap();
    }
    read(out, message, item, life);
    write(out, message, item);
    out.push_str("    }\n");
}

/// Fewest bytes of a struct, over the versions in which it is in an array; `None` if it never is.
fn element_size_min(message: &Message, name: &str) -> Option<usize> {
    let ty = Type::Struct(name.to_owned());
    let in_array = Type::Array(Box::new(ty.clone()));
    let fields = message.structs.iter().flat_map(|s| &s.fields).filter(|f| f.ty == in_array);
    let versions = fields.flat_map(|f| f.versions.first..=f.versions.last);
    versions.map(|v| message.min_size(&ty, v)).min()
}

fn describe(message: &Message, field: &Field) -> String {
    let mut text = String::new();
    if !field.note.is_empty() {
        text.push_str(&field.note);
        text.push(' ');
    }
    let Versions { first, last } = field.versions;
    if first == message.versions.first && last == message.versions.last {
        text.push_str("In every version");
    } else if last == message.versions.last {
        write!(text, "From version {first}").unwrap();
    } else if first == last {
        write!(text, "In version {first}").unwrap();
    } else {
        write!(text, "In versions {first} to {last}").unwrap();
    }
    if let Some(null) = field.nullable {
        if null == field.versions {
            text.push_str("; may be null");
        } else {
            write!(text, "; may be null from version {}", null.first).unwrap();
        }
    }
    if let Some(default) = &field.default {
        write!(text, "; {default} if not set").unwrap();
    }
    text.push('.');
    text
}

fn field_type(field: &Field, borrowing: &BTreeSet<String>) -> String {
    let ty = rust_type(&field.ty, borrowing);
    if field.nullable.is_some() { format!("Option<{ty}>") } else { ty }
}

fn rust_type(ty: &Type, borrowing: &BTreeSet<String>) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::I8 => "i8".into(),
        Type::I16 => "i16".into(),
        Type::U16 => "u16".into(),
        Type::I32 => "i32".into(),
        Type::U32 => "u32".into(),
        Type::I64 => "i64".into(),
        Type::F64 => "f64".into(),
        Type::Uuid => "Uuid".into(),
        Type::String => "Cow<'a, str>".into(),
        Type::Bytes => "Cow<'a, [u8]>".into(),
        Type::Array(element) => format!("Vec<{}>", rust_type(element, borrowing)),
        Type::Struct(name) => format!("{name}{}", life(name, borrowing)),
    }
}

fn default_value(field: &Field) -> String {
    match (&field.default, &field.ty) {
        (None, _) => "Default::default()".into(),
        (Some(text), Type::String) => format!("Cow::Borrowed({text:?})"),
        (Some(text), _) => text.clone(),
    }
}

/// True if `field` differs from its default, as a Rust expression.
fn differs(field: &Field) -> String {
    let name = ident(&field.name);
    match (&field.ty, &field.default) {
        _ if field.nullable.is_some() => format!("self.{name}.is_some()"),
        (Type::Array(_) | Type::Bytes | Type::String, None) => format!("!self.{name}.is_empty()"),
        (Type::Bool, None) => format!("self.{name}"),
        (Type::Bool, Some(_)) => format!("!self.{name}"),
        (Type::Struct(ty), _) => format!("self.{name} != {ty}::default()"),
        (Type::Uuid, _) => format!("self.{name} != Uuid::ZERO"),
        (Type::F64, None) => format!("self.{name} != 0.0"),
        (_, Some(default)) => format!("self.{name} != {default}"),
        (_, None) => format!("self.{name} != 0"),
    }
}

/// A Rust condition on `v` that holds in `some`, given that v is in `within`; empty if always.
fn condition(some: Versions, within: Versions) -> String {
    let low = (some.first > within.first).then(|| format!("v >= {}", some.first));
    let high = (some.last < within.last).then(|| format!("v <= {}", some.last));
    [low, high].into_iter().flatten().collect::<Vec<_>>().join(" && ")
}

/// Whether compact lengths are in force, as a Rust expression; a literal where all versions agree.
fn flexible(message: &Message, within: Versions) -> String {
    match message.flexible {
        None => "false".into(),
        Some(first) if first <= within.first => "true".into(),
        Some(first) if first > within.last => "false".into(),
        Some(first) => format!("v >= {first}"),
    }
}

fn read(out: &mut String, message: &Message, item: &Struct, life: &str) {
    let reader = if life.is_empty() { "Reader<'_>" } else { "Reader<'a>" };
    writeln!(out, "        fn read(r: &mut {reader}, v: i16) -> Result<Self, DecodeError> {{")
        .unwrap();
    writeln!(out, "            let mut it = Self::default();").unwrap();
    for field in item.fields.iter().filter(|f| f.tag.is_none()) {
        let value = read_field(message, field);
        let when = condition(field.versions, message.versions);
        let statement = format!("it.{} = {value};", ident(&field.name));
        if when.is_empty() {
            writeln!(out, "            {statement}").unwrap();
        } else {
            writeln!(out, "            if {when} {{ {statement} }}").unwrap();
        }
    }
    let tail = flexible(message, message.versions);
    if tail != "false" {
        let tagged: Vec<&Field> = item.fields.iter().filter(|f| f.tag.is_some()).collect();
        if tagged.is_empty() {
            writeln!(out, "            if {tail} {{ r.skip_tagged_fields()?; }}").unwrap();
        } else {
            writeln!(out, "            if {tail} {{ r.tagged_fields(|tag, r| {{ match tag {{")
                .unwrap();
            for field in tagged {
                let value = read_field(message, field);
                let when = condition(field.versions, message.versions);
                let when = if when.is_empty() { when } else { format!(" if {when}") };
                let tag = field.tag.unwrap_or_default();
                writeln!(
                    out,
                    "                {tag}{when} => it.{} = {value},",
                    ident(&field.name)
                )
                .unwrap();
            }
            writeln!(out, "                _ => {{}} }} Ok(()) }})?; }}").unwrap();
        }
    }
    writeln!(out, "            let _ = v;\n            Ok(it)\n        }}").unwrap();
}

fn read_field(message: &Message, field: &Field) -> String {
    let within = if field.tag.is_some() {
        Versions { first: message.flexible.unwrap_or(0), ..field.versions }.and(field.versions)
    } else {
        field.versions
    };
    match field.nullable {
        None => read_value(message, &field.ty, within, false),
        Some(null) if null == field.versions => read_value(message, &field.ty, within, true),
        Some(null) => format!(
            "if {} {{ {} }} else {{ Some({}) }}",
            condition(null, within),
            read_value(message, &field.ty, null, true),
            read_value(message, &field.ty, within, false),
        ),
    }
}

fn read_value(message: &Message, ty: &Type, within: Versions, nullable: bool) -> String {
    let compact = flexible(message, within);
    let prefix = if nullable { "nullable_" } else { "" };
    match ty {
        Type::String => format!("r.{prefix}string({compact})?"),
        Type::Bytes => format!("r.{prefix}bytes({compact})?"),
        Type::Array(element) => {
            let min = match &**element {
                Type::Struct(name) => format!("{name}::MIN_SIZE"),
                // A compact length is one byte where a plain one is two or four.
                other if compact == "false" => message.min_size(other, within.first).to_string(),
                other => message.min_size(other, within.last).to_string(),
            };
            let body = read_value(message, element, within, false);
            let body = body.strip_suffix('?').unwrap_or(&body);
            format!("r.{prefix}array({compact}, {min}, |r| {body})?")
        }
        Type::Struct(name) => format!("{name}::read(r, v)?"),
        _ => format!("r.{}()?", scalar(ty)),
    }
}

fn scalar(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::I8 => "i8",
        Type::I16 => "i16",
        Type::U16 => "u16",
        Type::I32 => "i32",
        Type::U32 => "u32",
        Type::I64 => "i64",
        Type::F64 => "f64",
        Type::Uuid => "uuid",
        Type::String | Type::Bytes | Type::Array(_) | Type::Struct(_) => {
            unreachable!("not a scalar")
        }
    }
}

fn write(out: &mut String, message: &Message, item: &Struct) {
    writeln!(
        out,
        "        fn write(&self, out: &mut Vec<u8>, v: i16) -> Result<(), EncodeError> {{"
    )
    .unwrap();
    for field in &item.fields {
        let when = condition(field.versions, message.versions);
        let refusal = format!(
            "return Err(EncodeError::NotInVersion {{ field: \"{}.{}\", version: v }});",
            item.name, field.name
        );
        if field.tag.is_some() {
            if field.must && !when.is_empty() {
                writeln!(out, "            if !({when}) && {} {{ {refusal} }}", differs(field))
                    .unwrap();
            }
            continue;
        }
        let statement = write_field(message, item, field);
        if when.is_empty() {
            writeln!(out, "            {statement}").unwrap();
        } else {
            writeln!(out, "            if {when} {{ {statement} }}").unwrap();
            if field.must {
                writeln!(out, "            else if {} {{ {refusal} }}", differs(field)).unwrap();
            }
        }
    }
    let tail = flexible(message, message.versions);
    if tail != "false" {
        let mut tagged: Vec<&Field> = item.fields.iter().filter(|f| f.tag.is_some()).collect();
        tagged.sort_by_key(|f| f.tag);
        if tagged.is_empty() {
            writeln!(out, "            if {tail} {{ out.push(0); }}").unwrap();
        } else {
            writeln!(
                out,
                "            if {tail} {{\n                let mut tags = put::Tagged::default();"
            )
            .unwrap();
            for field in tagged {
                let when = condition(field.versions, message.versions);
                let when = if when.is_empty() { when } else { format!("{when} && ") };
                let statement = write_field(message, item, field);
                let tag = field.tag.unwrap_or_default();
                writeln!(
                    out,
                    "                if {when}{} {{ let out = tags.start({tag}); {statement} }}",
                    differs(field)
                )
                .unwrap();
            }
            writeln!(out, "                tags.finish(out);\n            }}").unwrap();
        }
    }
    writeln!(out, "            let _ = v;\n            Ok(())\n        }}").unwrap();
}

fn write_field(message: &Message, item: &Struct, field: &Field) -> String {
    let within = if field.tag.is_some() {
        Versions { first: message.flexible.unwrap_or(0), ..field.versions }.and(field.versions)
    } else {
        field.versions
    };
    let name = ident(&field.name);
    let place = format!("\"{}.{}\"", item.name, field.name);
    let Some(null) = field.nullable else {
        return write_value(message, &field.ty, within, &format!("self.{name}"), &place);
    };
    let some = write_value(message, &field.ty, within, "x", &place);
    let compact = flexible(message, null);
    let none = match &field.ty {
        Type::String => format!("put::null_string(out, {compact})"),
        _ => format!("put::null_sequence(out, {compact})"),
    };
    let none = if null == field.versions {
        format!("{none};")
    } else {
        let when = condition(null, within);
        format!(
            "if {when} {{ {none}; }} else {{ return Err(EncodeError::Null {{ field: {place}, version: v }}); }}"
        )
    };
    format!("match &self.{name} {{ Some(x) => {{ {some} }} None => {{ {none} }} }}")
}

/// A statement that writes `value`, a place or a reference.
fn write_value(message: &Message, ty: &Type, within: Versions, value: &str, place: &str) -> String {
    let compact = flexible(message, within);
    match ty {
        Type::String => format!("put::string(out, {compact}, &{value}, {place})?;"),
        Type::Bytes => format!("put::bytes(out, {compact}, &{value}, {place})?;"),
        Type::Array(element) => {
            let element_value = if matches!(
                **element,
                Type::String | Type::Bytes | Type::Struct(_) | Type::Array(_)
            ) {
                "y"
            } else {
                "*y"
            };
            let each = write_value(message, element, within, element_value, place);
            format!(
                "put::count(out, {compact}, {value}.len(), {place})?; for y in &{} {{ {each} }}",
                deref(value)
            )
        }
        Type::Struct(_) => format!("{value}.write(out, v)?;"),
        Type::Bool => format!("out.push(u8::from({}));", copied(value)),
        Type::Uuid => format!("out.extend_from_slice(&{value}.0);"),
        _ => format!("out.extend_from_slice(&{}.to_be_bytes());", value.trim_start_matches('*')),
    }
}

/// `x` is already a reference, `self.field` is a place.
fn deref(value: &str) -> String {
    if value == "x" || value == "y" { format!("*{value}") } else { value.to_owned() }
}

fn copied(value: &str) -> String {
    if value == "x" { "*x".to_owned() } else { value.to_owned() }
}

fn ident(name: &str) -> String {
    match name {
        "type" | "match" => format!("r#{name}"),
        _ => name.to_owned(),
    }
}

/// `OffsetForLeaderEpochRequest` becomes `offset_for_leader_epoch_request`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
