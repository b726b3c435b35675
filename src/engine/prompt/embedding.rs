//! Textual inversions by name: where a text has one.

/// Vectors that stand for a name in prompts (Gal et al. 2022).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEmbedding {
    /// What prompts call it.
    pub name: String,
    /// Its own among all that are loaded.
    pub number: u64,
    /// How many tokens it is in the place of.
    pub vectors: usize,
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Words, and where they begin in the text, in bytes.
    Words(usize, &'a str),
    /// The embedding of this position in the list, and where its name begins.
    Name(usize, usize),
}

/// `text` cut at `names`, whatever the case of their letters; of two that begin at one place the longer. A name is found where it is no part of
/// a longer word: a letter of it has no other letter beside it.
pub(super) fn cut<'a>(text: &'a str, names: &[&str]) -> Vec<Piece<'a>> {
    let (mut pieces, mut begin, mut at) = (Vec::new(), 0, 0);
    while let Some(next) = text[at..].chars().next() {
        let found = names.iter().enumerate().filter_map(|(number, name)| Some((length(text, at, name)?, number)));
        // Of equally long ones the first.
        let Some((length, number)) = found.reduce(|best, other| if other.0 > best.0 { other } else { best }) else {
            at += next.len_utf8();
            continue;
        };
        if begin < at {
            pieces.push(Piece::Words(begin, &text[begin..at]));
        }
        pieces.push(Piece::Name(number, at));
        at += length;
        begin = at;
    }
    if begin < text.len() {
        pieces.push(Piece::Words(begin, &text[begin..]));
    }
    pieces
}

/// Positions in `names` of those that `text` has, in order.
pub fn named(text: &str, names: &[&str]) -> Vec<usize> {
    let name = |piece| if let Piece::Name(number, _) = piece { Some(number) } else { None };
    cut(text, names).into_iter().filter_map(name).collect()
}

/// How long `name` is in `text` at byte `at`, if it is there.
fn length(text: &str, at: usize, name: &str) -> Option<usize> {
    let mut rest = text[at..].char_indices();
    let mut lower = name.chars().flat_map(char::to_lowercase).peekable();
    lower.peek()?;
    let mut end = at;
    while lower.peek().is_some() {
        let (offset, c) = rest.next()?;
        if !c.to_lowercase().all(|c| lower.next() == Some(c)) {
            return None;
        }
        end = at + offset + c.len_utf8();
    }
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    let goes_on = |inside: Option<char>, outside: Option<char>| is_letter(inside) && is_letter(outside);
    let found = &text[at..end];
    let part = goes_on(found.chars().next(), text[..at].chars().next_back())
        || goes_on(found.chars().next_back(), text[end..].chars().next());
    (!part).then_some(end - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_as_words_of_its_own_the_longest_first() {
        let names = ["my-style", "my", "<cat-toy>", "ÉTÉ", "bad-hands-5", "My-Style-2"];
        for (text, found) in [
            ("a house in my-style, at night", &[0][..]),
            ("MY-STYLE", &[0]),
            ("my-style-2 my-style-3 my_style", &[5, 0, 1]),
            ("my-styled tommy-style amy", &[1]),
            ("a <cat-toy>, <CAT-TOY>s", &[2, 2]),
            ("été étés", &[3]),
            ("(bad-hands-5)bad-hands-55", &[4, 4]),
            ("my my", &[1, 1]),
            ("", &[]),
        ] {
            assert_eq!(named(text, &names), found, "{text}");
        }
        assert!(named("anything", &["", "thing"]).is_empty());
    }

    #[test]
    fn what_is_between_names_stays_as_it_is() {
        let pieces = cut("a ÉTÉ my-styles b", &["été", "my-style", "b"]);
        assert_eq!(
            pieces,
            [Piece::Words(0, "a "), Piece::Name(0, 2), Piece::Words(7, " my-styles "), Piece::Name(2, 18)]
        );
        assert_eq!(cut("words", &[]), [Piece::Words(0, "words")]);
    }
}
