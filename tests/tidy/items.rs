//! What a module defines, and how far it is seen: the items outside of any function, `impl` or trait.

use crate::lex::{Token, tokens};

/// Kinds of items that have a name.
const KINDS: [&str; 9] = ["struct", "enum", "union", "trait", "type", "const", "static", "fn", "mod"];

/// One item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    /// `struct`, `fn` and so on.
    pub(crate) kind: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// Whether it is `pub`, `pub(crate)` or the like.
    pub(crate) public: bool,
    /// Line, from 1.
    pub(crate) line: usize,
}

impl Item<'_> {
    /// Whether values have it as their type, or behave as it says.
    pub(crate) fn is_type(&self) -> bool {
        matches!(self.kind, "struct" | "enum" | "union" | "trait" | "type")
    }

    /// Whether it is a value with a name.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self.kind, "const" | "static")
    }
}

/// The items of a module and of the modules inside it.
pub(crate) fn items(code: &str) -> Vec<Item<'_>> {
    let tokens = tokens(code);
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut closed = Vec::new(); // one an open brace: whether what is inside belongs to the module
    for index in 0..tokens.len() {
        match text(index) {
            "{" => closed.push(index < 2 || text(index - 2) != "mod"),
            "}" => {
                closed.pop();
            }
            kind if KINDS.contains(&kind) && !closed.contains(&true) => found.extend(item(&tokens, index, code)),
            _ => {}
        }
    }
    found
}

/// The item whose keyword is at `index`; not `*const T`, `fn(T)`, nor the `const` of `const fn`.
fn item<'a>(tokens: &[Token<'a>], index: usize, code: &str) -> Option<Item<'a>> {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let name = text(index + 1 + usize::from(text(index + 1) == "mut"));
    let begins =
        index == 0 || matches!(text(index - 1), "}" | ";" | "{" | "]" | "pub" | ")" | "const" | "unsafe" | "async");
    if !begins || KINDS.contains(&name) || !name.starts_with(|first: char| first == '_' || first.is_alphabetic()) {
        return None;
    }
    let mut before = index;
    while before > 0 && matches!(text(before - 1), "const" | "unsafe" | "async" | "extern") {
        before -= 1;
    }
    let public = before > 0 && matches!(text(before - 1), "pub" | ")");
    let line = code[..tokens[index].at].matches('\n').count() + 1;
    Some(Item { kind: tokens[index].text, name, public, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_with_their_sight() {
        let code = "#[derive(Debug)] pub struct A<T>(*const T);\nconst B: fn(u8) = c;\npub(crate) const fn d() { const E: u8 = 1; struct F; }\n\
                    impl A { pub const G: u8 = 1; fn h() {} type I = u8; }\nmod j { pub(super) enum K {} static mut L: u8 = 0; }\n\
                    pub trait M { type N; fn o(); }\npub unsafe fn p() where A: Fn(u8) {} mod q;";
        let found: Vec<_> =
            items(code).into_iter().map(|item| (item.kind, item.name, item.public, item.line)).collect();
        let expected = [
            ("struct", "A", true, 1),
            ("const", "B", false, 2),
            ("fn", "d", true, 3),
            ("mod", "j", false, 5),
            ("enum", "K", true, 5),
            ("static", "L", false, 5),
            ("trait", "M", true, 6),
            ("fn", "p", true, 7),
            ("mod", "q", false, 7),
        ];
        assert_eq!(found, expected);
    }
}
