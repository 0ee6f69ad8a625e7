//! Which strings are paths of znodes.

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    #[error("path is empty")]
    Empty,
    #[error("path must start with /")]
    Relative,
    #[error("path must not end with /")]
    TrailingSlash,
    #[error("path has an empty name at byte {0}")]
    EmptyName(usize),
    #[error("path has . or .. at byte {0}")]
    Dots(usize),
    #[error("path has a character that is not allowed at byte {0}")]
    Character(usize),
}

/// Checks `path` by the rules of ZooKeeper's `PathUtils`.
pub fn check_path(path: &str) -> Result<(), InvalidPath> {
    let Some(names) = path.strip_prefix('/') else {
        return Err(if path.is_empty() { InvalidPath::Empty } else { InvalidPath::Relative });
    };
    if names.is_empty() {
        return Ok(());
    }
    if path.ends_with('/') {
        return Err(InvalidPath::TrailingSlash);
    }
    let mut start = 1;
    for name in names.split('/') {
        match name {
            "" => return Err(InvalidPath::EmptyName(start)),
            "." | ".." => return Err(InvalidPath::Dots(start)),
            _ => {}
        }
        if let Some((at, _)) = name.char_indices().find(|(_, c)| is_forbidden(*c)) {
            return Err(InvalidPath::Character(start + at));
        }
        start += name.len() + 1;
    }
    Ok(())
}

/// Control characters, what would be half a surrogate pair or private in Java, and specials.
/// Characters beyond the basic plane are pairs of surrogates to Java, so they fall under it too.
fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
        || c > '\u{ffff}'
}

/// `("/a", "b")` of `/a/b`, `("/", "a")` of `/a`; `None` of the root and of what is no path.
pub fn parent_and_name(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    if name.is_empty() {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_zookeepers_rules() {
        for path in ["/", "/a", "/a/b c/ü", "/a..b/...", "/brokers/ids/1"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for (path, error) in [
            ("", InvalidPath::Empty),
            ("a", InvalidPath::Relative),
            ("/a/", InvalidPath::TrailingSlash),
            ("//a", InvalidPath::EmptyName(1)),
            ("/a//b", InvalidPath::EmptyName(3)),
            ("/a/./b", InvalidPath::Dots(3)),
            ("/..", InvalidPath::Dots(1)),
            ("/a/b\u{1}", InvalidPath::Character(4)),
            ("/\0", InvalidPath::Character(1)),
            ("/\u{1f600}", InvalidPath::Character(1)),
        ] {
            assert_eq!(check_path(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn a_path_is_its_parent_and_its_name() {
        assert_eq!(parent_and_name("/a/b"), Some(("/a", "b")));
        assert_eq!(parent_and_name("/a"), Some(("/", "a")));
        assert_eq!(parent_and_name("/"), None);
        assert_eq!(parent_and_name("a"), None);
    }
}
