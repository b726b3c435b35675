//! Ids are those of transformers' `CLIPTokenizer`. Goldens: `scripts/parity/tokenizer.py`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use latentd::engine::tokenizer::{Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const MINIATURE: &str = "models/miniature/tokenizer";
static CLIP: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_folder(Path::new("models/clip-tokenizer")).unwrap());

#[derive(Deserialize)]
struct Golden {
    /// Folder of this repository whose files are the base.
    folder: String,
    /// Files over that, by name; `null` takes one away.
    files: Map<String, Value>,
    begin: i64,
    end: i64,
    pad: i64,
    length: usize,
    rows: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

/// A copy of `base` with `files` over it. A `tokenizer.json` is given the base's vocabulary, to keep goldens small.
fn folder(base: &str, files: &Map<String, Value>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(base).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    for (name, content) in files {
        let path = dir.path().join(name);
        let mut content = content.clone();
        if name == "tokenizer.json" {
            content["model"] = model(dir.path());
        }
        match content {
            Value::Null => fs::remove_file(path).unwrap(),
            content => fs::write(path, content.to_string()).unwrap(),
        }
    }
    dir
}

fn model(dir: &Path) -> Value {
    let vocab: Value = serde_json::from_slice(&fs::read(dir.join("vocab.json")).unwrap()).unwrap();
    let merges = fs::read_to_string(dir.join("merges.txt")).unwrap();
    let merges: Vec<Vec<&str>> = merges.lines().skip(1).map(|line| line.split(' ').collect()).collect();
    json!({ "type": "BPE", "vocab": vocab, "merges": merges })
}

/// Compares every text of a golden; `name` is for messages.
fn compare(name: &str, golden: &Golden) {
    let dir = folder(&golden.folder, &golden.files);
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(tokenizer.max_length(), golden.length, "{name}");
    assert_eq!(tokenizer.vocab_size(), golden.rows, "{name}");
    for Case { text, ids } in &golden.cases {
        assert_eq!(&tokenizer.encode_all(text).unwrap(), ids, "{name}: {text:?}, {:?}", golden.files);
        let fit = ids.len().min(golden.length - 2);
        let mut row = vec![golden.begin];
        row.extend(ids[..fit].iter().copied().map(i64::from));
        row.push(golden.end);
        row.resize(golden.length, golden.pad);
        let encoded = tokenizer.encode(text).unwrap();
        assert_eq!(encoded.ids, row, "{name}: {text:?}, {:?}", golden.files);
        assert_eq!(encoded.total, ids.len() + 2);
        assert_eq!(encoded.cut.is_some(), fit < ids.len());
    }
}

/// `TOKENIZER_GOLDEN` names another folder of the script's, such as the full set.
#[test]
fn ids_are_the_references() {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the test may point it at a larger record")]
    let dir = std::env::var("TOKENIZER_GOLDEN").unwrap_or_else(|_| "tests/golden/tokenizer".into());
    let (mut folders, mut texts) = (0, 0);
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let goldens: Vec<Golden> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for golden in &goldens {
            compare(&path.display().to_string(), golden);
            folders += 1;
            texts += golden.cases.len();
        }
    }
    assert!(folders >= 26 && texts >= 800, "goldens are missing: {texts} texts for {folders} folders");
    println!("{texts} texts, {folders} folders");
}

/// SDXL's second tokenizer from the files of its first.
#[test]
fn a_text_can_be_filled_up_with_a_token_of_its_own() {
    let second = Tokenizer::with_pad_token(Path::new("models/clip-tokenizer"), "!").unwrap();
    assert_eq!(second.vocab_size(), 49408);
    for (text, ids) in [("a!!b", [320, 0, 0, 321].as_slice()), ("a photo of a cat", &[320, 1125, 539, 320, 2368])] {
        assert_eq!(second.encode_all(text).unwrap(), ids, "{text}");
    }
    let empty = second.encode("").unwrap().ids;
    assert_eq!((&empty[..2], empty.len()), ([49406, 49407].as_slice(), 77));
    assert!(empty[2..].iter().all(|id| *id == 0), "{empty:?}");
    assert_eq!(CLIP.encode_all("a!!b").unwrap(), [320, 748, 321]);
}

#[test]
fn clips_own_ids() {
    assert_eq!(CLIP.vocab_size(), 49408);
    assert_eq!(CLIP.encode_all("a photo of a cat").unwrap(), [320, 1125, 539, 320, 2368]);
    let empty = CLIP.encode("").unwrap();
    assert_eq!(empty.ids[..2], [49406, 49407]);
    assert!(empty.ids[2..].iter().all(|&id| id == 49407));
    assert_eq!((empty.ids.len(), empty.total, empty.cut), (77, 2, None));
}

#[test]
fn the_cut_is_where_the_text_stops_counting() {
    let kept = "red apple ".repeat(37); // 74 tokens
    for tail in ["tree house", "é日本 house", "<|endoftext|>  house"] {
        let text = format!("{kept}green {tail}");
        let encoded = CLIP.encode(&text).unwrap();
        let cut = encoded.cut.unwrap();
        assert_eq!(&text[cut..], tail);
        assert_eq!(CLIP.encode(&text[..cut]).unwrap().ids, encoded.ids);
    }
    assert_eq!(CLIP.encode(&format!("{kept}green")).unwrap().cut, None);
}

/// Each would take minutes if any stage of the pipeline were quadratic.
#[test]
fn far_too_long_texts_are_no_trouble() {
    let spaces = CLIP.encode(&" \n\u{3000}".repeat(100_000)).unwrap();
    assert_eq!((spaces.total, spaces.cut), (2, None));
    for (piece, tokens) in [("1", 1), ("a ", 1), ("\0", 1), ("İ", 2), ("a1!", 3), ("<|endoftext|>", 1)] {
        let encoded = CLIP.encode(&piece.repeat(20_000)).unwrap();
        assert_eq!(encoded.total, 20_000 * tokens + 2, "{piece:?}");
        assert_eq!(encoded.cut, Some(75 / tokens * piece.len()), "{piece:?}");
    }
    let word = CLIP.encode(&"photo".repeat(20_000)).unwrap();
    let marks = CLIP.encode(&format!("e{}", "\u{301}\u{327}".repeat(20_000))).unwrap();
    assert!(word.cut.is_some() && marks.cut.is_some());
}

/// What is wrong with a folder is said with the file's name.
#[test]
fn broken_folders_are_explained() {
    let cases: &[(&str, &str, &str)] = &[
        ("merges.txt", "a b\nabc\n", "line 2 "),
        (
            "merges.txt",
            "a b\nzzz yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n",
            "\"zzz\" is not in the vocabulary",
        ),
        ("merges.txt", "<|startoftext|> <|endoftext|>\n", "\"<|startoftext|><|endoftext|>\" is not in the vocabulary"),
        ("vocab.json", "[]", "expected a map"),
        ("vocab.json", "{\"a\": -1}", "-1"),
        ("tokenizer_config.json", "{", "EOF"),
        ("tokenizer_config.json", "{\"bos_token\": 7}", "bos_token: "),
        ("tokenizer_config.json", "{\"model_max_length\": 1}", "model_max_length: "),
        ("tokenizer_config.json", "{\"padding_side\": \"left\"}", "padding_side: left"),
        ("special_tokens_map.json", "{\"pad_token\": []}", "pad_token: "),
        ("added_tokens.json", "{\"a\": \"b\"}", "invalid type"),
        ("tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "expected a map"),
    ];
    for (name, content, reason) in cases {
        let dir = folder(MINIATURE, &Map::new());
        fs::write(dir.path().join(name), content).unwrap();
        let message = Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(reason), "{message}");
    }
}

#[test]
fn a_folder_without_a_tokenizer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_folder(dir.path()).unwrap_err();
    assert!(matches!(error, TokenizerError::Content { .. }));
    assert!(error.to_string().starts_with(&dir.path().display().to_string()), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_encodes(text in "\\PC{0,40}|(.|\\s){0,40}|[\\u{300}-\\u{345}a👍 ]{0,300}") {
        let encoded = CLIP.encode(&text).unwrap();
        prop_assert_eq!(encoded.ids.len(), 77);
        prop_assert!(encoded.ids.iter().all(|&id| (0..49408).contains(&id)));
        prop_assert_eq!(encoded.total, CLIP.encode_all(&text).unwrap().len() + 2);
        prop_assert!(encoded.cut.is_none_or(|cut| text.is_char_boundary(cut)));
    }
}
