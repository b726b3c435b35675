//! Just enough of Rust's lexical structure to read code without its comments, literals and tests.

/// One identifier, `::`, or single character, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// Its text.
    pub(crate) text: &'a str,
    /// Byte offset in the code.
    pub(crate) at: usize,
}

/// Blanks comments with spaces and fills literals with `_`; every line keeps its number.
pub(crate) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let (end, filler) = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => (find(source, at, "\n"), ' '),
            b'/' if bytes[at..].starts_with(b"/*") => (end_of_block_comment(source, at), ' '),
            b'"' => (end_of_string(bytes, at + 1), '_'),
            b'\'' => (end_of_quote(source, at), '_'),
            first if is_name(first) => {
                let end = at + bytes[at..].iter().take_while(|&&byte| is_name(byte)).count();
                let raw = matches!(&source[at..end], "r" | "br" | "cr");
                let hashes = bytes[end..].iter().take_while(|&&byte| byte == b'#').count();
                if raw && bytes.get(end + hashes) == Some(&b'"') {
                    let close = format!("\"{}", "#".repeat(hashes));
                    (find(source, end + hashes + 1, &close) + close.len(), '_')
                } else {
                    code.push_str(&source[at..end]);
                    at = end;
                    continue;
                }
            }
            _ => {
                let end = at + source[at..].chars().next().map_or(1, char::len_utf8);
                code.push_str(&source[at..end]);
                at = end;
                continue;
            }
        };
        let end = end.min(source.len());
        code.extend(source[at..end].chars().map(|c| if c == '\n' { '\n' } else { filler }));
        at = end;
    }
    code
}

fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// Where `needle` begins at or after `from`; the end of the text if it does not.
fn find(source: &str, from: usize, needle: &str) -> usize {
    source[from..].find(needle).map_or(source.len(), |offset| from + offset)
}

fn end_of_block_comment(source: &str, start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < source.len() {
        let (open, close) = (find(source, at, "/*"), find(source, at, "*/"));
        depth = if open < close { depth + 1 } else { depth - 1 };
        at = open.min(close) + 2;
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of a character literal; of a lifetime, only the quote.
fn end_of_quote(source: &str, quote: usize) -> usize {
    let mut rest = source[quote + 1..].char_indices();
    match (rest.next(), rest.next()) {
        (Some((_, '\\')), _) => find(source, quote + 3, "'") + 1,
        (Some(_), Some((second, '\''))) => quote + 1 + second + 1,
        _ => quote + 1,
    }
}

/// Splits code into tokens.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = match bytes[at] {
            first if first.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            first if is_name(first) => bytes[at..].iter().take_while(|&&byte| is_name(byte)).count(),
            b':' if bytes.get(at + 1) == Some(&b':') => 2,
            _ => 1,
        };
        tokens.push(Token { text: &code[at..at + length], at });
        at += length;
    }
    tokens
}

/// Code of a file as it ships: what is only compiled for tests is blanked.
pub(crate) struct Shipped {
    /// The code, line by line where it was.
    pub(crate) code: String,
    /// Modules in other files that are only compiled for tests.
    pub(crate) test_modules: Vec<String>,
}

/// Takes `#[cfg(test)]` items out of code.
pub(crate) fn without_tests(code: &str) -> Shipped {
    let tokens = tokens(code);
    let mut shipped = Shipped { code: code.to_owned(), test_modules: Vec::new() };
    let mut index = 0;
    while index < tokens.len() {
        let Some(item) = after_test_attribute(&tokens, index) else {
            index += 1;
            continue;
        };
        let whole_file = tokens[index + 1].text == "!";
        let end = if whole_file { tokens.len() } else { end_of_item(&tokens, item) };
        if let Some(name) = module_elsewhere(&tokens[item..end]) {
            shipped.test_modules.push(name.to_owned());
        }
        let range = tokens[index].at..tokens.get(end).map_or(code.len(), |token| token.at);
        let blank: String = code[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
        shipped.code.replace_range(range, &blank);
        index = end;
    }
    shipped
}

/// Where the item begins if there is a test-only attribute at `index`.
fn after_test_attribute(tokens: &[Token<'_>], index: usize) -> Option<usize> {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text);
    if text(index) != "#" {
        return None;
    }
    let open = index + 1 + usize::from(text(index + 1) == "!");
    let predicate: String = (open..open + 6).map(text).collect();
    let for_tests = predicate.starts_with("[cfg(test)") || predicate.starts_with("[cfg(all(test");
    for_tests.then(|| past_closing(tokens, open))
}

/// One past the bracket that closes the one at `open`.
fn past_closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// One past the item at `start`: past its `;`, or past its braces.
fn end_of_item(tokens: &[Token<'_>], start: usize) -> usize {
    let mut index = start;
    while let Some(token) = tokens.get(index) {
        match token.text {
            ";" => return index + 1,
            "(" | "[" => index = past_closing(tokens, index),
            "{" => {
                let end = past_closing(tokens, index);
                return if tokens.get(end).is_some_and(|next| next.text == ";") { end + 1 } else { end };
            }
            ")" | "]" | "}" => return index,
            _ => index += 1,
        }
    }
    tokens.len()
}

/// The name in `mod name;`.
fn module_elsewhere<'a>(item: &[Token<'a>]) -> Option<&'a str> {
    let start = item.iter().position(|token| token.text == "mod")?;
    match &item[start..] {
        [_, name, end] if end.text == ";" => Some(name.text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(code: &str) -> Vec<&str> {
        tokens(code).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for (source, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d\n*/ e", "a               \n   e"),
            (r#"f("a // \" b")"#, "f(___________)"),
            (r##"f(r#"a " b"#)"##, "f(__________)"),
            (r#"f(br"\", b"\"")"#, "f(_____, b____)"),
            (r"f('\'', '\u{1F600}', 'é', b'x')", "f(____, ___________, ___, b___)"),
            ("fn f<'a>(x: &'a str) {}", "fn f<_a>(x: &_a str) {}"),
            ("let r#type = 1;", "let r#type = 1;"),
            ("\"open", "_____"),
        ] {
            assert_eq!(code_only(source), code);
        }
    }

    #[test]
    fn names_colons_and_the_rest_are_tokens() {
        assert_eq!(texts("a::b_1 : (é)"), ["a", "::", "b_1", ":", "(", "é", ")"]);
    }

    #[test]
    fn test_items_do_not_ship() {
        for (code, left) in [
            ("#[cfg(test)] mod tests { fn f() { {} } } a", "a"),
            ("#[cfg(test)]\n#[path = _]\nmod tests;\nb", "b"),
            ("#[cfg(all(test, unix))] use a::{b, c}; d", "d"),
            ("#[cfg(test)] impl A<[u8; 2]> for B { } e", "e"),
            ("#![cfg(test)] anything at all { f", ""),
            ("mod a { #[cfg(test)] fn f() {} } g", "mod a {  } g"),
            ("#[cfg(not(test))] fn h() {}", "#[cfg(not(test))] fn h() {}"),
            ("#[cfg(feature = ____)] fn i() {}", "#[cfg(feature = ____)] fn i() {}"),
        ] {
            assert_eq!(texts(&without_tests(code).code), texts(left), "{code}");
        }
        let shipped = without_tests("fn a() {}\n#[cfg(test)]\nmod tests {\n}\nfn b() {}");
        assert_eq!(
            shipped.code.lines().collect::<Vec<_>>(),
            ["fn a() {}", "            ", "           ", " ", "fn b() {}"]
        );
        assert_eq!(without_tests("#[cfg(test)] pub mod fixtures; #[cfg(test)] mod here {}").test_modules, ["fixtures"]);
    }
}
