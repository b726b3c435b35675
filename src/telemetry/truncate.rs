//! Log lines have an end.

use std::borrow::Cow;

/// Characters of a message; as in the RunPod SDK, whose readers may cut what is longer in worse places.
const MAX_CHARACTERS: usize = 4096;

/// `text`, or its beginning and end around how much was left out.
pub(super) fn truncate(text: &str) -> Cow<'_, str> {
    // No text has more characters than bytes.
    let characters = if text.len() > MAX_CHARACTERS { text.chars().count() } else { 0 };
    if characters <= MAX_CHARACTERS {
        return text.into();
    }
    let at = |character: usize| text.char_indices().nth(character).map_or(text.len(), |(byte, _)| byte);
    let (start, end) = (&text[..at(MAX_CHARACTERS / 2)], &text[at(characters - MAX_CHARACTERS / 2)..]);
    format!("{start}\n...TRUNCATED {} CHARACTERS...\n{end}", characters - MAX_CHARACTERS).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_keeps_its_beginning_and_its_end() {
        for fits in ["", "a", &"é".repeat(4096)] {
            assert_eq!(truncate(fits), fits);
        }
        let long = format!("{}{}{}", "a".repeat(2048), "é".repeat(3), "z".repeat(2048));
        let expected = format!("{}\n...TRUNCATED 3 CHARACTERS...\n{}", "a".repeat(2048), "z".repeat(2048));
        assert_eq!(truncate(&long), expected);
    }
}
