//! Every path that code names, with use-trees spread out and `self` and `super` resolved.

use crate::lex::{Token, tokens};

/// A path and the line it is on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its segments; the first is `crate` for a path into the package, and `*` ends a glob.
    pub(crate) segments: Vec<String>,
    /// Line, from 1.
    pub(crate) line: usize,
    /// How a `use` brings it in; `None` where code names it.
    pub(crate) import: Option<Import>,
}

/// A path in a `use`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// Its name in the module: that after `as`, or its last segment.
    pub(crate) name: String,
    /// Whether it is `pub`, `pub(crate)` or the like.
    pub(crate) public: bool,
}

impl Named {
    /// Whether the path begins with `prefix`, written as in Rust.
    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        let mut segments = self.segments.iter();
        prefix.split("::").all(|part| segments.next().is_some_and(|segment| segment == part))
    }
}

/// Paths in the code of the module at `module`, which is empty for the root of the crate.
pub(crate) fn paths(code: &str, module: &[&str]) -> Vec<Named> {
    let tokens = tokens(code);
    let mut reader = Reader { tokens: &tokens, found: Vec::new() };
    let mut named = Vec::new();
    let mut scopes: Vec<Option<&str>> = Vec::new(); // one an open brace; the name if it is a module's
    let mut index = 0;
    while index < tokens.len() {
        let text = tokens[index].text;
        let mut public = None;
        let begins_path = starts_name(text) && reader.text(index + 1) == "::" && !follows_path(&tokens, index);
        let next = match text {
            "{" => {
                let is_module = index >= 2 && tokens[index - 2].text == "mod";
                scopes.push(is_module.then(|| tokens[index - 1].text));
                index + 1
            }
            "}" => {
                scopes.pop();
                index + 1
            }
            "use" => {
                public = Some(index > 0 && matches!(tokens[index - 1].text, "pub" | ")"));
                reader.tree(index + 1, &[])
            }
            _ if begins_path => reader.tree(index, &[]),
            _ => index + 1,
        };
        let here: Vec<&str> = module.iter().copied().chain(scopes.iter().flatten().copied()).collect();
        named.extend(reader.found.drain(..).map(|(at, segments, alias)| {
            let segments = resolve(&segments, &here);
            let name = alias.map_or_else(|| segments.last().cloned().unwrap_or_default(), str::to_owned);
            let import = public.map(|public| Import { name, public });
            Named { segments, line: code[..at].matches('\n').count() + 1, import }
        }));
        index = next.max(index + 1);
    }
    named
}

fn starts_name(text: &str) -> bool {
    text.starts_with(|first: char| first == '_' || first.is_alphabetic())
}

/// Whether the name at `index` goes on a path, or a method call, that began before it. `::name` begins one.
fn follows_path(tokens: &[Token<'_>], index: usize) -> bool {
    let before = |back: usize| index.checked_sub(back).map_or("", |index| tokens[index].text);
    match before(1) {
        "." => true,
        "::" => starts_name(before(2)) || before(2) == ">",
        _ => false,
    }
}

/// `self` and `super` are told from the module that they are in.
fn resolve(segments: &[&str], here: &[&str]) -> Vec<String> {
    let ups = segments.iter().position(|&segment| segment != "self" && segment != "super").unwrap_or(segments.len());
    if ups == 0 {
        return segments.iter().map(|&segment| segment.to_owned()).collect();
    }
    let levels = segments[..ups].iter().filter(|&&segment| segment == "super").count();
    let module = &here[..here.len().saturating_sub(levels)];
    ["crate"].iter().chain(module).chain(&segments[ups..]).map(|&segment| segment.to_owned()).collect()
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    /// Where each path begins, its segments, and the name after `as`.
    found: Vec<(usize, Vec<&'a str>, Option<&'a str>)>,
}

impl<'a> Reader<'a> {
    fn text(&self, index: usize) -> &'a str {
        self.tokens.get(index).map_or("", |token| token.text)
    }

    /// Reads the path or use-tree at `index`, which goes on from `prefix`; returns where it ends.
    fn tree(&mut self, mut index: usize, prefix: &[&'a str]) -> usize {
        let mut segments = prefix.to_vec();
        index += usize::from(self.text(index) == "::");
        let at = self.tokens.get(index).map_or(0, |token| token.at);
        while starts_name(self.text(index)) || self.text(index) == "*" {
            segments.push(self.text(index));
            index += 1;
            if self.text(index) != "::" {
                break;
            }
            index += 1;
        }
        if self.text(index) == "{" && self.in_tree(index) {
            return self.group(index + 1, &segments);
        }
        if segments.len() > prefix.len() {
            self.found.push((at, segments, self.alias(index)));
        }
        index
    }

    fn alias(&self, index: usize) -> Option<&'a str> {
        (self.text(index) == "as").then(|| self.text(index + 1))
    }

    /// Whether the brace at `index` opens a group of paths rather than a block.
    fn in_tree(&self, index: usize) -> bool {
        matches!(self.text(index.wrapping_sub(1)), "::" | "use" | "{" | ",")
    }

    fn group(&mut self, mut index: usize, prefix: &[&'a str]) -> usize {
        while !matches!(self.text(index), "}" | "") {
            // `self` alone is the group's own name again.
            let end = if self.text(index) == "self" && self.text(index + 1) != "::" {
                self.found.push((self.tokens[index].at, prefix.to_vec(), self.alias(index + 1)));
                index + 1
            } else {
                self.tree(index, prefix)
            };
            index = end.max(index + 1);
            index += if self.text(index) == "as" { 2 } else { 0 };
            index += usize::from(self.text(index) == ",");
        }
        index + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &str, module: &[&str]) -> Vec<String> {
        paths(code, module).into_iter().map(|named| named.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_spread_out() {
        for (code, expected) in [
            ("use crate::job::Spec;", &["crate::job::Spec"][..]),
            (
                "pub(crate) use crate::{a, b::{c, d as e}, f::*};",
                &["crate::a", "crate::b::c", "crate::b::d", "crate::f::*"],
            ),
            ("use std::{env, io::{self, Write}};", &["std::env", "std::io", "std::io::Write"]),
            ("use {tch::Tensor, ::axum as web};", &["tch::Tensor", "axum"]),
            ("use tch;", &["tch"]),
            ("use crate as latentd;", &["crate"]),
            ("use crate::{self as all, a};", &["crate", "crate::a"]),
        ] {
            assert_eq!(found(code, &[]), expected, "{code}");
        }
    }

    #[test]
    fn imports_have_their_names() {
        let code = "pub(super) use a::{B as C, d::{self, E}}; use f::{self as g, H as _}; let x = i::j as u8;";
        let imports: Vec<_> = paths(code, &[]).into_iter().filter_map(|named| named.import).collect();
        let names: Vec<_> = imports.iter().map(|import| (import.name.as_str(), import.public)).collect();
        assert_eq!(names, [("C", true), ("d", true), ("E", true), ("g", false), ("_", false)]);
    }

    #[test]
    fn paths_in_code_are_found() {
        for (code, expected) in [
            ("let x = crate::a::f(1) + ::std::env::var(y).z::<T>();", &["crate::a::f", "std::env::var"][..]),
            ("fn f(x: &tch::Tensor) -> <A as crate::b::C>::D {}", &["tch::Tensor", "crate::b::C"]),
            ("Vec::<u8>::new(); a.b::<C>(); x as usize * y", &["Vec"]),
            ("$crate::a::b!()", &["crate::a::b"]),
            ("impl Iterator<Item = T> + use<'_, T>", &[]),
        ] {
            assert_eq!(found(code, &[]), expected, "{code}");
        }
    }

    #[test]
    fn super_and_self_are_resolved() {
        let deep = ["engine", "torch"];
        for (code, module, expected) in [
            ("use super::Engine;", &deep[..], "crate::engine::Engine"),
            ("use super::super::job::Spec;", &deep, "crate::job::Spec"),
            ("use self::nn::Conv;", &deep, "crate::engine::torch::nn::Conv"),
            ("super::super::app::main()", &deep, "crate::app::main"),
            ("mod inner { use super::super::job; }", &deep[..1], "crate::job"),
            ("mod inner {} use super::job;", &deep[..1], "crate::job"),
            ("use super::super::super::super::x;", &deep, "crate::x"),
        ] {
            assert_eq!(found(code, module), [expected], "{code}");
        }
    }

    #[test]
    fn lines_count_from_one_and_prefixes_are_whole_segments() {
        let named = &paths("\n\nuse std::environment::x;", &[])[0];
        assert_eq!(named.line, 3);
        assert!(named.starts_with("std") && named.starts_with("std::environment"));
        assert!(!named.starts_with("std::env") && !named.starts_with("std::environment::x::y"));
    }
}
