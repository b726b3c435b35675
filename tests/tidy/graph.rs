//! Which file uses what another defines, and where that goes round in a circle: files in a circle can be understood only together.
//!
//! A file uses another when its code names, or a `use` of its own brings in, an item that is defined there; what a module re-exports counts
//! where it is defined. Declaring a module (`mod x;`) and re-exporting from it (`pub use x::Y;`) are no use. Methods and fields of a value are
//! not followed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::items::items;
use crate::layers::Place;
use crate::lex::tokens;
use crate::paths::{Named, paths};

/// How often a name may lead to another before it is given up.
const HOPS: usize = 32;

/// A file as others see it.
struct Module {
    path: String,
    named: Vec<Named>,
    items: BTreeSet<String>,
    /// Names in its code outside of `use`, where none goes before with `::` or `.`.
    words: BTreeSet<String>,
}

/// A use: the file, the line there, and what is named.
type Edge = (String, usize, String);

/// All files of `src`, by module.
struct Crate(BTreeMap<Vec<String>, Module>);

/// Where a path leads.
enum Found {
    /// To an item of this module.
    Item(Vec<String>),
    /// To this module itself.
    Module(Vec<String>),
}

impl Crate {
    fn new(files: &[(Place<'_>, &str)]) -> Self {
        let read = |(place, code): &(Place<'_>, &str)| {
            let key: Vec<String> = place.module().iter().map(|&part| part.to_owned()).collect();
            let module = Module {
                path: place.path().to_owned(),
                named: paths(code, place.module()),
                items: items(code).into_iter().map(|item| item.name.to_owned()).collect(),
                words: words(code),
            };
            (key, module)
        };
        // The program's root is the library's: `main.rs` begins nothing that others name.
        Self(files.iter().filter(|(place, _)| place.path() != "src/main.rs").map(read).collect())
    }

    /// Where `segments`, named in the module at `from`, lead; `None` out of the crate, or to a local name.
    fn resolve(&self, from: &[String], segments: &[String], hops: usize) -> Option<Found> {
        let hops = hops.checked_sub(1)?;
        if segments.first()? == "crate" {
            return self.walk(Vec::new(), &segments[1..], hops);
        }
        let module = self.0.get(from)?;
        let first = &segments[0];
        let imported =
            module.named.iter().any(|named| named.import.as_ref().is_some_and(|import| import.name == *first));
        let known = imported || module.items.contains(first);
        known.then(|| self.walk(from.to_vec(), segments, hops)).flatten()
    }

    fn walk(&self, mut here: Vec<String>, segments: &[String], hops: usize) -> Option<Found> {
        for (index, segment) in segments.iter().enumerate() {
            let module = self.0.get(&here)?;
            let child: Vec<String> = here.iter().chain([segment]).cloned().collect();
            let last = index + 1 == segments.len();
            let import = module.named.iter().find(|named| {
                named.import.as_ref().is_some_and(|import| import.name == *segment && import.name != "*")
                    && !(named.segments.len() == 1 && named.segments[0] == *segment)
            });
            let is_child = self.0.contains_key(&child);
            match import {
                Some(named) if !is_child || last => {
                    let rest: Vec<String> = named.segments.iter().chain(&segments[index + 1..]).cloned().collect();
                    return self.resolve(&here, &rest, hops);
                }
                _ if is_child => here = child,
                _ => return self.beyond(here, &segments[index..], hops),
            }
        }
        Some(Found::Module(here))
    }

    /// What is neither a module nor an import of `here`: an item, or one that a glob brings in.
    fn beyond(&self, here: Vec<String>, segments: &[String], hops: usize) -> Option<Found> {
        let module = self.0.get(&here)?;
        if !module.items.contains(&segments[0]) {
            for glob in module.named.iter().filter(|named| named.segments.last().is_some_and(|last| last == "*")) {
                let whole = &glob.segments[..glob.segments.len() - 1];
                let Some(Found::Module(other)) = self.resolve(&here, whole, hops) else { continue };
                let has = self.0.get(&other).is_some_and(|module| module.items.contains(&segments[0]));
                if has && other != here {
                    return self.walk(other, segments, hops);
                }
            }
        }
        Some(Found::Item(here))
    }

    /// Every use of another file, by file.
    fn uses(&self) -> BTreeMap<String, Vec<Edge>> {
        let mut uses = BTreeMap::new();
        for (key, module) in &self.0 {
            let edges: &mut Vec<Edge> = uses.entry(module.path.clone()).or_default();
            for named in &module.named {
                let re_export =
                    named.import.as_ref().is_some_and(|import| import.public && !module.words.contains(&import.name));
                let Some(Found::Item(to)) = self.resolve(key, &named.segments, HOPS).filter(|_| !re_export) else {
                    continue;
                };
                let to = &self.0[&to].path;
                if *to != module.path && !edges.iter().any(|(other, ..)| other == to) {
                    edges.push((to.clone(), named.line, named.segments.join("::")));
                }
            }
        }
        uses
    }
}

/// Names in code, `use` apart, that begin a path or stand alone.
fn words(code: &str) -> BTreeSet<String> {
    let tokens = tokens(code);
    let mut words = BTreeSet::new();
    let mut index = 0;
    while index < tokens.len() {
        let text = tokens[index].text;
        if text == "use" && tokens.get(index + 1).is_some_and(|next| next.text != "<") {
            while index < tokens.len() && tokens[index].text != ";" {
                index += 1;
            }
        } else if index == 0 || !matches!(tokens[index - 1].text, "::" | "." | "mod") {
            words.insert(text.to_owned());
        }
        index += 1;
    }
    words
}

/// The shortest way from one file to another, as uses.
fn way<'a>(uses: &'a BTreeMap<String, Vec<Edge>>, from: &str, to: &str) -> Option<Vec<(&'a str, &'a Edge)>> {
    let mut before: BTreeMap<&str, (&str, &Edge)> = BTreeMap::new();
    let mut next = VecDeque::from([uses.get_key_value(from)?.0.as_str()]);
    while let Some(here) = next.pop_front() {
        for edge in uses.get(here).into_iter().flatten() {
            if !before.contains_key(edge.0.as_str()) {
                before.insert(&edge.0, (here, edge));
                next.push_back(&edge.0);
            }
        }
        if before.contains_key(to) {
            break;
        }
    }
    let mut steps = Vec::new();
    let mut here = to;
    loop {
        let step = *before.get(here)?;
        steps.push(step);
        here = step.0;
        if here == from {
            steps.reverse();
            return Some(steps);
        }
    }
}

/// The circles of files: the shortest through each use, once.
pub(crate) fn circles(files: &[(Place<'_>, &str)]) -> Vec<String> {
    let uses = Crate::new(files).uses();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (from, edges) in &uses {
        for edge in edges {
            let Some(back) = way(&uses, &edge.0, from) else { continue };
            let steps: Vec<_> = [(from.as_str(), edge)].into_iter().chain(back).collect();
            let members: BTreeSet<String> = steps.iter().map(|(file, _)| (*file).to_owned()).collect();
            if seen.insert(members.clone()) {
                let steps: Vec<_> =
                    steps.iter().map(|(file, (_, line, what))| format!("{file}:{line} names {what}")).collect();
                found.push(format!("a circle of {} files: {}", members.len(), steps.join(", ")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&'static str, &str)]) -> Vec<String> {
        let all = [("src/lib.rs", "pub mod a;")].into_iter().chain(files.iter().copied());
        let placed: Vec<_> = all.filter_map(|(path, code)| Some((Place::of(path)?, code))).collect();
        circles(&placed)
    }

    #[test]
    fn files_one_below_the_other_pass() {
        for files in [
            // A parent declares and re-exports.
            &[("src/a/mod.rs", "mod b; pub use b::B; pub struct A;"), ("src/a/b.rs", "use super::A; pub struct B(A);")]
                [..],
            // Through a parent to a sibling, and by a parent's private import.
            &[
                ("src/a/mod.rs", "mod b; mod c; pub(crate) use b::B; use std::fmt;"),
                ("src/a/b.rs", "pub struct B;"),
                ("src/a/c.rs", "use super::{B, fmt}; pub struct C(super::B);"),
            ],
            // A parent that uses its child.
            &[("src/a/mod.rs", "mod b; use b::B; pub struct A(B);"), ("src/a/b.rs", "use super::b; pub struct B;")],
            // A module and a function of one name; a module that is named on the way.
            &[
                ("src/a.rs", "mod b; pub use b::b; fn f() { crate::a::b::c() }"),
                ("src/a/b.rs", "pub fn b() {} pub fn c() {}"),
            ],
            // A part of an implementation.
            &[
                ("src/a.rs", "mod b; pub struct A; fn f(a: A) { a.g() }"),
                ("src/a/b.rs", "use super::A; impl A { fn g() {} }"),
            ],
            &[
                ("src/lib.rs", "pub mod a; pub mod b;"),
                ("src/a.rs", "use crate::b::B;"),
                ("src/b.rs", "pub struct B; fn b() { a::x() }"),
            ],
        ] {
            assert_eq!(found(files), [""; 0], "{files:?}");
        }
    }

    #[test]
    fn circles_are_found_once() {
        for (files, expected) in [
            (
                &[("src/a.rs", "use crate::b::B; pub struct A;"), ("src/b.rs", "\npub struct B(crate::a::A);")][..],
                "a circle of 2 files: src/a.rs:1 names crate::b::B, src/b.rs:2 names crate::a::A",
            ),
            // A child of what its parent defines, while the parent uses it.
            (
                &[
                    ("src/a/mod.rs", "mod b; pub use b::B; pub struct A(B);"),
                    ("src/a/b.rs", "use super::A; pub struct B;"),
                ],
                "a circle of 2 files: src/a/b.rs:1 names crate::a::A, src/a/mod.rs:1 names b::B",
            ),
            // By a path in code, and by a re-export under another name.
            (
                &[
                    ("src/a.rs", "mod b; mod c; pub use b::B as D;"),
                    ("src/a/b.rs", "use super::c; pub struct B; fn f() { c::g() }"),
                    ("src/a/c.rs", "use crate::a::D; pub fn g() {}"),
                ],
                "a circle of 2 files: src/a/b.rs:1 names c::g, src/a/c.rs:1 names crate::a::D",
            ),
            // Through a glob.
            (
                &[
                    ("src/a.rs", "pub use b::*; mod b; pub struct A;"),
                    ("src/a/b.rs", "pub struct B(super::super::c::C);"),
                    ("src/c.rs", "pub struct C(crate::a::B);"),
                ],
                "a circle of 2 files: src/a/b.rs:1 names crate::c::C, src/c.rs:1 names crate::a::B",
            ),
            (
                &[
                    ("src/a.rs", "fn f() { crate::b::g() }"),
                    ("src/b.rs", "use crate::c; pub fn g() { c::h() }"),
                    ("src/c.rs", "pub fn h() { crate::a::f() }"),
                ],
                "a circle of 3 files: src/a.rs:1 names crate::b::g, src/b.rs:1 names c::h, src/c.rs:1 names crate::a::f",
            ),
        ] {
            assert_eq!(found(files), [expected], "{files:?}");
        }
    }
}
