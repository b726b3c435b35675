//! Textual inversions (Gal et al. 2022): vectors that stand for names in prompts, from files.

mod file;
mod input;
mod library;

pub(in crate::engine::torch) use file::{Embedding, EncoderKeys};
pub(in crate::engine::torch) use input::text_input;
pub(in crate::engine::torch) use library::EmbeddingLibrary;
