//! `include/coord.h` is what the sources say. With `UPDATE_HEADER=1` the test writes it instead.

use std::path::PathBuf;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../include/coord.h")
}

fn generate() -> String {
    let crate_dir = env!("CARGO_MANIFEST_DIR");
    let config = cbindgen::Config::from_file(format!("{crate_dir}/cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::generate_with_config(crate_dir, config).expect("the header is generated");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).expect("the header is UTF-8")
}

#[test]
fn the_header_is_up_to_date() {
    let generated = generate();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(path(), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(path()).unwrap_or_default();
    if committed != generated {
        let line = committed.lines().zip(generated.lines()).position(|(a, b)| a != b).unwrap_or(0);
        panic!("include/coord.h differs from the sources at line {}: run this test with UPDATE_HEADER=1", line + 1);
    }
}

#[test]
fn every_function_states_its_contract() {
    let header = generate();
    let mut comment = Vec::new();
    let mut functions = 0;
    let mut missing = Vec::new();
    for line in header.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("/**") {
            comment.clear();
        } else if trimmed.starts_with('*') {
            comment.push(trimmed);
        } else if let Some(name) = function_name(trimmed) {
            functions += 1;
            for tag in TAGS {
                if comment.iter().filter(|line| line.starts_with(&format!("* {tag} "))).count() != 1 {
                    missing.push(format!("{name} {tag}"));
                }
            }
            comment.clear();
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "each function has each tag once");
    assert!(functions > 80, "only {functions} functions were found: the test no longer reads the header");
}

#[test]
fn no_struct_and_no_enum_has_a_layout() {
    let header = generate();
    for line in header.lines().filter(|line| line.starts_with("typedef struct") || line.contains("enum ")) {
        assert!(line.ends_with("_t;") && !line.contains('{'), "{line}");
    }
    assert!(!header.contains("bool"), "a bool from C may have any value");
}

/// The name, if this line begins the declaration of a function.
fn function_name(line: &str) -> Option<&str> {
    let head = line.split_once('(')?.0;
    let name = head.rsplit([' ', '*']).next()?;
    let declares = name.starts_with("coord_") && !head.starts_with("typedef") && !head.starts_with('#');
    (declares && head.contains(' ')).then_some(name)
}

const TAGS: [&str; 5] = ["@threadsafe", "@blocks", "@callback_safe", "@owns", "@since"];
