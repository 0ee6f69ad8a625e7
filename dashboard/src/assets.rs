//! The page's own files, inside the binary.

use std::borrow::Cow;

use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "web/"]
struct Web;

/// One file of the page.
pub(crate) struct Asset {
    pub(crate) bytes: Cow<'static, [u8]>,
    pub(crate) content_type: &'static str,
    /// Changes whenever the bytes do.
    pub(crate) etag: String,
}

/// The file that `path` (with its leading slash) names; a view's own path names the page itself.
pub(crate) fn get(path: &str) -> Option<Asset> {
    let name = match path {
        "/" | "/overview" | "/discover" | "/lag" | "/topics" | "/groups" | "/ensemble"
        | "/alerts" => "index.html",
        other => other.strip_prefix('/')?,
    };
    let file = Web::get(name)?;
    let content_type = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    };
    let hash = file.metadata.sha256_hash();
    let etag =
        hash[..8].iter().fold("\"".to_owned(), |text, byte| format!("{text}{byte:02x}")) + "\"";
    Some(Asset { bytes: file.data, content_type, etag })
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_file_the_page_asks_for_is_inside() {
        let mut wanted = vec!["/index.html".to_owned()];
        let mut seen = 0;
        while seen < wanted.len() {
            let path = wanted[seen].clone();
            seen += 1;
            let asset = get(&path).unwrap_or_else(|| panic!("{path} is not embedded"));
            let text = String::from_utf8_lossy(&asset.bytes).into_owned();
            let folder = path.rsplit_once('/').unwrap().0.to_owned();
            for quoted in text.split('"').skip(1).step_by(2) {
                let is_file = [".js", ".css", ".svg"].iter().any(|end| quoted.ends_with(end))
                    && !quoted.contains(' ');
                let found = match quoted {
                    _ if !is_file => continue,
                    absolute if absolute.starts_with('/') => absolute.to_owned(),
                    relative => {
                        let mut at = folder.clone();
                        let mut rest = relative.trim_start_matches("./");
                        while let Some(up) = rest.strip_prefix("../") {
                            at = at
                                .rsplit_once('/')
                                .map_or(String::new(), |(parent, _)| parent.to_owned());
                            rest = up;
                        }
                        format!("{at}/{rest}")
                    }
                };
                if !wanted.contains(&found) {
                    wanted.push(found);
                }
            }
        }
        assert!(wanted.len() > 10, "{wanted:?}");
    }

    #[test]
    fn vendored_files_are_the_ones_listed() {
        let list = get("/vendor/README.md").unwrap();
        let list = String::from_utf8_lossy(&list.bytes).into_owned();
        let rows: Vec<_> =
            list.lines().filter(|line| line.starts_with("| ") && line.contains('@')).collect();
        assert_eq!(rows.len(), 5);
        for row in rows {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let asset = get(&format!("/vendor/{}", cells[1])).unwrap();
            let hash = Sha256::digest(&asset.bytes)
                .iter()
                .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            assert_eq!(hash, cells[3], "{}", cells[1]);
        }
    }
}
