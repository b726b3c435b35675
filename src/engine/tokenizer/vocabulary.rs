//! Vocabulary and merges, from whichever files a folder has.

use std::path::Path;

use tokenizers::models::bpe::{Merges, Vocab};

use super::files::{TokenizerError, read, read_json};
use super::special::Special;
use super::written::{Merge, Serialized};

/// What a token carries that ends a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// A byte-pair vocabulary: ids of tokens, and merges in the order of their rank.
pub(super) struct Vocabulary {
    pub(super) ids: Vocab,
    pub(super) merges: Merges,
}

impl Vocabulary {
    /// The vocabulary of a `tokenizer.json`, which lies at `path`.
    pub(super) fn of(Serialized { model, .. }: Serialized, path: &Path) -> Result<Self, TokenizerError> {
        let mut merges = Merges::with_capacity(model.merges.len());
        for (rank, merge) in model.merges.into_iter().enumerate() {
            merges.push(match merge {
                Merge::Pair(a, b) => (a, b),
                Merge::Line(line) => pair(&line).ok_or_else(|| {
                    TokenizerError::content(path, format!("merge {rank} is not two tokens: {line:?}"))
                })?,
            });
        }
        check(&model.vocab, &merges).map_err(|reason| TokenizerError::content(path, reason))?;
        Ok(Self { ids: model.vocab, merges })
    }

    /// Reads `merges.txt` and, if it is there, `vocab.json`.
    pub(super) fn read(dir: &Path, special: &Special) -> Result<Self, TokenizerError> {
        let path = dir.join("merges.txt");
        let Some(text) = read(&path)? else {
            return Err(TokenizerError::content(
                dir,
                "there is no tokenizer here: neither merges.txt nor tokenizer.json",
            ));
        };
        let text = String::from_utf8(text).map_err(|error| TokenizerError::content(&path, error.to_string()))?;
        let merges = parse(&text).map_err(|reason| TokenizerError::content(&path, reason))?;
        let ids = match read_json(&dir.join("vocab.json"))? {
            Some(ids) => ids,
            None => derive(&merges, [&special.begin, &special.end])
                .map_err(|reason| TokenizerError::content(&path, reason))?,
        };
        check(&ids, &merges).map_err(|reason| TokenizerError::content(&path, reason))?;
        Ok(Self { ids, merges })
    }
}

/// The merges of a `merges.txt`: two tokens a line, after a line with the version.
fn parse(text: &str) -> Result<Merges, String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with("#version"))
        .map(|(at, line)| pair(line).ok_or_else(|| format!("line {} is not two tokens: {line:?}", at + 1)))
        .collect()
}

fn pair(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    (!b.contains(' ')).then(|| (a.to_owned(), b.to_owned()))
}

/// A merge whose parts or whole are not in the vocabulary is an error, and one that the library does not survive.
fn check(ids: &Vocab, merges: &Merges) -> Result<(), String> {
    for (rank, (a, b)) in merges.iter().enumerate() {
        for token in [a, b, &format!("{a}{b}")] {
            if !ids.contains_key(token) {
                return Err(format!("merge {rank} ({a:?} with {b:?}): {token:?} is not in the vocabulary"));
            }
        }
    }
    Ok(())
}

/// The ids that CLIP gives: the 256 bytes, the same ending a word, what each merge makes, the special tokens.
fn derive(merges: &Merges, special: [&str; 2]) -> Result<Vocab, String> {
    let bytes: Vec<String> = byte_alphabet().map(String::from).collect();
    let ends = bytes.iter().map(|byte| format!("{byte}{END_OF_WORD}"));
    let made = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let special = special.map(String::from);
    let mut ids = Vocab::new();
    for (id, token) in bytes.iter().cloned().chain(ends).chain(made).chain(special).enumerate() {
        if let Some(before) = ids.insert(token.clone(), id as u32) {
            return Err(format!("{token:?} is made twice, as {before} and as {id}: vocab.json is needed"));
        }
    }
    Ok(ids)
}

/// The characters that stand for bytes, in the order of GPT-2: first the bytes that print, as themselves, then the
/// others, as the characters from U+0100 on.
fn byte_alphabet() -> impl Iterator<Item = char> {
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(move |byte| !prints(byte)).count() as u32;
    (0..=u8::MAX).filter(prints).map(char::from).chain((0x100..0x100 + others).filter_map(char::from_u32))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The miniature's `vocab.json` was written by another program than this one.
    #[test]
    fn a_vocabulary_follows_from_its_merges() {
        let dir = Path::new("models/miniature/tokenizer");
        let written: Vocab = read_json(&dir.join("vocab.json")).unwrap().unwrap();
        let merges = parse(&std::fs::read_to_string(dir.join("merges.txt")).unwrap()).unwrap();
        assert_eq!(written.len(), 8192);
        assert_eq!(derive(&merges, ["<|startoftext|>", "<|endoftext|>"]).unwrap(), written);
    }

    #[test]
    fn a_token_made_twice_has_no_derived_id() {
        let merges = parse("a b\nab c\nb c\na bc\n").unwrap();
        assert!(derive(&merges, ["<", ">"]).unwrap_err().contains("\"abc\" is made twice"));
    }

    #[test]
    fn merges_are_two_tokens_a_line() {
        assert_eq!(
            parse("#version: 0.2\na b\r\nc d</w>\n"),
            Ok(vec![("a".into(), "b".into()), ("c".into(), "d</w>".into())])
        );
        for (text, line) in [("#version: 0.2\na b\nab\n", 3), ("a b c", 1), ("a b\n\nc d\n", 2)] {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(&format!("line {line} ")), "{reason}");
        }
    }
}
