//! Which files a pattern names: a walk that enters only directories that can hold a match.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::disk::{Disk, Kind};
use crate::identity::Stat;

/// How many levels `**` descends, as in Filebeat.
const DEEP_LEVELS: usize = 8;
/// How many patterns `{a,b}{c,d}…` may stand for.
const MAX_EXPANSIONS: usize = 1000;

/// One path pattern, braces expanded.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// The directory before the first wildcard.
    base: PathBuf,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Name(OsString),
    Wild(GlobMatcher),
    /// `**`: this directory and those below.
    Deep,
}

/// What a walk met.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub files: BTreeMap<PathBuf, Stat>,
    /// Directories in which a new entry could match.
    pub directories: BTreeSet<PathBuf>,
    pub failures: Vec<(PathBuf, io::Error)>,
}

impl Pattern {
    /// Patterns for `text`; a relative one starts at the current directory.
    pub(crate) fn parse(text: &str, recursive: bool) -> Result<Vec<Self>, String> {
        let absolute = std::path::absolute(text).map_err(|error| error.to_string())?;
        let text = absolute.to_str().ok_or("not UTF-8")?;
        let mut expanded = Vec::new();
        expand_braces(text, &mut expanded)?;
        expanded.iter().map(|text| Self::parse_one(text, recursive)).collect()
    }

    fn parse_one(text: &str, recursive: bool) -> Result<Self, String> {
        let mut base = PathBuf::from("/");
        let mut parts = Vec::new();
        for component in Path::new(text).components() {
            let Component::Normal(name) = component else { continue };
            let text = name.to_str().ok_or("not UTF-8")?;
            if text == "**" && recursive {
                parts.push(Part::Deep);
            } else if text.contains(['*', '?', '[', '\\']) {
                let glob = GlobBuilder::new(text)
                    .literal_separator(true)
                    .backslash_escape(true)
                    .build()
                    .map_err(|error| error.kind().to_string())?;
                parts.push(Part::Wild(glob.compile_matcher()));
            } else if parts.is_empty() {
                base.push(name);
            } else {
                parts.push(Part::Name(name.into()));
            }
        }
        if parts.is_empty() {
            let name = base.file_name().ok_or("names the root directory")?.to_os_string();
            base.pop();
            parts.push(Part::Name(name));
        }
        if let Some(Part::Deep) = parts.last() {
            // As in Filebeat, `dir/**` stands for the files in and below `dir`.
            let any = GlobBuilder::new("*").build().expect("a star is a pattern");
            parts.push(Part::Wild(any.compile_matcher()));
        }
        Ok(Self { base, parts })
    }

    /// Adds the regular files it matches to `listing`.
    pub(crate) fn walk<D: Disk>(&self, disk: &D, symlinks: bool, listing: &mut Listing) {
        walk(disk, &self.base, &self.parts, symlinks, DEEP_LEVELS, listing);
    }
}

fn walk<D: Disk>(
    disk: &D,
    directory: &Path,
    parts: &[Part],
    symlinks: bool,
    levels: usize,
    listing: &mut Listing,
) {
    let Some((part, rest)) = parts.split_first() else { return };
    listing.directories.insert(directory.into());
    if let Part::Name(name) = part {
        let path = directory.join(name);
        if rest.is_empty() {
            let kind = || Some(disk.list(directory).ok()?.into_iter().find(|(n, _)| n == name)?.1);
            // Whether it is a link only the directory tells, and only then does it matter.
            if symlinks || kind() == Some(Kind::File) {
                add(disk, path, listing);
            }
        } else {
            walk(disk, &path, rest, symlinks, levels, listing);
        }
        return;
    }
    let entries = match disk.list(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                listing.failures.push((directory.into(), error));
            }
            return;
        }
    };
    if let Part::Deep = part {
        walk(disk, directory, rest, symlinks, levels, listing);
        if levels > 0 {
            for (name, kind) in &entries {
                if *kind == Kind::Directory {
                    walk(disk, &directory.join(name), parts, symlinks, levels - 1, listing);
                }
            }
        }
        return;
    }
    let Part::Wild(matcher) = part else { return };
    for (name, kind) in entries {
        if !matcher.is_match(Path::new(&name)) {
            continue;
        }
        let path = directory.join(&name);
        match (rest.is_empty(), kind) {
            (true, Kind::File) => add(disk, path, listing),
            (true, Kind::Symlink) if symlinks => add(disk, path, listing),
            (false, Kind::Directory | Kind::Symlink) => {
                walk(disk, &path, rest, symlinks, levels, listing);
            }
            _ => {}
        }
    }
}

fn add<D: Disk>(disk: &D, path: PathBuf, listing: &mut Listing) {
    match disk.stat(&path) {
        Ok(stat) if stat.is_file => {
            listing.files.insert(path, stat);
        }
        Ok(_) => {}
        // Gone since the listing, or a link to nowhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => listing.failures.push((path, error)),
    }
}

fn expand_braces(text: &str, into: &mut Vec<String>) -> Result<(), String> {
    let Some(open) = text.find('{') else {
        into.push(text.into());
        return if into.len() > MAX_EXPANSIONS {
            Err("too many alternatives".into())
        } else {
            Ok(())
        };
    };
    let (mut depth, mut starts, mut close) = (0, vec![open + 1], None);
    for (at, letter) in text.char_indices().skip_while(|(at, _)| *at < open) {
        match letter {
            '{' => depth += 1,
            ',' if depth == 1 => starts.push(at + 1),
            '}' => {
                depth -= 1;
                if depth == 0 {
                    close = Some(at);
                    break;
                }
            }
            _ => {}
        }
    }
    let close = close.ok_or("lacks a closing brace")?;
    for (i, start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).map_or(close, |next| next - 1);
        expand_braces(
            &format!("{}{}{}", &text[..open], &text[*start..end], &text[close + 1..]),
            into,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn check(patterns: &[&str], symlinks: bool, expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for file in ["a.log", "b.txt", "x/a.log", "x/y/c.log", "x/y/z/a.log", "x[1].log"] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(root.join("a.log"), root.join("link.log")).unwrap();
        std::fs::create_dir(root.join("dir.log")).unwrap();
        let mut listing = Listing::default();
        for pattern in patterns {
            for pattern in Pattern::parse(root.join(pattern).to_str().unwrap(), true).unwrap() {
                pattern.walk(&RealDisk, symlinks, &mut listing);
            }
        }
        let found: Vec<_> = listing
            .files
            .keys()
            .map(|path| path.strip_prefix(root).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{patterns:?}");
        assert!(listing.failures.is_empty());
    }

    #[test]
    fn patterns_name_the_files_they_should() {
        check(&["*.log"], false, &["a.log", "x[1].log"]);
        check(&["*.log"], true, &["a.log", "link.log", "x[1].log"]);
        check(&["*/*.log"], false, &["x/a.log"]);
        check(&["**/a.log"], false, &["a.log", "x/a.log", "x/y/z/a.log"]);
        check(&["x/**"], false, &["x/a.log", "x/y/c.log", "x/y/z/a.log"]);
        check(&["{a.log,x/{a,y/c}.log}"], false, &["a.log", "x/a.log", "x/y/c.log"]);
        check(&["x\\[1].log", "[ab].*"], false, &["a.log", "b.txt", "x[1].log"]);
        check(&["link.log", "a.log"], false, &["a.log"]);
        check(&["nothing/*.log", "b.txt"], false, &["b.txt"]);
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        assert!(Pattern::parse("/a/{b", true).is_err());
        assert!(Pattern::parse("/a/[b", true).is_err());
        assert!(
            Pattern::parse("/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", true).is_err()
        );
    }
}
