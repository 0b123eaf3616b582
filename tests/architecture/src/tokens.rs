//! Rust source as tokens: words, `::`, and single characters, each with its line. Comments, texts and characters are
//! dropped, and so is what is compiled for tests only, since tests may use what they like.

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// A word, `::`, or one character.
    pub text: String,
    /// The line, counted from one.
    pub line: usize,
}

/// A file as tokens, and the modules that it declares for tests only (`#[cfg(test)] mod steps;`).
#[derive(Debug, Default)]
pub struct Source {
    /// The tokens of the product.
    pub tokens: Vec<Token>,
    /// Names of modules in other files that only tests see.
    pub test_modules: Vec<String>,
}

/// Reads a source file.
pub fn product(source: &str) -> Source {
    without_tests(tokens(source))
}

fn tokens(source: &str) -> Vec<Token> {
    let mut scanner = Scanner { rest: source, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = scanner.next_token() {
        tokens.push(token);
    }
    tokens
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl Scanner<'_> {
    fn next_token(&mut self) -> Option<Token> {
        loop {
            let line = self.line;
            let first = self.rest.chars().next()?;
            if first.is_whitespace() {
                self.skip(first.len_utf8());
            } else if self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.skip(block_comment(self.rest));
            } else if let Some(length) = text_literal(self.rest).or_else(|| char_literal(self.rest)) {
                self.skip(length);
            } else {
                let length = token_length(self.rest);
                let text = self.rest[..length].trim_start_matches("r#").to_owned();
                self.skip(length);
                return Some(Token { text, line });
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }
}

fn token_length(rest: &str) -> usize {
    if rest.starts_with("::") {
        return 2;
    }
    let raw = if rest.starts_with("r#") { 2 } else { 0 };
    let word = rest[raw..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - raw);
    if word > 0 { raw + word } else { rest.chars().next().map_or(0, char::len_utf8) }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the text that begins here, with its prefix: `"…"`, `b"…"`, `c"…"`, `r#"…"#`.
fn text_literal(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    let body = &rest[prefix..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    let raw = rest[..prefix].contains('r');
    if prefix > 2 || !body[hashes..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    let start = prefix + hashes + 1;
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    let mut escaped = false;
    for (at, c) in rest[start..].char_indices() {
        match c {
            '"' if !escaped => return Some(start + at + 1),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    Some(rest.len())
}

/// The length of the character that begins here. A lifetime is none: its quote and its word are tokens.
fn char_literal(rest: &str) -> Option<usize> {
    let prefix = usize::from(rest.starts_with("b'"));
    let mut chars = rest[prefix..].strip_prefix('\'')?.chars();
    let first = chars.next()?;
    if first == '\\' {
        let second = chars.next()?.len_utf8();
        let start = prefix + 2 + second;
        return rest[start..].find('\'').map(|at| start + at + 1);
    }
    (chars.next()? == '\'').then(|| prefix + 2 + first.len_utf8())
}

fn without_tests(tokens: Vec<Token>) -> Source {
    let mut source = Source::default();
    let mut at = 0;
    while at < tokens.len() {
        if !for_tests_only(&tokens[at..]) {
            source.tokens.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = at + item_length(&tokens[at..]);
        source.test_modules.extend(declared_module(&tokens[at..end]));
        at = end;
    }
    source
}

/// `#[cfg(test)]` and `#[cfg(all(test, …))]`. What a feature may switch on too belongs to the product.
fn for_tests_only(tokens: &[Token]) -> bool {
    let starts = |words: &[&str]| {
        tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.text == *word)
    };
    starts(&["#", "[", "cfg", "(", "test", ")", "]"]) || starts(&["#", "[", "cfg", "(", "all", "(", "test", ","])
}

/// The tokens of the item that begins here, attributes included: up to its `;`, or to its closing brace.
fn item_length(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    let mut braces = 0_usize;
    let is_use = tokens.iter().take_while(|token| token.text != ";").any(|token| token.text == "use");
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                let ends = braces == 0 && depth == 0 && !(is_use && tokens.get(at + 1).is_some_and(|t| t.text == ";"));
                if ends {
                    return at + 1;
                }
            }
            ";" if depth == 0 && braces == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn declared_module(item: &[Token]) -> Option<String> {
    let [.., keyword, name, end] = item else { return None };
    (keyword.text == "mod" && end.text == ";").then(|| name.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        product(source).tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_texts_and_characters_are_dropped() {
        let source = r####"a /* x /* y */ z */ b // c
            "d \" e" r#"f " g"# b"h" 'i' '\'' '\u{1F600}' b'j' k"####;
        assert_eq!(words(source), ["a", "b", "k"]);
    }

    #[test]
    fn lifetimes_and_raw_words_are_kept() {
        assert_eq!(words("fn f<'a>(r#use: &'a str)"), words("fn f < ' a > ( use : & ' a str )"));
        assert_eq!(words("return broken;"), ["return", "broken", ";"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let source = "/* \n */ \"\n\" 'x' \n mark";
        assert_eq!(product(source).tokens, [Token { text: "mark".into(), line: 4 }]);
    }

    #[test]
    fn test_code_is_dropped_and_its_files_are_named() {
        let source = "a; #[cfg(test)] mod tests { fn f() { b } } c; #[cfg(test)] mod steps; \
                      #[cfg(all(test, x))] use d::{e, f}; #[cfg(test)] fn g(x: [u8; 3]) -> H { i } j";
        let read = product(source);
        let words: Vec<_> = read.tokens.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(words, ["a", ";", "c", ";", "j"]);
        assert_eq!(read.test_modules, ["steps"]);
    }

    #[test]
    fn what_a_feature_switches_on_belongs_to_the_product() {
        assert!(words("#[cfg(any(test, feature = \"testing\"))] pub mod conformance;").contains(&"conformance".into()));
    }
}
