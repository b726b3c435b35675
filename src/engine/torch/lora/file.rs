//! One LoRA file: found in order, it gives the change of each weight, and refuses what it has beyond that.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;

use tch::Kind;

use super::names::{LoraPart, Spelling};
use super::peft::{self, PeftMetadata};
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::embeddings::{Embedding, EncoderKeys};
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::ModelFamily;
use crate::engine::torch::nn::LowRank;
use crate::engine::torch::weights::files::Weights;

/// No usual LoRA comes near it: of SDXL, the transformers of the UNet at rank 256 in f32 have 2.7 GB.
const LARGEST: u64 = 4 << 30;

/// What is in tensors' names of other methods, and of families whose prefixes these are, and what to call it.
const UNSUPPORTED: [(&str, &str); 10] = [
    (".dora_scale", "DoRA"),
    (".lora_magnitude_vector", "DoRA"),
    (".hada_", "LoHa"),
    (".lokr_", "LoKr"),
    (".lora_mid.", "LoCon with a core tensor"),
    (".oft_", "OFT"),
    ("lora_te_", "LoRA for SD v1"),
    ("lora_te1_", "LoRA for SDXL"),
    ("lora_te2_", "LoRA for SDXL"),
    ("text_encoder_2.", "LoRA for SDXL"),
];

/// What names of textual inversions' tensors begin with.
const BUNDLED: &str = "bundle_emb.";

/// A file whose header was checked.
pub(super) struct LoraFile {
    weights: Weights,
    shapes: HashMap<String, Vec<usize>>,
    metadata: PeftMetadata,
}

impl LoraFile {
    /// Reads `path`, which is for models of `family`; its tensors will be given in f32 at `context`.
    pub(super) fn open(path: &Path, family: &dyn ModelFamily, context: &DeviceContext) -> Result<Self, LoadError> {
        let weights = Weights::read(path, LARGEST, context)?;
        let shapes: HashMap<_, _> = weights.shapes().collect();
        let fault = |reason: String| LoadError::Path { path: path.to_owned(), reason };
        if shapes.is_empty() {
            return Err(fault("it holds no tensor".to_owned()));
        }
        let prefixes = family.lora_prefixes();
        let ours = |mark: &str| prefixes.text_encoders.iter().any(|one| one.has(mark));
        for (mark, kind) in UNSUPPORTED.iter().filter(|(mark, _)| !ours(mark)) {
            if let Some(tensor) = shapes.keys().filter(|name| name.contains(*mark)).min() {
                let family = family.family();
                return Err(fault(format!("tensor {tensor} is one of {kind}; only LoRA for {family} is supported")));
            }
        }
        let metadata =
            weights.header_metadata(peft::KEY).map(PeftMetadata::read).transpose().map_err(fault)?.unwrap_or_default();
        Ok(Self { weights, shapes, metadata })
    }

    /// What `module`'s weight of `shape` changes by at `scale`; `None` where the file leaves it alone.
    pub(super) fn change(
        &self,
        part: &LoraPart,
        module: &str,
        shape: &[i64],
        scale: f64,
    ) -> Result<Option<LowRank>, LoadError> {
        let mut spellings = part.spellings(module).into_iter();
        let held = |name: &String| self.shapes.contains_key(name);
        let Some(spelling) = spellings.find(|one| held(&one.down) || held(&one.up) || held(&one.alpha)) else {
            return Ok(None);
        };
        let rank = self.rank(&spelling);
        let root = self.weights.root(Kind::Float);
        let down = root.tensor(&spelling.down, &[&[rank], &shape[1..]].concat())?;
        let up = root.tensor(&spelling.up, &[shape[0], rank])?;
        // One question for both, because asking a GPU means waiting for it.
        if !f64::try_from(down.f_sum(Kind::Float)?.f_add(&up.f_sum(Kind::Float)?)?)?.is_finite() {
            return Err(self.fault(format!("tensors {} and {} hold no finite numbers", spelling.down, spelling.up)));
        }
        let strength = scale * self.strength(part, module, &spelling, rank as f64)?;
        Ok(Some(LowRank { up: up.f_mul_scalar(strength)?, down }))
    }

    /// The first size of `down`; 1, which any tensor missing or without a size will be told against, if there is none.
    fn rank(&self, spelling: &Spelling) -> i64 {
        let size = |name: &str, dimension: usize| self.shapes.get(name)?.get(dimension).copied();
        size(&spelling.down, 0).or(size(&spelling.up, 1)).unwrap_or(1).max(1) as i64
    }

    fn strength(&self, part: &LoraPart, module: &str, spelling: &Spelling, rank: f64) -> Result<f64, LoadError> {
        if !self.shapes.contains_key(&spelling.alpha) {
            return self.metadata.strength(part.name(), module, rank).map_err(|reason| self.fault(reason));
        }
        let alpha = f64::try_from(self.weights.root(Kind::Float).tensor(&spelling.alpha, &[])?)?;
        if !alpha.is_finite() {
            return Err(self.fault(format!("tensor {} is {alpha}", spelling.alpha)));
        }
        Ok(alpha / rank)
    }

    /// The textual inversions that were trained with it, which lie beside it as `bundle_emb.NAME.TENSOR`.
    pub(super) fn embeddings(&self, keys: EncoderKeys, widths: &[i64]) -> Result<Vec<Rc<Embedding>>, LoadError> {
        let tensors = self.shapes.keys().filter_map(|tensor| tensor.strip_prefix(BUNDLED));
        // A name may have dots, and so has one of the tensors' names.
        let name = |tensor: &str| {
            keys.iter()
                .copied()
                .flatten()
                .find_map(|key| tensor.strip_suffix(key)?.strip_suffix('.').map(str::to_owned))
        };
        let names: BTreeSet<String> = tensors.filter_map(name).collect();
        let read = |name: &String| {
            Embedding::read(name, (&self.weights, &format!("{BUNDLED}{name}.")), keys, widths).map(Rc::new)
        };
        names.iter().map(read).collect()
    }

    /// Refuses a file that has more than was asked for.
    pub(super) fn finish(self) -> Result<(), LoadError> {
        self.weights.finish(|_| false).map(drop)
    }

    fn fault(&self, reason: String) -> LoadError {
        LoadError::Path { path: self.weights.path().to_owned(), reason }
    }
}
