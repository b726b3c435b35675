//! Special tokens: which there are, which of them are looked for in a text, and how.
//!
//! The reference reads them from up to four files, which overlap. Where two describe one token, the last one added counts;
//! this decides, for instance, whether `<|ENDOFTEXT|>` in a prompt is the end token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::files::{TokenizerError, read_json};
use super::written::{Serialized, Written};

/// The tokens that have a role, in the order in which the reference adds them, with what they are if no file says it.
const ROLES: [(&str, Option<&str>); 7] = [
    ("bos_token", Some("<|startoftext|>")),
    ("eos_token", Some(END)),
    ("unk_token", Some(END)),
    ("sep_token", None),
    ("pad_token", Some(END)),
    ("cls_token", None),
    ("mask_token", None),
];
const END: &str = "<|endoftext|>";

/// Length of CLIP's position table, for a folder that does not say `model_max_length`.
const MAX_LENGTH: usize = 77;
/// Beyond this a `model_max_length` is the reference's way to say "not limited".
const UNLIMITED: f64 = 1e6;

/// The special tokens of a folder.
#[derive(Debug)]
pub(super) struct Special {
    pub(super) begin: String,
    pub(super) end: String,
    pub(super) unknown: String,
    pub(super) pad: String,
    /// Tokens looked for in a text, in the order in which to add them.
    pub(super) added: Vec<AddedToken>,
    /// Whether special tokens in a text are treated as ordinary text.
    pub(super) split: bool,
    pub(super) max_length: usize,
}

/// A token as files name it: by its text alone, or in full. The two forms are never equal, as in the reference.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Full(Written),
}

impl Token {
    fn text(content: &str) -> Self {
        Self::Text(content.to_owned())
    }

    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Full(Written { content, .. }) => content,
        }
    }

    fn is_special(&self) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Full(full) => full.special,
        }
    }
}

impl Special {
    /// Reads what the folder says about special tokens; `serialized` is its `tokenizer.json`. With `pad` that is the token to fill up with.
    pub(super) fn read(dir: &Path, serialized: Option<&Serialized>, pad: Option<&str>) -> Result<Self, TokenizerError> {
        let config = Object::read(dir.join("tokenizer_config.json"))?;
        for side in ["padding_side", "truncation_side"] {
            if let Some("left") = config.get::<String>(side)?.as_deref() {
                return Err(config.bad(side, "left is not supported"));
            }
        }
        let numbered: Option<BTreeMap<u32, Written>> = config.get("added_tokens_decoder")?;
        // Where the configuration numbers the tokens, the reference does not look at the older files.
        let map = match numbered {
            Some(_) => Object::default(),
            None => Object::read(dir.join("special_tokens_map.json"))?,
        };
        let mut roles = roles(&config, &map)?;
        for (role, _) in roles.iter_mut().zip(ROLES).filter(|(_, (key, _))| *key == "pad_token") {
            *role = pad.map(Token::text).or(role.take());
        }
        let (others, listed) = extras(&[&config, &map])?;
        let named: Vec<&Token> = roles.iter().flatten().chain(&others).chain(&listed).collect();
        let numbered = numbered.map_or_else(|| older_numbered(dir, &named, serialized), Ok)?;
        for token in roles.iter_mut().flatten() {
            if let Some(full) = numbered.values().find(|full| full.content == token.content()) {
                *token = Token::Full(full.clone());
            }
        }
        // The four roles asked for below have defaults, so none is empty unless a file makes it so.
        let content = |key: &str| {
            let role = ROLES.iter().position(|(role, _)| *role == key);
            role.and_then(|role| roles[role].as_ref()).map_or_else(String::new, |token| token.content().to_owned())
        };
        Ok(Self {
            begin: content("bos_token"),
            end: content("eos_token"),
            unknown: content("unk_token"),
            pad: content("pad_token"),
            split: config.get("split_special_tokens")?.unwrap_or(false),
            max_length: max_length(&config)?,
            added: in_order(numbered, roles.into_iter().flatten().chain(others).collect(), listed),
        })
    }
}

/// The token of each of [`ROLES`]: `special_tokens_map.json` goes before `tokenizer_config.json`.
fn roles(config: &Object, map: &Object) -> Result<[Option<Token>; 7], TokenizerError> {
    let mut roles = [const { None }; 7];
    for (role, (key, default)) in roles.iter_mut().zip(ROLES) {
        *role = match map.get(key)? {
            Some(Token::Full(full)) => Some(Token::Full(Written { special: true, ..full })),
            Some(text) => Some(text),
            None => config.get(key)?.or(default.map(Token::text)),
        };
    }
    Ok(roles)
}

/// Tokens beyond the seven roles. Those with a name of their own: what else a file calls `…_token`, and
/// `extra_special_tokens` (once `additional_special_tokens`) if it is an object. Those without: if it is a list.
fn extras(files: &[&Object]) -> Result<(Vec<Token>, Vec<Token>), TokenizerError> {
    let is_role = |key: &str| ROLES.iter().any(|(role, _)| *role == key);
    let (mut named, mut listed) = (Vec::new(), Vec::new());
    for file in files {
        for (key, value) in &file.map {
            match (key.as_str(), value) {
                ("extra_special_tokens" | "additional_special_tokens", Value::Object(tokens)) => {
                    named.extend(tokens.values().filter_map(Value::as_str).map(Token::text));
                }
                ("extra_special_tokens" | "additional_special_tokens", _) => {
                    listed.extend(file.get::<Vec<Token>>(key)?.unwrap_or_default());
                }
                (key, Value::String(text)) if key.ends_with("_token") && !is_role(key) => named.push(Token::text(text)),
                _ => {}
            }
        }
    }
    Ok((named, listed))
}

/// Numbered tokens of `added_tokens.json` and, going before it, of `tokenizer.json`. The former does not say which of its
/// tokens are special; those in `named` are.
fn older_numbered(
    dir: &Path,
    named: &[&Token],
    serialized: Option<&Serialized>,
) -> Result<BTreeMap<u32, Written>, TokenizerError> {
    let added: BTreeMap<String, u32> = read_json(&dir.join("added_tokens.json"))?.unwrap_or_default();
    let added = added.into_iter().map(|(content, id)| {
        let special = named.iter().any(|token| token.is_special() && token.content() == content);
        (id, Written { content, special, normalized: Some(!special), ..Written::default() })
    });
    let serialized = serialized.iter().flat_map(|file| &file.added_tokens).map(|entry| (entry.id, entry.token.clone()));
    Ok(added.chain(serialized).collect())
}

/// Tokens in the order in which the reference adds them: those with a number, a name, neither.
fn in_order(numbered: BTreeMap<u32, Written>, named: Vec<Token>, listed: Vec<Token>) -> Vec<AddedToken> {
    let known: Vec<String> = numbered.values().map(|full| full.content.clone()).collect();
    let names: Vec<String> = named.iter().map(|token| token.content().to_owned()).collect();
    let mut order: Vec<Token> = numbered.into_values().map(Token::Full).collect();
    for token in named.into_iter().chain(listed) {
        if !known.iter().any(|content| content == token.content()) && !order.contains(&token) {
            order.push(token);
        }
    }
    order
        .into_iter()
        .map(|token| match token {
            Token::Text(content) => AddedToken::from(content, true),
            Token::Full(full) => full.added(full.special || names.contains(&full.content)),
        })
        .collect()
}

fn max_length(config: &Object) -> Result<usize, TokenizerError> {
    match config.get::<f64>("model_max_length")? {
        Some(length) if length < 2.0 => {
            Err(config.bad("model_max_length", format!("{length} leaves no room for begin and end")))
        }
        Some(length) if length <= UNLIMITED => Ok(length as usize),
        _ => Ok(MAX_LENGTH),
    }
}

/// A JSON object of optional keys, empty if its file is not there.
#[derive(Default)]
struct Object {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Object {
    fn read(path: PathBuf) -> Result<Self, TokenizerError> {
        let map = read_json(&path)?.unwrap_or_default();
        Ok(Self { path, map })
    }

    /// The value of a key; `null` is as good as none.
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TokenizerError> {
        let value = self.map.get(key).filter(|value| !value.is_null());
        value.map(|value| T::deserialize(value).map_err(|error| self.bad(key, error))).transpose()
    }

    fn bad(&self, key: &str, reason: impl std::fmt::Display) -> TokenizerError {
        TokenizerError::content(&self.path, format!("{key}: {reason}"))
    }
}
