//! Emphasis, by the rules of AUTOMATIC1111's WebUI: `(x)` is 1.1 times as much, `[x]` as much less, `(x:1.3)` 1.3 times, and brackets
//! within brackets multiply. A backslash takes a bracket's meaning away. `BREAK` ends a chunk of tokens.

use std::cmp::Ordering;

/// What a pair of round brackets multiplies the weight of its text by.
const ROUND: f64 = 1.1;

/// What a pair of square brackets multiplies it by.
const SQUARE: f64 = 1.0 / 1.1;

/// The word that ends a chunk.
const BREAK: &str = "BREAK";

/// What a `BREAK` weighs while brackets are still to be applied: one within brackets comes to something else, and is a word.
const BREAK_WEIGHT: f64 = -1.0;

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Emphasized {
    /// Words of one weight; neighbours differ in it.
    Text {
        /// The words, without the marks.
        text: String,
        /// By how much they count; 1 is as in a plain prompt. As f32 it is finite.
        weight: f64,
    },
    /// The chunk ends here.
    Break,
}

impl Emphasized {
    /// Its words, unless it is a break.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text { text, .. } = self { Some(text) } else { None }
    }
}

/// A weight that is no number, or is beyond all bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("has the weight {0}, which is no number that a weight can be")]
pub struct WeightError(String);

/// A piece of a prompt's text.
enum Piece<'a> {
    Open(char),
    Close(char),
    /// A colon, a number and a closing bracket: the number, and all of it.
    Weight(&'a str, &'a str),
    /// A character that a backslash was before, or nothing where there was none to take.
    Escaped(&'a str),
    Text(&'a str),
}

/// The parts of `prompt`, at least one. Brackets that are not closed reach to the end, and one that closes nothing is text.
///
/// # Errors
/// A weight is no number, as in `(cat:1.2.3)`.
pub fn emphasized(prompt: &str) -> Result<Vec<Emphasized>, WeightError> {
    let mut parts: Vec<(String, f64)> = Vec::new();
    let (mut round, mut square) = (Vec::new(), Vec::new());
    let mut rest = prompt;
    while let Some(piece) = next(&mut rest) {
        let (scale, from) = match piece {
            Piece::Open('(') => {
                round.push(parts.len());
                continue;
            }
            Piece::Open(_) => {
                square.push(parts.len());
                continue;
            }
            Piece::Close(')') => (ROUND, round.pop().ok_or(")")),
            Piece::Close(_) => (SQUARE, square.pop().ok_or("]")),
            Piece::Weight(number, all) if !round.is_empty() => (parsed(number)?, round.pop().ok_or(all)),
            Piece::Weight(_, all) => (1.0, Err(all)),
            Piece::Escaped(text) => {
                parts.push((text.to_owned(), 1.0));
                continue;
            }
            Piece::Text(text) => (1.0, Err(text)),
        };
        match from {
            Ok(from) => multiply(&mut parts[from..], scale),
            Err(text) => parts.extend(with_breaks(text)),
        }
    }
    for (open, scale) in [(round, ROUND), (square, SQUARE)] {
        for from in open {
            multiply(&mut parts[from..], scale);
        }
    }
    joined(parts)
}

fn multiply(parts: &mut [(String, f64)], by: f64) {
    for (_, weight) in parts {
        *weight *= by;
    }
}

/// Takes the next piece off `rest`; `None` at its end.
fn next<'a>(rest: &mut &'a str) -> Option<Piece<'a>> {
    let text = *rest;
    let first = text.chars().next()?;
    let (length, piece) = match first {
        '\\' => {
            let taken = text[1..].chars().next().filter(|next| r"()[]\".contains(*next));
            let length = 1 + taken.map_or(0, char::len_utf8);
            (length, Piece::Escaped(&text[1..length]))
        }
        '(' | '[' => (1, Piece::Open(first)),
        ')' | ']' => (1, Piece::Close(first)),
        ':' => match weight(text) {
            Some((number, length)) => (length, Piece::Weight(number, &text[..length])),
            None => (1, Piece::Text(&text[..1])),
        },
        _ => {
            let length = text.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(text.len());
            (length, Piece::Text(&text[..length]))
        }
    };
    *rest = &text[length..];
    Some(piece)
}

/// The number of `: 1.3 )` at the beginning of `text`, and the length of all of it.
fn weight(text: &str) -> Option<(&str, usize)> {
    let number = text[1..].trim_start();
    let sign = usize::from(number.starts_with(['+', '-']));
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let digits = number[sign..].find(|c| !is_part(c)).unwrap_or(number.len() - sign);
    let (number, after) = number.split_at(sign + digits);
    let after = after.trim_start().strip_prefix(')')?;
    (digits > 0).then_some((number, text.len() - after.len()))
}

/// Whether weights are one number; those that were multiplied alike are.
pub(super) fn is_same(one: f64, other: f64) -> bool {
    one.partial_cmp(&other) == Some(Ordering::Equal)
}

fn parsed(number: &str) -> Result<f64, WeightError> {
    number.parse().map_err(|_| WeightError(number.to_owned()))
}

/// `text` with each `BREAK` that is a word of its own, and the white space around it, as a part that has its weight.
fn with_breaks(text: &str) -> impl Iterator<Item = (String, f64)> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    for at in whole_words(text, BREAK) {
        parts.push((text[begin..at].trim_end().to_owned(), 1.0));
        parts.push((BREAK.to_owned(), BREAK_WEIGHT));
        begin = text.len() - text[at + BREAK.len()..].trim_start().len();
    }
    parts.push((text[begin..].to_owned(), 1.0));
    parts.into_iter()
}

/// Where `word` stands in `text` as a word of its own.
pub(super) fn whole_words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let places = text.match_indices(word).map(|(at, _)| at);
    places
        .filter(move |at| !is_part(text[..*at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next()))
}

/// The parts with neighbours of one weight joined, which are tokenized together: brackets alone end no word.
fn joined(parts: Vec<(String, f64)>) -> Result<Vec<Emphasized>, WeightError> {
    let mut joined: Vec<(String, f64)> = Vec::new();
    for (text, weight) in parts {
        if !(weight as f32).is_finite() {
            return Err(WeightError(format!("{weight:e}")));
        }
        match joined.last_mut() {
            Some((before, same)) if is_same(*same, weight) => before.push_str(&text),
            _ => joined.push((text, weight)),
        }
    }
    if joined.is_empty() {
        joined.push((String::new(), 1.0));
    }
    let part = |(text, weight)| {
        let is_break = is_same(weight, BREAK_WEIGHT) && text == BREAK;
        if is_break { Emphasized::Break } else { Emphasized::Text { text, weight } }
    };
    Ok(joined.into_iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Texts with their weights to four places; a break is `None`.
    fn read(prompt: &str) -> Vec<Option<(String, f64)>> {
        let told = |part| match part {
            Emphasized::Text { text, weight } => Some((text, (weight * 1e4).round() / 1e4)),
            Emphasized::Break => None,
        };
        emphasized(prompt).unwrap().into_iter().map(told).collect()
    }

    #[test]
    fn brackets_weigh_as_in_the_webui() {
        for (prompt, parts) in [
            ("", &[("", 1.0)][..]),
            ("a (cat) [dog]", &[("a ", 1.0), ("cat", 1.1), (" ", 1.0), ("dog", 0.9091)]),
            ("((cat:1.3))", &[("cat", 1.43)]),
            ("(a (b:1.3) c:1.2)", &[("a ", 1.2), ("b", 1.56), (" c", 1.2)]),
            ("((a):1.1)", &[("a", 1.21)]),
            ("[[cat]]", &[("cat", 0.8264)]),
            ("[(cat:1.5)]", &[("cat", 1.3636)]),
            ("[cat:1.3]", &[("cat:1.3", 0.9091)]),
            ("(unclosed cat", &[("unclosed cat", 1.1)]),
            ("[a (b", &[("a ", 0.9091), ("b", 1.0)]),
            ("stray) (cat:1.3) dog", &[("stray) ", 1.0), ("cat", 1.3), (" dog", 1.0)]),
            ("stray:1.3) [a:2)]", &[("stray:1.3) ", 1.0), ("a:2)", 0.9091)]),
            (r"\(cat\) \[dog\]", &[("(cat) [dog]", 1.0)]),
            (r"a\b \\ c\", &[(r"ab \ c", 1.0)]),
            (r"(cat\))", &[("cat)", 1.1)]),
            ("(ratio 16:9)", &[("ratio 16", 9.0)]),
            ("(cat:)", &[("cat:", 1.1)]),
            ("(cat: 1.2 )", &[("cat", 1.2)]),
            ("(cat:1,2)", &[("cat:1,2", 1.1)]),
            ("(cat:-1)", &[("cat", -1.0)]),
            ("(cat:+.5)(dog:1.)", &[("cat", 0.5), ("dog", 1.0)]),
            ("(a:1e1)", &[("a:1e1", 1.1)]),
            ("(a:inf)(b:1_0)", &[("a:infb:1_0", 1.1)]),
            ("(:1.2)", &[("", 1.0)]),
            ("(a)(b)", &[("ab", 1.1)]),
            ("(high(er) cat)", &[("high", 1.1), ("er", 1.21), (" cat", 1.1)]),
            ("cat, (dog, bird:1.2)", &[("cat, ", 1.0), ("dog, bird", 1.2)]),
            ("cat|dog", &[("cat|dog", 1.0)]),
            ("(cat:0)", &[("cat", 0.0)]),
        ] {
            let parts: Vec<_> = parts.iter().map(|(text, weight)| Some(((*text).to_owned(), *weight))).collect();
            assert_eq!(read(prompt), parts, "{prompt}");
        }
    }

    #[test]
    fn a_break_is_a_word_of_its_own_outside_of_brackets() {
        let text = |text: &str, weight| Some((text.to_owned(), weight));
        for (prompt, parts) in [
            ("cat BREAK dog", vec![text("cat", 1.0), None, text("dog", 1.0)]),
            ("cat BREAK", vec![text("cat", 1.0), None, text("", 1.0)]),
            ("BREAK BREAK cat", vec![text("", 1.0), None, text("", 1.0), None, text("cat", 1.0)]),
            ("cat,BREAK\ndog", vec![text("cat,", 1.0), None, text("dog", 1.0)]),
            ("catBREAK break BREAKS _BREAK", vec![text("catBREAK break BREAKS _BREAK", 1.0)]),
            ("(cat)BREAK(dog)", vec![text("cat", 1.1), text("", 1.0), None, text("", 1.0), text("dog", 1.1)]),
            ("(cat BREAK dog:1.2)", vec![text("cat", 1.2), text("BREAK", -1.2), text("dog", 1.2)]),
            ("(BREAK:-1)", vec![text("", -1.0), text("BREAK", 1.0), text("", -1.0)]),
            ("(a BREAK b:1)", vec![text("a", 1.0), None, text("b", 1.0)]),
            ("(a BREAK b:0)", vec![text("aBREAKb", 0.0)]),
        ] {
            assert_eq!(read(prompt), parts, "{prompt}");
        }
    }

    #[test]
    fn a_weight_is_a_number_within_bounds() {
        let large = format!("{}cat{}", "(".repeat(10), ":99999)".repeat(10));
        for (prompt, told) in [
            ("(cat:1.2.3)", "has the weight 1.2.3, which is no number that a weight can be"),
            ("(cat:.)", "has the weight ., which is no number that a weight can be"),
            ("a, (cat:-..)", "has the weight -.., which is no number that a weight can be"),
            (large.as_str(), "has the weight 9.9990000449988e49, which is no number that a weight can be"),
        ] {
            assert_eq!(emphasized(prompt).map_err(|error| error.to_string()), Err(told.to_owned()), "{prompt}");
        }
    }
}
