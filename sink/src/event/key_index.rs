//! Finding the fields of one object by name while it grows.

use std::collections::HashMap;

use super::{Datum, Event, NONE, NodeId, Span};

/// For a loop that looks up a name and appends it where it is missing. After some names it goes
/// by hash: a text with very many of them would take the square of their number.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    object: NodeId,
    searches: usize,
    by_name: HashMap<Box<str>, NodeId>,
    /// The last field in `by_name`; later ones are appended after it.
    last: NodeId,
}

/// So many names are searched for one by one, which is quicker.
const LINEAR_SEARCHES_MAX: usize = 32;

impl KeyIndex {
    /// Of the fields of `object`. None of them may be removed meanwhile.
    pub(crate) fn new(object: NodeId) -> Self {
        Self { object, searches: 0, by_name: HashMap::new(), last: NONE }
    }

    pub(crate) fn find(&mut self, event: &Event, key: Span) -> Option<NodeId> {
        if self.searches < LINEAR_SEARCHES_MAX {
            self.searches += 1;
            return event.child_by_key(self.object, key);
        }
        let Datum::Object(list) = event.datum(self.object) else { return None };
        let mut at = match self.last {
            NONE => list.first,
            last => event.nodes[last as usize].next,
        };
        while at != NONE {
            let node = &event.nodes[at as usize];
            self.by_name.entry(event.str_at(node.key).into()).or_insert(at);
            (self.last, at) = (at, node.next);
        }
        self.by_name.get(event.str_at(key)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ROOT;

    #[test]
    fn names_are_found_as_they_are_one_by_one() {
        let mut event = Event::empty();
        let mut index = KeyIndex::new(ROOT);
        for n in 0..500 {
            // Each name twice, the second time found.
            let key = event.push_text(&format!("k{}", n / 2));
            let held = index.find(&event, key);
            assert_eq!(held, event.child_by_key(ROOT, key));
            assert_eq!(held.is_some(), n % 2 == 1);
            if held.is_none() {
                event.append(ROOT, key, Datum::Bool(true));
            }
        }
    }
}
