//! Replacing what an expression matches, as Ruby's gsub does: `\1`, `\0`, `\k<name>` in the
//! replacement stand for what was captured.

use super::{
    Context,
    regex::{CaptureName, Exhausted, Pattern, Scratch, UNSET},
};
use crate::{
    config::{Located, Options},
    event::{Event, Span, Template},
};

#[derive(Debug)]
pub(crate) struct Gsub {
    needle: Needle,
    replacement: Template,
}

#[derive(Debug)]
enum Needle {
    Fixed(Pattern),
    /// An expression with `%{field}` in it, compiled for each event.
    Computed(Template),
}

impl Gsub {
    pub(crate) fn read(
        options: &mut Options<'_>,
        pattern: &Located<String>,
        replacement: &Located<String>,
    ) -> Option<Self> {
        let needle = if pattern.value.contains("%{") {
            Needle::Computed(options.template_of(pattern)?)
        } else {
            match Pattern::new(&pattern.value) {
                Ok(pattern) => Needle::Fixed(pattern),
                Err(reason) => {
                    let text = format!("\"{}\" is no regular expression: {reason}", pattern.value);
                    options.mistake(&pattern.place, text);
                    return None;
                }
            }
        };
        Some(Self { needle, replacement: options.template_of(replacement)? })
    }

    /// The text with every match replaced; itself where there is none.
    ///
    /// # Errors
    /// The expression takes too long on this text, which then stays as it is: half of it replaced
    /// would be worse where secrets are masked.
    pub(crate) fn apply(
        &self,
        event: &mut Event,
        span: Span,
        context: &mut Context,
    ) -> Result<Span, Exhausted> {
        let computed;
        let pattern = match &self.needle {
            Needle::Fixed(pattern) => pattern,
            Needle::Computed(template) => match Pattern::new(&template.to_text(event)) {
                Ok(pattern) => {
                    computed = pattern;
                    &computed
                }
                Err(_) => return Ok(span),
            },
        };
        let text = event.str_at(span);
        if pattern.find_at(text, 0, &mut context.machine)?.is_none() {
            return Ok(span);
        }
        let replacement = self.replacement.to_text(event);
        let replaced = replace_all(pattern, text, &replacement, &mut context.machine)?;
        Ok(event.push_text(&replaced))
    }
}

/// The text with every match replaced.
pub(crate) fn replace_all(
    pattern: &Pattern,
    text: &str,
    replacement: &str,
    scratch: &mut Scratch,
) -> Result<String, Exhausted> {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while at <= text.len() {
        let Some((start, end)) = pattern.find_at(text, at, scratch)? else { break };
        out.push_str(&text[copied..start]);
        expand(pattern, text, (start, end), replacement, scratch, &mut out);
        copied = end;
        // After an empty match, one character is passed over.
        at = if end > start {
            end
        } else {
            end + text[end..].chars().next().map_or(1, char::len_utf8)
        };
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

fn expand(
    pattern: &Pattern,
    text: &str,
    whole: (usize, usize),
    replacement: &str,
    scratch: &Scratch,
    out: &mut String,
) {
    let group = |capture: usize| {
        let slots = scratch.slots.get(capture * 2..capture * 2 + 2)?;
        (slots[0] != UNSET && slots[1] != UNSET)
            .then(|| &text[slots[0] as usize..slots[1] as usize])
    };
    let mut rest = replacement;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let used = match after.chars().next() {
            Some('0' | '&') => {
                out.push_str(&text[whole.0..whole.1]);
                1
            }
            Some(digit @ '1'..='9') => {
                out.push_str(group(digit as usize - '1' as usize).unwrap_or_default());
                1
            }
            Some('k') if after[1..].starts_with('<') && after.contains('>') => {
                let end = after.find('>').unwrap_or(after.len() - 1);
                let named = pattern.captures().iter().position(
                    |capture| matches!(capture, CaptureName::Name(name) if *name == after[2..end]),
                );
                out.push_str(named.and_then(group).unwrap_or_default());
                end + 1
            }
            Some('\\') => {
                out.push('\\');
                1
            }
            _ => {
                out.push('\\');
                0
            }
        };
        rest = &after[used..];
    }
    out.push_str(rest);
}
