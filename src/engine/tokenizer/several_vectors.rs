//! Textual inversions of several vectors in a model's folder: `<t>` in a prompt means `<t> <t>_1 <t>_2` (diffusers' `maybe_convert_prompt`).

use std::collections::HashMap;

use tokenizers::Tokenizer as LibraryTokenizer;

/// Added tokens that others go with.
#[derive(Debug, Default)]
pub(super) struct SeveralVectors {
    /// By its id a token's text, and the ids of those that go with it.
    known: HashMap<u32, (String, Vec<u32>)>,
}

impl SeveralVectors {
    /// Those of `pipeline`.
    pub(super) fn of(pipeline: &LibraryTokenizer) -> Self {
        let added = pipeline.get_added_tokens_decoder();
        let ids: HashMap<&str, u32> = added.iter().map(|(id, token)| (token.content.as_str(), *id)).collect();
        let further = |text: &str| -> Vec<u32> {
            (1..).map_while(|number| ids.get(format!("{text}_{number}").as_str()).copied()).collect()
        };
        let known = ids.iter().map(|(text, id)| (*id, ((*text).to_owned(), further(text))));
        Self { known: known.filter(|(_, (_, further))| !further.is_empty()).collect() }
    }

    /// What goes with token `id`, which was `written` like this, before the token `next`. As in diffusers only the token's own case has all of its
    /// vectors.
    pub(super) fn further(&self, id: u32, written: &str, next: Option<u32>) -> &[u32] {
        match self.known.get(&id) {
            Some((text, further)) if text == written.trim() && next != further.first().copied() => further,
            _ => &[],
        }
    }
}
