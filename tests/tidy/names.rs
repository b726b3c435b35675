//! One name, one meaning: types and constants of the same name in several files, and imports under a name that hides what they are.

use std::collections::BTreeMap;

use crate::items::items;
use crate::paths::paths;

/// Names that several types may have, and why.
const TYPES: [(&str, &str); 0] = [];

/// Names that several constants may have, and why.
const CONSTANTS: [(&str, &str); 0] = [];

/// Names that more than one file of `src` gives to a public type, or to a constant.
pub(crate) fn shared(files: &[(&str, &str)]) -> Vec<String> {
    let (mut types, mut constants) = (BTreeMap::new(), BTreeMap::new());
    for &(path, code) in files {
        for item in items(code) {
            let place = (path.to_owned(), item.line);
            if item.is_type() && item.public {
                types.entry(item.name).or_insert_with(Vec::new).push(place);
            } else if item.is_constant() && item.name != "_" {
                constants.entry(item.name).or_insert_with(Vec::new).push(place);
            }
        }
    }
    several("type", types, &TYPES).chain(several("constant", constants, &CONSTANTS)).collect()
}

/// A type, by name, and the places that define one.
type Places<'a> = BTreeMap<&'a str, Vec<(String, usize)>>;

fn several<'a>(
    kind: &'a str,
    places: Places<'a>,
    allowed: &'a [(&str, &str)],
) -> impl Iterator<Item = String> + use<'a> {
    places.into_iter().filter_map(move |(name, places)| {
        let one_file = places.iter().all(|(path, _)| *path == places[0].0);
        let allowed = allowed.iter().any(|(other, _)| *other == name);
        let lines: Vec<_> = places.iter().map(|(path, line)| format!("{path}:{line}")).collect();
        (!one_file && !allowed).then(|| format!("{kind} {name} is of {} files: {}", places.len(), lines.join(", ")))
    })
}

/// Imports of a type under a name that does not end as its own does: `Mutex as StdMutex` tells which, `Mutex as Cell` hides what.
pub(crate) fn hidden(path: &str, code: &str) -> Vec<String> {
    let imports = paths(code, &[]).into_iter().filter_map(|named| {
        let (import, own) = (named.import?, named.segments.last()?.clone());
        let type_like = own.starts_with(char::is_uppercase) && own.contains(char::is_lowercase);
        let hides = type_like && import.name != "_" && !import.name.ends_with(&own);
        let why = "the other name ends as its own does, if it needs one";
        hides.then(|| format!("{path}:{}: {own} as {}: {why}", named.line, import.name))
    });
    imports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_constants_of_one_name_are_found() {
        let files = [
            (
                "src/a.rs",
                "pub struct One; struct Own; const MOST: u8 = 1; impl One { const ALL: u8 = 1; } const _: u8 = 1;",
            ),
            (
                "src/b.rs",
                "\npub(crate) enum One {} pub trait Two { const ALL: u8; } fn f() { const MOST: u8 = 2; } const _: u8 = 1;",
            ),
            (
                "src/c.rs",
                "pub struct Own; static MOST: u8 = 1; pub fn two() {} mod two { pub struct Three; } pub struct Three;",
            ),
        ];
        let expected =
            ["type One is of 2 files: src/a.rs:1, src/b.rs:2", "constant MOST is of 2 files: src/a.rs:1, src/c.rs:1"];
        let found = shared(&files);
        assert_eq!(found, expected);
    }

    #[test]
    fn names_that_hide_a_type_are_found() {
        let found = hidden(
            "src/a.rs",
            "\nuse a::{Be as C, d::Do as StdDo, PI as P, E as _, f as g, h::H}; pub use i::Is as J;",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("src/a.rs:2: Be as C: ") && found[1].starts_with("src/a.rs:2: Is as J: "),
            "{found:?}"
        );
    }
}
