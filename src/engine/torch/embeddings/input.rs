//! A chunk of a prompt as a text encoder takes it.

use std::rc::Rc;

use tch::TchError;

use super::file::Embedding;
use crate::engine::prompt::Chunk;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::clip_text::TextInput;

/// The ids of `chunk` at `context`, and vectors of `embeddings` in the places that are theirs, for the text encoder of this number.
pub(in crate::engine::torch) fn text_input(
    chunk: &Chunk,
    encoder: usize,
    embeddings: &[Rc<Embedding>],
    context: &DeviceContext,
) -> Forward<TextInput> {
    let ids = context.upload(&chunk.ids, &[1, chunk.ids.len() as i64])?;
    let mut vectors = Vec::new();
    for (place, id) in &chunk.vectors {
        let vector = embeddings.iter().find_map(|embedding| embedding.vector(id.embedding, encoder, id.row));
        let vector = vector.ok_or_else(|| TchError::Shape("a prompt has a vector of no embedding".into()))??;
        vectors.push((*place as i64, vector));
    }
    Ok(TextInput { ids, vectors })
}
