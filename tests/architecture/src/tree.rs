//! Finding and reading the files of the checkout.

use std::path::{Path, PathBuf};

/// What tools leave behind in a checkout; never part of the tree.
pub const LEFT_BY_TOOLS: [&str; 10] = [
    ".git",
    "target",
    ".venv",
    "dist",
    "build",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
];

/// The top of the checkout.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the top").to_owned()
}

/// Every file below `folder` of the checkout with one of these extensions, as its path from the top and its text.
/// Empty if there is no such folder.
///
/// # Panics
/// If a file cannot be read.
pub fn sources(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut |path| {
        if path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)) {
            found.push((relative(path), read(path)));
        }
    });
    found.sort();
    found
}

/// The text of one file, by its path from the top.
///
/// # Panics
/// If it cannot be read.
pub fn text(path: &str) -> String {
    read(&root().join(path))
}

/// The entries of the top folder that are part of the tree; folders end with a slash.
///
/// # Panics
/// If the folder cannot be read.
pub fn top_level() -> Vec<String> {
    let entries = std::fs::read_dir(root()).expect("the top folder can be read");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the top folder can be read"))
        .filter(|entry| !LEFT_BY_TOOLS.iter().any(|left| entry.file_name() == *left))
        .map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    names
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if LEFT_BY_TOOLS.iter().any(|left| entry.file_name() == *left) || path.is_symlink() {
            continue;
        }
        if path.is_dir() { walk(&path, visit) } else { visit(&path) }
    }
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}
