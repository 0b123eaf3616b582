//! What lies where, and what the documents promise.

use coord_architecture::{Violation, report, tree};

/// Everything that the top folder may contain, beside hidden files: editors have some of their own.
const TOP_LEVEL: [&str; 20] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benches/",
    "core/",
    "deny.toml",
    "docs/",
    "examples/",
    "ffi/",
    "go/",
    "include/",
    "python/",
    "rustfmt.toml",
    "tests/",
];

const SOURCE_FOLDERS: [&str; 8] = ["core", "ffi", "include", "go", "python", "tests", "examples", "benches"];
const SOURCES: [&str; 8] = ["rs", "go", "py", "pyi", "c", "h", "cc", "sh"];

#[test]
fn nothing_is_added_to_the_top_level_without_need() {
    let stray: Vec<_> = tree::top_level()
        .into_iter()
        .filter(|entry| !entry.starts_with('.') && !TOP_LEVEL.contains(&entry.as_str()))
        .collect();
    assert!(
        stray.is_empty(),
        "these do not belong to the top level (ARCHITECTURE.md, \"Where things are\"): {stray:?}"
    );
}

#[test]
fn nothing_is_left_unfinished() {
    let violations = lines_with(&unfinished());
    assert!(violations.is_empty(), "unfinished:{}", report(&violations));
}

#[test]
fn unfinished_lines_are_found() {
    for line in [concat!("    to", "do!(\"later\")"), concat!("// FIX", "ME: wrong"), concat!("unimple", "mented!()")] {
        assert!(unfinished().iter().any(|word| line.contains(word)), "{line}");
    }
}

#[test]
fn every_target_of_the_makefile_has_one_line_of_help() {
    assert_eq!(without_help(&tree::text("Makefile")), Vec::<String>::new());
    assert_eq!(without_help("a: ## Do a\nb: a\nX := 1\n.PHONY: c\nc-d:\n\techo x: y\n"), ["b", "c-d"]);
}

#[test]
fn every_target_of_the_makefile_is_phony() {
    let makefile = tree::text("Makefile");
    let missing: Vec<_> =
        targets(&makefile).into_iter().filter(|(name, _)| !makefile.contains(&format!(".PHONY: {name}\n"))).collect();
    assert!(missing.is_empty(), "a folder of that name would hide the target: {missing:?}");
}

#[test]
fn ci_calls_make_test_and_nothing_else() {
    let script = tree::text(".ci/run");
    let commands: Vec<&str> = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(commands, ["set -euo pipefail", "cd \"$(dirname \"$0\")/..\"", "export CI=true", "exec make test"]);
}

#[test]
fn the_readme_has_an_example_for_every_language() {
    let readme = tree::text("README.md");
    let runner = tree::text("tests/readme/run");
    for (language, fence) in [("rust", "rust"), ("c", "c"), ("go", "go"), ("python", "python")] {
        let start = format!("<!-- example: {language} -->\n```{fence}\n");
        assert_eq!(readme.matches(&start).count(), 1, "the README needs one example after {start}");
        assert!(runner.contains(&format!("def run_{language}(")), "tests/readme/run does not run {language}");
    }
    assert_eq!(readme.matches("<!-- example: ").count(), 4, "an example that no test runs");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in tree::top_level().into_iter().filter(|entry| entry.ends_with(".md")) {
        for target in local_links(&tree::text(&document)) {
            // The contract lands with the crate that it describes.
            let awaited = target == "ffi/README.md" && !tree::root().join("ffi").exists();
            let expected = awaited || tree::root().join(&target).exists();
            assert!(expected, "{document} links to {target}, which does not exist");
        }
    }
}

/// Written in halves, so that this file does not contain them.
fn unfinished() -> [&'static str; 5] {
    [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("TO", "DO"),
    ]
}

fn lines_with(words: &[&str]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (file, text) in SOURCE_FOLDERS.iter().flat_map(|folder| tree::sources(folder, &SOURCES)) {
        for (at, line) in text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word))) {
            found.push(Violation { file: file.clone(), line: at + 1, message: line.trim().to_owned() });
        }
    }
    found
}

fn without_help(makefile: &str) -> Vec<String> {
    targets(makefile).into_iter().filter(|(_, rest)| !rest.contains("## ")).map(|(name, _)| name).collect()
}

/// The targets, each with the rest of its line.
fn targets(makefile: &str) -> Vec<(String, String)> {
    makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, rest)| {
            !rest.starts_with('=') && !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        })
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect()
}

fn local_links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or(target).to_owned())
        .collect()
}
