//! Go's import lines. The module uses the standard library, itself, the types of documents, and in one package the C
//! header.

use crate::Violation;

/// The only folder with `import "C"`.
pub const C_PACKAGE: &str = "go/internal/ccoord/";

/// The only module that ours depends on, and the only package of it that is used: documents have its types.
pub const DEPENDENCY: &str = "go.mongodb.org/mongo-driver/v2";
const DOCUMENTS: &str = "go.mongodb.org/mongo-driver/v2/bson";

/// Checks one Go file. `module` is the module's path, from `go.mod`.
pub fn check(file: &str, text: &str, module: &str) -> Vec<Violation> {
    imports(text)
        .into_iter()
        .filter_map(|(line, path)| objection(file, &path, module).map(|message| (line, message)))
        .map(|(line, message)| Violation {
            file: file.to_owned(),
            line,
            message: format!("{message}; see \"Who may use whom\" in ARCHITECTURE.md"),
        })
        .collect()
}

/// The modules that a `go.mod` requires.
pub fn required(go_mod: &str) -> Vec<&str> {
    let line = |line: &str| !line.starts_with("module ") && !line.starts_with("go ") && line != ")";
    let lines = go_mod.lines().map(str::trim).filter(|text| !text.is_empty() && line(text));
    lines
        .filter_map(|text| text.trim_start_matches("require").trim_start_matches([' ', '(']).split(' ').next())
        .filter(|path| !path.is_empty())
        .collect()
}

/// The module's path in a `go.mod`.
pub fn module_path(go_mod: &str) -> Option<&str> {
    go_mod.lines().find_map(|line| line.strip_prefix("module ")).map(str::trim)
}

fn objection(file: &str, path: &str, module: &str) -> Option<String> {
    let ours = path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with('/'));
    if path == "C" {
        return (!file.starts_with(C_PACKAGE)).then(|| format!("only {C_PACKAGE} may import \"C\""));
    }
    // The first part of a path outside the standard library is a host name, with a dot.
    let foreign = path.split('/').next().is_some_and(|first| first.contains('.'));
    (foreign && !ours && path != DOCUMENTS)
        .then(|| format!("the Go module depends on {DOCUMENTS} alone, and must not import \"{path}\""))
}

/// The paths that a file imports, each with its line. Go wants imports before all other declarations.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut comment = false;
    let mut block = false;
    for (at, line) in text.lines().enumerate() {
        let line = code_of(line, &mut comment);
        let line = line.trim();
        let importing = line.strip_prefix("import").filter(|rest| rest.starts_with([' ', '\t', '(', '"', '`']));
        if let Some(rest) = importing {
            block = rest.trim_start().starts_with('(') && !rest.contains(')');
        } else if block && line.starts_with(')') {
            block = false;
        } else if !block {
            if ["func", "type", "var", "const"].iter().any(|word| line.starts_with(&format!("{word} "))) {
                break;
            }
            continue;
        }
        found.extend(quoted(line).into_iter().map(|path| (at + 1, path)));
    }
    found
}

fn quoted(line: &str) -> Vec<String> {
    line.split(['"', '`']).skip(1).step_by(2).map(str::to_owned).collect()
}

/// The line without comments; `inside` tells whether a block comment goes on.
fn code_of(line: &str, inside: &mut bool) -> String {
    let mut code = String::new();
    let mut rest = line;
    loop {
        if *inside {
            let Some(end) = rest.find("*/") else { return code };
            rest = &rest[end + 2..];
            *inside = false;
        }
        let (block, end_of_line) = (rest.find("/*"), rest.find("//"));
        match (block, end_of_line) {
            (Some(at), other) if other.is_none_or(|other| at < other) => {
                code.push_str(&rest[..at]);
                rest = &rest[at + 2..];
                *inside = true;
            }
            (_, Some(at)) => return code + &rest[..at],
            _ => return code + rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "example.org/coord/go";

    fn objections(file: &str, text: &str) -> Vec<String> {
        check(file, text, MODULE).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn the_standard_library_and_the_module_itself_are_free() {
        let text =
            "package coord\n\nimport (\n\t\"context\"\n\te \"errors\"\n\t\"example.org/coord/go/internal/ccoord\"\n)\n";
        assert_eq!(objections("go/lock.go", text), Vec::<String>::new());
    }

    #[test]
    fn c_is_for_one_package() {
        let text = "package x\n\n/*\n#include \"coord.h\"\n*/\nimport \"C\"\n";
        assert_eq!(objections("go/internal/ccoord/sys.go", text), Vec::<String>::new());
        assert!(objections("go/lock.go", text)[0].starts_with("go/lock.go:6: only go/internal/ccoord/"));
    }

    #[test]
    fn dependencies_are_found_in_every_form_of_import() {
        for text in [
            "package x\nimport \"github.com/a/b\"\n",
            "package x\nimport `github.com/a/b`\n",
            "package x\nimport (\"fmt\"; _ \"github.com/a/b\")\n",
            "package x\nimport(\n\t\"fmt\" /* one */\n\t. \"github.com/a/b\" // two\n)\n",
            "package x\nimport \"fmt\"\nimport \"example.org/coord/golang\"\n",
            "package x\nimport \"go.mongodb.org/mongo-driver/v2/mongo\"\n",
        ] {
            assert_eq!(objections("go/x.go", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn documents_have_the_types_of_one_package() {
        assert_eq!(objections("go/x.go", &format!("package x\nimport \"{DOCUMENTS}\"\n")), Vec::<String>::new());
        assert_eq!(required("module coord\n\ngo 1.24\n"), Vec::<&str>::new());
        assert_eq!(required("module coord\n\nrequire a.b/c v1.0.0\n"), ["a.b/c"]);
        assert_eq!(
            required("module coord\nrequire (\n\ta.b/c v1.0.0\n\td.e/f v2.0.0 // indirect\n)\n"),
            ["a.b/c", "d.e/f"]
        );
    }

    #[test]
    fn comments_and_code_are_no_imports() {
        let text = "package x\n// import \"github.com/a/b\"\n/* import \"github.com/a/b\"\n*/\nfunc f() string {\n\treturn `\nimport \"github.com/a/b\"`\n}\n";
        assert_eq!(objections("go/x.go", text), Vec::<String>::new());
    }

    #[test]
    fn the_module_is_read_from_go_mod() {
        assert_eq!(module_path("// c\nmodule example.org/coord/go\n\ngo 1.24\n"), Some(MODULE));
    }
}
