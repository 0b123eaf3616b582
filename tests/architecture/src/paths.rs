//! Every path that a Rust file names, made absolute: `crate::store::mongodb::connect`, `tokio::spawn`.

use std::collections::{BTreeMap, BTreeSet};

use crate::tokens::{Source, Token};

/// A path that begins with `crate` or with the name of another crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Its segments.
    pub segments: Vec<String>,
    /// The line, counted from one.
    pub line: usize,
}

impl Named {
    /// Whether it is this path, or something within.
    pub fn is_within(&self, path: &str) -> bool {
        let mut segments = self.segments.iter();
        path.split("::").all(|wanted| segments.next().is_some_and(|found| found == wanted))
    }
}

/// The module that a file is, by its path below the crate's `src`.
pub fn module_of(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs");
    let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// The paths that the source of this module names. `crates` are the names of the crates it may come across outside
/// of `use` lines.
pub fn named(module: &[String], source: &Source, crates: &[&str]) -> Vec<Named> {
    let mut reader = Reader {
        tokens: &source.tokens,
        crates,
        module: module.to_vec(),
        open: Vec::new(),
        depth: 0,
        children: children(module, &source.tokens),
        aliases: BTreeMap::new(),
        found: Vec::new(),
    };
    // Names may be used above the line that imports them, inside of functions and modules.
    reader.read(Pass::Imports);
    reader.read(Pass::Everything);
    reader.found.sort();
    reader.found.dedup();
    reader.found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Imports,
    Everything,
}

struct Reader<'a> {
    tokens: &'a [Token],
    crates: &'a [&'a str],
    /// The module at the present token.
    module: Vec<String>,
    /// The depths at which inline modules were opened.
    open: Vec<usize>,
    depth: usize,
    children: BTreeSet<Vec<String>>,
    aliases: BTreeMap<String, Vec<String>>,
    found: Vec<Named>,
}

impl Reader<'_> {
    fn read(&mut self, pass: Pass) {
        let mut at = 0;
        while at < self.tokens.len() {
            at = match self.text(at) {
                "mod" if self.text(at + 2) == "{" => {
                    self.module.push(self.text(at + 1).to_owned());
                    self.depth += 1;
                    self.open.push(self.depth);
                    at + 3
                }
                "{" => {
                    self.depth += 1;
                    at + 1
                }
                "}" => {
                    if self.open.last() == Some(&self.depth) {
                        self.open.pop();
                        self.module.pop();
                    }
                    self.depth = self.depth.saturating_sub(1);
                    at + 1
                }
                "use" if self.text(at + 1) != "<" => {
                    let mut end = at + 1;
                    self.read_use(&mut end, &[], pass);
                    end
                }
                _ if self.begins_path(at) => self.read_path(at, pass),
                _ => at + 1,
            };
        }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn begins_path(&self, at: usize) -> bool {
        let follows = at > 0 && self.text(at - 1) == "::";
        let rooted = at < 2 || !(is_word(self.text(at - 2)) || self.text(at - 2) == ">");
        is_word(self.text(at)) && self.text(at + 1) == "::" && (!follows || rooted)
    }

    fn read_path(&mut self, start: usize, pass: Pass) -> usize {
        let mut segments = vec![self.text(start).to_owned()];
        let mut at = start + 1;
        while self.text(at) == "::" && is_word(self.text(at + 1)) {
            segments.push(self.text(at + 1).to_owned());
            at += 2;
        }
        if pass == Pass::Everything
            && let Some(segments) = self.absolute(&segments, false)
        {
            self.found.push(Named { segments, line: self.tokens[start].line });
        }
        at
    }

    /// Reads one tree of a `use` line, after the path that leads to it.
    fn read_use(&mut self, at: &mut usize, prefix: &[String], pass: Pass) {
        let mut segments = prefix.to_vec();
        let line = self.tokens.get(*at).map_or(0, |token| token.line);
        loop {
            match self.text(*at) {
                "::" => *at += 1,
                "{" => {
                    *at += 1;
                    while !matches!(self.text(*at), "}" | "") {
                        self.read_use(at, &segments, pass);
                        if self.text(*at) == "," {
                            *at += 1;
                        }
                    }
                    *at += 1;
                    return;
                }
                "*" => {
                    *at += 1;
                    return self.import(segments, None, line, pass);
                }
                "as" => {
                    let alias = self.text(*at + 1).to_owned();
                    *at += 2;
                    return self.import(segments, Some(alias), line, pass);
                }
                word if is_word(word) => {
                    if word != "self" || segments.is_empty() {
                        segments.push(word.to_owned());
                    }
                    *at += 1;
                }
                _ => {
                    let alias = segments.last().cloned();
                    return self.import(segments, alias, line, pass);
                }
            }
        }
    }

    fn import(&mut self, segments: Vec<String>, alias: Option<String>, line: usize, pass: Pass) {
        let Some(absolute) = self.absolute(&segments, true) else { return };
        if pass == Pass::Everything {
            self.found.push(Named { segments: absolute, line });
        } else if let Some(alias) = alias {
            self.aliases.insert(alias, absolute);
        }
    }

    fn absolute(&self, segments: &[String], in_use: bool) -> Option<Vec<String>> {
        let first = segments.first()?.as_str();
        let here = || std::iter::once("crate".to_owned()).chain(self.module.iter().cloned());
        let child = || self.module.iter().cloned().chain([first.to_owned()]).collect::<Vec<_>>();
        match first {
            "crate" => Some(segments.to_vec()),
            "self" => Some(here().chain(segments[1..].iter().cloned()).collect()),
            "super" => {
                let up = segments.iter().take_while(|segment| *segment == "super").count();
                let kept = (self.module.len() + 1).checked_sub(up)?;
                Some(here().take(kept).chain(segments[up..].iter().cloned()).collect())
            }
            "Self" => None,
            _ if self.children.contains(&child()) => Some(here().chain(segments.iter().cloned()).collect()),
            _ if self.crates.contains(&first) && !self.aliases.contains_key(first) => Some(segments.to_vec()),
            _ => match self.aliases.get(first) {
                Some(path) => Some(path.iter().chain(&segments[1..]).cloned().collect()),
                // In a `use` line a longer path of unknown origin is a crate's; a single word is a macro of this file.
                None => {
                    (in_use && segments.len() > 1 && first.starts_with(char::is_lowercase)).then(|| segments.to_vec())
                }
            },
        }
    }
}

fn children(module: &[String], tokens: &[Token]) -> BTreeSet<Vec<String>> {
    tokens
        .windows(3)
        .filter(|three| three[0].text == "mod" && matches!(three[2].text.as_str(), ";" | "{"))
        .map(|three| module.iter().cloned().chain([three[1].text.clone()]).collect())
        .collect()
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::product;

    fn paths(module: &str, source: &str) -> Vec<String> {
        named(&module_of(module), &product(source), &["std", "tokio"])
            .into_iter()
            .map(|named| named.segments.join("::"))
            .collect()
    }

    #[test]
    fn files_are_modules() {
        assert_eq!(module_of("lib.rs"), Vec::<String>::new());
        assert_eq!(module_of("store/mod.rs"), ["store"]);
        assert_eq!(module_of("store/sqlite/writer.rs"), ["store", "sqlite", "writer"]);
    }

    #[test]
    fn trees_of_use_lines_are_unfolded() {
        let found = paths("a.rs", "use crate::{b::{self, c as d}, e::*}; pub(crate) use f::g;");
        assert_eq!(found, ["crate::b", "crate::b::c", "crate::e", "f::g"]);
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let found =
            paths("a/b.rs", "use super::c; mod d { fn f() { super::e::f(); self::g::h() } } fn i() { super::j::k() }");
        assert_eq!(found, ["crate::a::b::d::g::h", "crate::a::b::e::f", "crate::a::c", "crate::a::j::k"]);
    }

    #[test]
    fn paths_through_imported_names_and_own_modules_are_followed() {
        let found = paths("a.rs", "mod b; use crate::store as s; fn f() { s::mongodb::open(); b::c() }");
        assert_eq!(found, ["crate::a::b::c", "crate::store", "crate::store::mongodb::open"]);
    }

    #[test]
    fn crates_are_seen_without_a_use_line() {
        let found = paths("a.rs", "fn f() { tokio::spawn(x); ::tokio::join!(y); Vec::<u8>::new(); unknown::z() }");
        assert_eq!(found, ["tokio::join", "tokio::spawn"]);
    }

    #[test]
    fn captured_lifetimes_and_own_macros_are_not_imports() {
        assert_eq!(paths("a.rs", "fn f<'a>() -> impl X + use<'a> {} pub(crate) use cases;"), Vec::<String>::new());
    }
}
