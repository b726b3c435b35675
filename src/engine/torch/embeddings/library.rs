//! The operator's folder of embeddings.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tch::Device;
use tracing::warn;

use super::file::{Embedding, EncoderKeys};
use crate::engine::prompt::named;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::files::Weights;
use crate::engine::torch::weights::state::FileState;
use crate::job::{Code, JobError};

/// Bytes of a file: of SDXL, 75 vectors for both text encoders have less than 1 MB.
const MOST_BYTES: u64 = 64 << 20;

/// Embeddings that are remembered.
const MOST: usize = 64;

/// Names of tensors that are no name of an embedding.
const TENSOR_NAMES: [&str; 4] = ["emb_params", "string_to_param.*", "clip_l", "clip_g"];

/// The files of a folder, and what was read of them.
#[derive(Debug)]
pub(in crate::engine::torch) struct EmbeddingLibrary {
    folder: Option<PathBuf>,
    context: DeviceContext,
    /// What the folder was when it was listed.
    listed: Option<FileState>,
    /// What prompts may call them.
    names: Vec<(String, PathBuf)>,
    /// The last used first.
    known: VecDeque<(Origin, Rc<Embedding>)>,
}

/// Which file, in which state, for which text encoders.
#[derive(Debug, PartialEq)]
struct Origin {
    path: PathBuf,
    state: FileState,
    widths: Vec<i64>,
    keys: EncoderKeys,
}

impl EmbeddingLibrary {
    /// Those of `folder`, to be used at `context`; without a folder there are none.
    pub(in crate::engine::torch) fn new(folder: Option<PathBuf>, context: DeviceContext) -> Self {
        Self { folder, context, listed: None, names: Vec::new(), known: VecDeque::new() }
    }

    /// The embeddings that `texts` name, those that are `bundled` with a LoRA before others of the same name; `keys` and `widths` are those of
    /// the text encoders.
    ///
    /// # Errors
    /// One is named that cannot be used with them.
    pub(in crate::engine::torch) fn used(
        &mut self,
        texts: &[&str],
        bundled: &[Rc<Embedding>],
        (keys, widths): (EncoderKeys, &[i64]),
    ) -> Result<Vec<Rc<Embedding>>, JobError> {
        self.list();
        let names: Vec<&str> =
            bundled.iter().map(|one| one.name()).chain(self.names.iter().map(|(name, _)| name.as_str())).collect();
        let mut found: Vec<usize> = texts.iter().flat_map(|text| named(text, &names)).collect();
        found.sort_unstable();
        found.dedup();
        let mut used = Vec::new();
        for number in found {
            used.push(if let Some(embedding) = bundled.get(number) {
                Rc::clone(embedding)
            } else {
                let (name, path) = self.names[number - bundled.len()].clone();
                self.remembered(&name, &path, (keys, widths)).map_err(|cause| failed(&name, &path, &cause))?
            });
        }
        Ok(used)
    }

    fn remembered(
        &mut self,
        name: &str,
        path: &Path,
        (keys, widths): (EncoderKeys, &[i64]),
    ) -> Result<Rc<Embedding>, LoadError> {
        let state = FileState::of(path)
            .map_err(|cause| LoadError::Path { path: path.to_owned(), reason: cause.to_string() })?;
        let origin = Origin { path: path.to_owned(), state, widths: widths.to_vec(), keys };
        let found = self.known.iter().position(|(known, one)| *known == origin && one.name() == name);
        let entry = if let Some(entry) = found.and_then(|at| self.known.remove(at)) {
            entry
        } else {
            let weights = Weights::read(path, MOST_BYTES, &self.context)?;
            (origin, Rc::new(Embedding::read(name, (&weights, ""), keys, widths)?))
        };
        let embedding = Rc::clone(&entry.1);
        self.known.push_front(entry);
        self.known.truncate(MOST);
        Ok(embedding)
    }

    /// Lists the folder, if it has changed since.
    fn list(&mut self) {
        let Some(folder) = &self.folder else { return };
        let state = FileState::of(folder).ok();
        if state.is_some() && state == self.listed {
            return;
        }
        self.listed = state;
        self.names = names(folder).unwrap_or_else(|cause| {
            warn!(%cause, "embeddings_dir cannot be read");
            Vec::new()
        });
    }
}

/// What prompts may call the `.safetensors` files of `folder`: each by its name without that ending and, as diffusers writes them, by its one
/// tensor's.
fn names(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let mut names = Vec::new();
    for path in paths {
        let stem = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".safetensors"));
        let Some(stem) = stem.filter(|stem| !stem.is_empty() && path.is_file()) else { continue };
        names.push((stem.to_owned(), path.clone()));
        // What is wrong with a file is told to who names it.
        if let Ok(weights) = Weights::read(&path, MOST_BYTES, &DeviceContext::plain(Device::Cpu)) {
            let tensors: Vec<String> = weights.shapes().map(|(name, _)| name).collect();
            if let [token] = tensors.as_slice()
                && !TENSOR_NAMES.contains(&token.as_str())
                && token != stem
            {
                names.push((token.clone(), path));
            }
        }
    }
    Ok(names)
}

fn failed(name: &str, path: &Path, cause: &LoadError) -> JobError {
    warn!(%cause, "an embedding cannot be used");
    // Where the file lies is no concern of a client's.
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let told = cause.to_string().replace(&path.display().to_string(), &file);
    let message = format!("embedding {name:?}: {}", told.lines().next().unwrap_or_default());
    let code = if cause.is_out_of_memory() { Code::OutOfMemory } else { Code::EmbeddingFailed };
    JobError { code, message, field: None }
}
