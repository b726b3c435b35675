//! The vectors of one name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tch::{Kind, Tensor};

use crate::engine::prompt::NamedEmbedding;
use crate::engine::torch::error::{Forward, LoadError};
use crate::engine::torch::weights::files::Weights;

/// Of each text encoder of a family what files call its vectors, the likeliest first.
pub(in crate::engine::torch) type EncoderKeys = &'static [&'static [&'static str]];

/// Numbers that were given away.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// Vectors in the place of a name.
#[derive(Debug)]
pub(in crate::engine::torch) struct Embedding {
    name: String,
    number: u64,
    /// `[vectors, width]` in f32, for each text encoder.
    vectors: Vec<Tensor>,
}

impl PartialEq for Embedding {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Embedding {
    /// That of `name`, whose tensors in `weights` begin with `prefix`; `keys` and `widths` are those of a model's text encoders.
    pub(in crate::engine::torch) fn read(
        name: &str,
        (weights, prefix): (&Weights, &str),
        keys: EncoderKeys,
        widths: &[i64],
    ) -> Result<Self, LoadError> {
        let fault = |reason: String| LoadError::Path { path: weights.path().to_owned(), reason };
        let shapes: HashMap<String, Vec<usize>> =
            weights.shapes().filter(|(name, _)| name.starts_with(prefix)).collect();
        let mut vectors: Vec<Tensor> = Vec::new();
        for (keys, width) in keys.iter().zip(widths) {
            let named = keys.iter().map(|key| format!("{prefix}{key}")).find(|name| shapes.contains_key(name));
            // What diffusers writes for a single encoder has the token's own name.
            let sole = shapes.keys().next().filter(|_| widths.len() == 1 && shapes.len() == 1).cloned();
            let Some(tensor) = named.or(sole) else {
                return Err(fault(format!("it holds no {}, which this model takes", keys.join(" or "))));
            };
            let shape: Vec<i64> = shapes[&tensor].iter().map(|&n| n as i64).collect();
            let (count, found) = match shape[..] {
                [found] => (1, found),
                [count, found] if count > 0 => (count, found),
                _ => return Err(fault(format!("tensor {tensor} of shape {shape:?} is no list of vectors"))),
            };
            if found != *width {
                let reason =
                    format!("tensor {tensor} has vectors {found} wide, and this model's text encoder takes {width}");
                return Err(fault(reason));
            }
            // A copy: what is read in place goes with the file.
            let held = weights.root(Kind::Float).tensor(&tensor, &shape)?.f_to_dtype(Kind::Float, false, true)?;
            let held = held.f_reshape([count, found])?;
            if !f64::try_from(held.f_sum(Kind::Float)?)?.is_finite() {
                return Err(fault(format!("tensor {tensor} holds no finite numbers")));
            }
            vectors.push(held);
        }
        let counts: Vec<i64> = vectors.iter().map(|vectors| vectors.size()[0]).collect();
        if counts.iter().any(|count| *count != counts[0]) {
            return Err(fault(format!("its text encoders have different numbers of vectors, {counts:?}")));
        }
        Ok(Self { name: name.to_owned(), number: GIVEN.fetch_add(1, Ordering::Relaxed), vectors })
    }

    /// What prompts call it, and how long it is.
    pub(in crate::engine::torch) fn named(&self) -> NamedEmbedding {
        let vectors = self.vectors.first().map_or(0, |vectors| vectors.size()[0] as usize);
        NamedEmbedding { name: self.name.clone(), number: self.number, vectors }
    }

    /// What prompts call it.
    pub(in crate::engine::torch) fn name(&self) -> &str {
        &self.name
    }

    /// Vector `row` for a text encoder, `[width]`; `None` if this is not embedding `number`.
    pub(super) fn vector(&self, number: u64, encoder: usize, row: usize) -> Option<Forward> {
        let vectors = self.vectors.get(encoder).filter(|_| self.number == number)?;
        Some(vectors.f_select(0, row as i64))
    }
}
