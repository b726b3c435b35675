//! What a misspelt name was probably meant to be.

use strsim::damerau_levenshtein;

/// Bytes of a word that is compared: a client can send any.
const WORD_BYTES: usize = 64;

/// The first of the `known` names that are most like `word`, without regard to case. `None` if none is: of eight letters two may differ, of
/// fewer one in four.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES {
        return None;
    }
    let lower = word.to_lowercase();
    let allowed = (lower.chars().count() / 4).min(2);
    let near = known.into_iter().map(|name| (damerau_levenshtein(&lower, &name.to_lowercase()), name));
    let (_, name) = near.filter(|(distance, _)| *distance <= allowed).min_by_key(|(distance, _)| *distance)?;
    (name != word).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_no_other() {
        let known = ["prompt", "width", "num_inference_steps", "K-LMS", "DDIM", "DDPM"];
        for (word, meant) in [
            ("promt", Some("prompt")),
            ("Prompt", Some("prompt")),
            ("widht", Some("width")),
            ("num_inferance_step", Some("num_inference_steps")),
            ("k-lms", Some("K-LMS")),
            ("ddmi", Some("DDIM")),
            ("DDIM", None),
            ("bogus", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(suggest(word, known), meant, "{word}");
        }
        assert_eq!(suggest(&"prompt".repeat(1000), known), None);
    }
}
