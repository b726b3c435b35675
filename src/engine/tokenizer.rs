//! CLIP's tokenizer: the ids that `CLIPTokenizer` of transformers 5.23.0 gives, from the same files.
//!
//! The reference is a pipeline of the `tokenizers` library, and the same pipeline is built here. Special tokens are
//! taken out of a text as they stand; the rest goes through NFC, white space runs to one space, lower case, a split into
//! words (letters; single digits; runs of anything else), bytes, and byte-pair merges with `</w>` ending each word.

mod files;
mod several_vectors;
mod special;
mod vocabulary;
mod written;

use std::iter;
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as NormalizerSequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizerSequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as LibraryTokenizer};

pub use files::TokenizerError;
use files::read_json;
use several_vectors::SeveralVectors;
use special::Special;
use vocabulary::Vocabulary;
use written::Serialized;

/// What CLIP takes as one word.
const WORD_PATTERN: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A CLIP tokenizer, loaded.
#[derive(Debug)]
pub struct Tokenizer {
    pipeline: LibraryTokenizer,
    max_length: usize,
    vocab_size: usize,
    begin: u32,
    end: u32,
    pad: u32,
    several: SeveralVectors,
}

/// A text as the text encoder takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Begin, the text's tokens as far as they fit, end, padding: always [`Tokenizer::max_length`] ids.
    pub ids: Vec<i64>,
    /// Tokens that the whole text has, begin and end included.
    pub total: usize,
    /// Where in the text, in bytes, the first token begins that did not fit: `&text[cut..]` is what the model will not see.
    pub cut: Option<usize>,
}

impl Tokenizer {
    /// Loads the `tokenizer` folder of a model.
    ///
    /// The vocabulary is that of `tokenizer.json`; without one, of `vocab.json` and `merges.txt`; without `vocab.json`,
    /// the one that `merges.txt` determines. `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`
    /// need not be there and count as they do in the reference.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or does not hold what it should.
    pub fn from_folder(dir: &Path) -> Result<Self, TokenizerError> {
        Self::read(dir, None)
    }

    /// The same, but `pad` fills a text up, whatever the files say. A special token is looked for in a text, so where `pad` is typed, it is
    /// that token: this is how the second tokenizer of SDXL treats `!`.
    ///
    /// # Errors
    /// As for [`Tokenizer::from_folder`].
    pub fn with_pad_token(dir: &Path, pad: &str) -> Result<Self, TokenizerError> {
        Self::read(dir, Some(pad))
    }

    fn read(dir: &Path, pad: Option<&str>) -> Result<Self, TokenizerError> {
        let serialized: Option<Serialized> = read_json(&dir.join("tokenizer.json"))?;
        let special = Special::read(dir, serialized.as_ref(), pad)?;
        let vocabulary = match serialized {
            Some(serialized) => Vocabulary::of(serialized, &dir.join("tokenizer.json"))?,
            None => Vocabulary::read(dir, &special)?,
        };
        if !vocabulary.ids.contains_key(&special.unknown) {
            let reason = format!("the unknown token {:?} is not in the vocabulary", special.unknown);
            return Err(TokenizerError::content(dir, reason));
        }
        let highest = vocabulary.ids.values().max().copied();
        let pipeline =
            pipeline(vocabulary, &special).map_err(|error| TokenizerError::content(dir, error.to_string()))?;
        let highest = highest.max(pipeline.get_added_tokens_decoder().into_keys().max());
        // All three were added, which gives an id to any token but the empty one.
        let id = |token: &str| {
            let reason = || format!("the special token {token:?} has no id");
            pipeline.token_to_id(token).ok_or_else(|| TokenizerError::content(dir, reason()))
        };
        let (begin, end, pad) = (id(&special.begin)?, id(&special.end)?, id(&special.pad)?);
        let vocab_size = highest.map_or(0, |id| id as usize + 1);
        let several = SeveralVectors::of(&pipeline);
        Ok(Self { pipeline, max_length: special.max_length, vocab_size, begin, end, pad, several })
    }

    /// The ids of `text` as the text encoder takes them, and what had to be left out.
    ///
    /// # Errors
    /// The library refused the text.
    pub fn encode(&self, text: &str) -> Result<Encoded, TokenizerError> {
        let tokens = self.tokens(text)?;
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        let cut = tokens.get(self.max_length - 2).map(|(_, at)| *at);
        Ok(Encoded { ids: self.framed(&ids), total: ids.len() + 2, cut })
    }

    /// Begin, as many of `tokens` as fit, end, padding: always [`Tokenizer::max_length`] ids.
    pub fn framed(&self, tokens: &[u32]) -> Vec<i64> {
        let kept = tokens.iter().take(self.max_length - 2);
        let ids = [&self.begin].into_iter().chain(kept).chain([&self.end]).chain(iter::repeat(&self.pad));
        ids.take(self.max_length).copied().map(i64::from).collect()
    }

    /// The id of a comma, if it is one token.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`].
    pub fn comma(&self) -> Result<Option<u32>, TokenizerError> {
        let ids = self.encode_all(",")?;
        Ok(if let [comma] = ids[..] { Some(comma) } else { None })
    }

    /// Every id of `text`, without begin, end, padding or limit.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`].
    pub fn encode_all(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.tokens(text)?.into_iter().map(|(id, _)| id).collect())
    }

    /// Ids that the text encoder is given for each text; 77 for every CLIP.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the highest id, added tokens included: rows that the text encoder's token embedding must have.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Every id of `text` and where it begins, in bytes. A token of several vectors, `<t>`, brings its further ones, `<t>_1` …, where they do not
    /// stand behind it already.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`].
    pub fn tokens(&self, text: &str) -> Result<Vec<(u32, usize)>, TokenizerError> {
        let encoding = self.pipeline.encode(text, false);
        let encoding = encoding.map_err(|reason| TokenizerError::Text { bytes: text.len(), reason })?;
        let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
        let mut tokens = Vec::with_capacity(ids.len());
        for (number, (&id, &(start, end))) in ids.iter().zip(offsets).enumerate() {
            let at = text.floor_char_boundary(start);
            tokens.push((id, at));
            let written = text.get(start..end).unwrap_or_default();
            let further = self.several.further(id, written, ids.get(number + 1).copied());
            tokens.extend(further.iter().map(|&id| (id, at)));
        }
        Ok(tokens)
    }
}

/// The pipeline that `CLIPTokenizer.__init__` builds; begin and end are left to [`Tokenizer::encode`].
fn pipeline(vocabulary: Vocabulary, special: &Special) -> tokenizers::Result<LibraryTokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.ids, vocabulary.merges)
        .end_of_word_suffix(vocabulary::END_OF_WORD.into())
        .unk_token(special.unknown.clone())
        .build()?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let words = Split::new(SplitPattern::Regex(WORD_PATTERN.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let mut pipeline = LibraryTokenizer::new(model);
    // The normalizer before the tokens: some of them are looked for in normalized text and so are normalized themselves.
    pipeline.with_normalizer(Some(NormalizerSequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    pipeline.with_pre_tokenizer(Some(PreTokenizerSequence::new(vec![words.into(), bytes.into()])));
    pipeline.add_tokens(special.added.iter().cloned())?;
    pipeline.set_encode_special_tokens(special.split);
    Ok(pipeline)
}
