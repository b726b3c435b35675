//! What text encoders are given of a prompt: chunks of token ids, with a weight each.

mod chunker;
mod embedding;

use self::chunker::{Chunker, Content, Unit};
use self::embedding::{Piece, cut};
use super::tokenizer::{Tokenizer, TokenizerError};
use crate::job::prompt::Emphasized;

pub use self::chunker::VectorId;
pub use self::embedding::{NamedEmbedding, named};

/// Chunks of a prompt. Their keys and values are in memory for as long as a job that has them: of SDXL in f16 a chunk takes 26 MB.
pub const MOST_CHUNKS: usize = 16;

/// So much of a prompt as a text encoder reads at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Begin, tokens, end, padding: always [`Tokenizer::max_length`] ids.
    pub ids: Vec<i64>,
    /// What the state of each is multiplied by; none where it is 1 for all.
    pub weights: Vec<f32>,
    /// Vectors that take the places of ids, by these.
    pub vectors: Vec<(usize, VectorId)>,
}

impl Chunk {
    /// Of these ids, none of which weighs more than others.
    pub fn plain(ids: Vec<i64>) -> Self {
        Self { ids, weights: Vec::new(), vectors: Vec::new() }
    }

    /// Without a token.
    pub fn empty(tokenizer: &Tokenizer) -> Self {
        Self::of(tokenizer, &[])
    }

    fn of(tokenizer: &Tokenizer, units: &[Unit]) -> Self {
        // Any token's id stands where a vector goes, but none that a text encoder takes for the end.
        let id = |unit: &Unit| if let Content::Token(id) = unit.content { id } else { 0 };
        let ids = tokenizer.framed(&units.iter().map(id).collect::<Vec<_>>());
        let mut weights = Vec::new();
        if units.iter().any(|unit| unit.weight.to_bits() != 1.0_f32.to_bits()) {
            weights = vec![1.0; ids.len()];
            weights[1..].iter_mut().zip(units).for_each(|(weight, unit)| *weight = unit.weight);
        }
        let vector = |(place, unit): (usize, &Unit)| match unit.content {
            Content::Vector(vector) => Some((place, vector)),
            Content::Token(_) => None,
        };
        Self { ids, weights, vectors: (1..).zip(units).filter_map(vector).collect() }
    }
}

/// A prompt that no text encoder can be given.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// It was not tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// It is too long.
    #[error("has {chunks} chunks of tokens, of which at most {MOST_CHUNKS} are taken")]
    Long {
        /// How many it has.
        chunks: usize,
    },
    /// A name stands for more vectors than a chunk has places.
    #[error("has {name:?}, whose {vectors} vectors are more than the {room} tokens that a text encoder reads at once")]
    Embedding {
        /// The name.
        name: String,
        /// How many vectors it stands for.
        vectors: usize,
        /// How many there may be.
        room: usize,
    },
}

/// A plain prompt.
#[derive(Debug, PartialEq)]
pub struct Plain {
    /// What is read of it.
    pub chunk: Chunk,
    /// Tokens that the whole text has, begin and end included.
    pub total: usize,
    /// Where in the text, in bytes, the first token begins that did not fit.
    pub cut: Option<usize>,
}

/// The one chunk of a plain prompt, cut where it does not fit; names of `embeddings` are their vectors.
///
/// # Errors
/// It was not tokenized.
pub fn plain(tokenizer: &Tokenizer, prompt: &str, embeddings: &[NamedEmbedding]) -> Result<Plain, PromptError> {
    let groups = groups(tokenizer, prompt, 1.0, embeddings)?;
    let units: Vec<(usize, Unit)> =
        groups.into_iter().flat_map(|(at, units)| units.into_iter().map(move |unit| (at, unit))).collect();
    let room = tokenizer.max_length() - 2;
    let kept: Vec<Unit> = units.iter().take(room).map(|(_, unit)| *unit).collect();
    let cut = units.get(room).map(|(at, _)| *at);
    Ok(Plain { chunk: Chunk::of(tokenizer, &kept), total: units.len() + 2, cut })
}

/// The chunks of a weighted prompt's `parts`, at least one, as AUTOMATIC1111's WebUI makes them.
///
/// # Errors
/// See [`PromptError`].
pub fn weighted(
    tokenizer: &Tokenizer,
    parts: &[Emphasized],
    embeddings: &[NamedEmbedding],
) -> Result<Vec<Chunk>, PromptError> {
    let room = tokenizer.max_length() - 2;
    if let Some(NamedEmbedding { name, vectors, .. }) = embeddings.iter().find(|embedding| embedding.vectors > room) {
        return Err(PromptError::Embedding { name: name.clone(), vectors: *vectors, room });
    }
    let mut chunker = Chunker::new(room, tokenizer.comma()?);
    for part in parts {
        match part {
            Emphasized::Break => chunker.end(),
            Emphasized::Text { text, weight } => {
                let groups = groups(tokenizer, text, *weight as f32, embeddings)?;
                for (_, units) in &groups {
                    chunker.push(units);
                }
            }
        }
    }
    let chunks = chunker.finish();
    if chunks.len() > MOST_CHUNKS {
        return Err(PromptError::Long { chunks: chunks.len() });
    }
    Ok(chunks.iter().map(|units| Chunk::of(tokenizer, units)).collect())
}

/// The tokens of `text`, each with where it begins, and the vectors of a name together.
fn groups(
    tokenizer: &Tokenizer,
    text: &str,
    weight: f32,
    embeddings: &[NamedEmbedding],
) -> Result<Vec<(usize, Vec<Unit>)>, TokenizerError> {
    let names: Vec<&str> = embeddings.iter().map(|embedding| embedding.name.as_str()).collect();
    let mut groups = Vec::new();
    for piece in cut(text, &names) {
        match piece {
            Piece::Words(begin, words) => {
                let tokens = tokenizer.tokens(words)?.into_iter();
                groups.extend(tokens.map(|(id, at)| (begin + at, vec![Unit { content: Content::Token(id), weight }])));
            }
            Piece::Name(number, at) => {
                let NamedEmbedding { number, vectors, .. } = embeddings[number];
                let vector = |row| Unit { content: Content::Vector(VectorId { embedding: number, row }), weight };
                groups.push((at, (0..vectors).map(vector).collect()));
            }
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]
    use std::path::Path;
    use std::sync::LazyLock;

    use super::*;
    use crate::job::prompt::emphasized;

    static CLIP: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::from_folder(Path::new("models/clip-tokenizer")).unwrap());
    const BEGIN: i64 = 49406;
    const END: i64 = 49407;

    fn chunks(text: &str) -> Result<Vec<Chunk>, PromptError> {
        weighted(&CLIP, &emphasized(text).unwrap(), &[])
    }

    /// The tokens of a chunk, and their weights to four places.
    fn read(chunk: &Chunk) -> (Vec<i64>, Vec<f64>) {
        assert_eq!((chunk.ids.len(), chunk.ids[0], chunk.ids[76]), (77, BEGIN, END));
        let count = chunk.ids.iter().position(|id| *id == END).unwrap() - 1;
        assert!(chunk.ids[count + 1..].iter().all(|id| *id == END));
        let weights = if chunk.weights.is_empty() { vec![1.0; 77] } else { chunk.weights.clone() };
        assert!(weights.len() == 77 && weights[0] == 1.0 && weights[count + 1..].iter().all(|weight| *weight == 1.0));
        let rounded = weights[1..=count].iter().map(|weight| (f64::from(*weight) * 1e4).round() / 1e4);
        (chunk.ids[1..=count].to_vec(), rounded.collect())
    }

    /// Of each chunk its ids and weights. The ids are those that the WebUI gave.
    #[test]
    fn texts_have_the_ids_weights_and_chunks_of_the_webui() {
        type Chunks<'a> = &'a [(&'a [i64], &'a [f64])];
        let table: [(&str, Chunks); 30] = [
            ("", &[(&[], &[])]),
            ("a (cat) [dog]", &[(&[320, 2368, 1929], &[1.0, 1.1, 0.9091])]),
            ("((cat:1.3))", &[(&[2368], &[1.43])]),
            ("(a (b:1.3) c:1.2)", &[(&[320, 321, 322], &[1.2, 1.56, 1.2])]),
            ("((a):1.1)", &[(&[320], &[1.21])]),
            ("[[cat]]", &[(&[2368], &[0.8264])]),
            ("[(cat:1.5)]", &[(&[2368], &[1.3636])]),
            ("(unclosed cat", &[(&[569, 4552, 2368], &[1.1, 1.1, 1.1])]),
            ("stray) (cat:1.3) dog", &[(&[15712, 264, 2368, 1929], &[1.0, 1.0, 1.3, 1.0])]),
            (r"\(cat\) \[dog\]", &[(&[263, 2368, 264, 314, 1929, 316], &[1.0; 6])]),
            ("(ratio 16:9)", &[(&[15893, 272, 277], &[9.0; 3])]),
            ("(cat:)", &[(&[2368, 281], &[1.1; 2])]),
            ("(cat: 1.2 )", &[(&[2368], &[1.2])]),
            ("(cat:1,2)", &[(&[2368, 281, 272, 267, 273], &[1.1; 5])]),
            ("(cat:-1)", &[(&[2368], &[-1.0])]),
            ("(:1.2)", &[(&[], &[])]),
            ("(a)(b)", &[(&[3937], &[1.1])]),
            ("(high(er) cat)", &[(&[1400, 528, 2368], &[1.1, 1.21, 1.1])]),
            ("cat BREAK dog", &[(&[2368], &[1.0]), (&[1929], &[1.0])]),
            ("cat BREAK (dog:0.5)", &[(&[2368], &[1.0]), (&[1929], &[0.5])]),
            ("(cat BREAK dog:1.2)", &[(&[2368, 2568, 1929], &[1.2, -1.2, 1.2])]),
            ("cat BREAK", &[(&[2368], &[1.0])]),
            ("BREAK BREAK cat", &[(&[], &[]), (&[], &[]), (&[2368], &[1.0])]),
            ("catBREAK", &[(&[1481, 2568], &[1.0; 2])]),
            ("break", &[(&[2568], &[1.0])]),
            ("cat, (dog, bird:1.2)", &[(&[2368, 267, 1929, 267, 3329], &[1.0, 1.0, 1.2, 1.2, 1.2])]),
            ("cat|dog", &[(&[2368, 347, 1929], &[1.0; 3])]),
            ("(cat:1)", &[(&[2368], &[1.0])]),
            ("(cat:0)", &[(&[2368], &[0.0])]),
            ("[cat:1.3]", &[(&[2368, 281, 272, 269, 274], &[0.9091; 5])]),
        ];
        for (text, expected) in table {
            let found: Vec<_> = chunks(text).unwrap().iter().map(read).collect();
            let expected: Vec<_> = expected.iter().map(|(ids, weights)| (ids.to_vec(), weights.to_vec())).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn no_weights_are_kept_where_all_are_one() {
        let chunks = chunks("cat BREAK (dog:1.5)").unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.weights.len()).collect::<Vec<_>>(), [0, 77]);
        assert_eq!(chunks[0], Chunk::plain(CLIP.encode("cat").unwrap().ids));
        assert_eq!(Chunk::empty(&CLIP), Chunk::plain(CLIP.encode("").unwrap().ids));
    }

    /// So many tokens without a comma, then a comma, then as many.
    fn with_comma(before: usize, after: usize) -> String {
        format!("{},{}", "cat ".repeat(before), " dog".repeat(after))
    }

    fn lengths(text: &str) -> Vec<usize> {
        chunks(text).unwrap().iter().map(|chunk| read(chunk).0.len()).collect()
    }

    #[test]
    fn a_chunk_ends_at_75_tokens_or_at_a_comma_not_far_before() {
        for (text, expected) in [
            ("cat ".repeat(75), vec![75]),
            ("cat ".repeat(76), vec![75, 1]),
            ("cat ".repeat(151), vec![75, 75, 1]),
            // As the 56th token the comma is near enough, as the 55th it is not.
            (with_comma(55, 25), vec![56, 25]),
            (with_comma(54, 25), vec![75, 5]),
            // A comma that no longer fits begins the next chunk.
            (with_comma(75, 3), vec![75, 4]),
            (with_comma(74, 1), vec![75, 1]),
            (with_comma(73, 2), vec![74, 2]),
            // A comma of a chunk that has ended is not looked back at.
            (format!("cat, BREAK {}", "dog ".repeat(76)), vec![2, 75, 1]),
        ] {
            assert_eq!(lengths(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_moves_to_the_next_chunk_keeps_its_weights() {
        let text = format!("{}, (blue dog:1.5) {}", "cat ".repeat(60), "bird ".repeat(20));
        let chunks: Vec<_> = chunks(&text).unwrap().iter().map(read).collect();
        assert_eq!(chunks.iter().map(|(ids, _)| ids.len()).collect::<Vec<_>>(), [61, 22]);
        assert_eq!(chunks[0].1, [1.0; 61]);
        assert_eq!((&chunks[1].0[..3], &chunks[1].1[..3]), (&[1746, 1929, 3329][..], &[1.5, 1.5, 1.0][..]));
    }

    #[test]
    fn what_is_wrong_with_a_prompt_is_told() {
        let told = |text: &str| chunks(text).unwrap_err().to_string();
        assert_eq!(told(&"BREAK ".repeat(17)), "has 17 chunks of tokens, of which at most 16 are taken");
        assert_eq!(chunks(&"BREAK ".repeat(16)).unwrap().len(), 16);
    }

    fn style(vectors: usize) -> [NamedEmbedding; 1] {
        [NamedEmbedding { name: "my-style".into(), number: 7, vectors }]
    }

    fn places(chunk: &Chunk) -> Vec<usize> {
        let numbers = chunk.vectors.iter().map(|(_, vector)| vector.embedding);
        assert!(numbers.into_iter().all(|number| number == 7));
        chunk.vectors.iter().map(|(place, _)| *place).collect()
    }

    #[test]
    fn a_plain_prompt_without_names_is_what_the_tokenizer_makes_of_it() {
        for text in ["", "a red apple", &"photo of ".repeat(60), "Ünder, 東京 🦊"] {
            let encoded = CLIP.encode(text).unwrap();
            let plain = plain(&CLIP, text, &style(3)).unwrap();
            assert_eq!((plain.chunk, plain.total, plain.cut), (Chunk::plain(encoded.ids), encoded.total, encoded.cut));
        }
    }

    #[test]
    fn vectors_take_the_place_of_their_name() {
        let plain = plain(&CLIP, "a My-Style, cat", &style(2)).unwrap();
        assert_eq!((plain.chunk.ids[..7].to_vec(), plain.total), (vec![BEGIN, 320, 0, 0, 267, 2368, END], 7));
        let rows: Vec<usize> = plain.chunk.vectors.iter().map(|(_, vector)| vector.row).collect();
        assert_eq!((places(&plain.chunk), rows, plain.cut), (vec![2, 3], vec![0, 1], None));
        let chunks = weighted(&CLIP, &emphasized("a (my-style:1.5) cat").unwrap(), &style(2)).unwrap();
        assert_eq!((places(&chunks[0]), &chunks[0].weights[..5]), (vec![2, 3], &[1.0, 1.0, 1.5, 1.5, 1.0][..]));
    }

    #[test]
    fn a_plain_prompt_is_cut_within_a_name_and_a_weighted_one_before_it() {
        let text = format!("{}my-style dog", "cat ".repeat(74));
        let plain = plain(&CLIP, &text, &style(3)).unwrap();
        assert_eq!((places(&plain.chunk), plain.total, plain.cut), (vec![75], 80, Some(4 * 74)));
        let chunks = weighted(&CLIP, &emphasized(&text).unwrap(), &style(3)).unwrap();
        assert_eq!(chunks.iter().map(places).collect::<Vec<_>>(), [vec![], vec![1, 2, 3]]);
        let told = weighted(&CLIP, &emphasized("my-style").unwrap(), &style(76)).unwrap_err().to_string();
        assert_eq!(
            told,
            "has \"my-style\", whose 76 vectors are more than the 75 tokens that a text encoder reads at once"
        );
    }
}
