//! A model and what LoRA files make of it: the last few are remembered, and live on in the lanes that draw with them.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tch::Device;
use tracing::{debug, warn};

use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::{Model, ModelFamily};
use crate::engine::torch::networks::Networks;
use crate::engine::torch::weights::state::FileState;
use crate::job::{Code, JobError, Lora};

/// Changed models that are remembered. Of SD 1.5 in f16 one takes up to 1 GB beside the model, of SDXL up to 7 GB.
const MAX_LORAS: usize = 3;

/// A merge that takes longer is worth a word: every job waits for it.
const LONG: Duration = Duration::from_secs(1);

/// Networks by the LoRA that made them, the last used first.
#[derive(Debug)]
pub(in crate::engine::torch) struct LoraCache {
    base: Rc<Networks>,
    family: &'static dyn ModelFamily,
    device: Device,
    folder: Option<PathBuf>,
    known: VecDeque<(Origin, Rc<Networks>)>,
    made: u64,
}

/// Which file, in which state, at which scale.
#[derive(Debug, PartialEq)]
struct Origin {
    name: String,
    scale: f64,
    state: FileState,
}

impl Origin {
    fn of(path: &Path, lora: &Lora) -> io::Result<Self> {
        Ok(Self { name: lora.name.clone(), scale: lora.scale, state: FileState::of(path)? })
    }
}

impl LoraCache {
    /// Those of `model`; without a folder it can only be itself.
    pub(in crate::engine::torch) fn new(model: &Model) -> Self {
        let base = Rc::new(model.networks());
        Self {
            base,
            family: model.family,
            device: model.target().device,
            folder: None,
            known: VecDeque::new(),
            made: 0,
        }
    }

    /// The same with LoRA files from `folder`.
    pub(in crate::engine::torch) fn with_folder(self, folder: Option<PathBuf>) -> Self {
        Self { folder, ..self }
    }

    /// What a job with `lora` draws with: the model itself where it has none.
    ///
    /// # Errors
    /// Of the job alone: its file is gone, broken, or for another model, or does not fit into memory.
    pub(in crate::engine::torch) fn choose(&mut self, lora: Option<&Lora>) -> Result<Rc<Networks>, JobError> {
        // Times nothing it changes nothing, so it needs no copies.
        let Some(lora) = lora.filter(|lora| lora.scale != 0.0) else { return Ok(Rc::clone(&self.base)) };
        let file = format!("{}.safetensors", lora.name);
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(&file)) else {
            return Err(failed(Code::LoraFailed, format!("lora {:?}: lora_dir is not set", lora.name)));
        };
        self.remembered(&path, lora).map_err(|cause| {
            // Where the file lies is no concern of a client's.
            let told = cause.to_string().replace(&path.display().to_string(), &file);
            warn!(%cause, "a LoRA cannot be used");
            let code = if cause.is_out_of_memory() { Code::OutOfMemory } else { Code::LoraFailed };
            failed(code, format!("lora {:?}: {}", lora.name, told.lines().next().unwrap_or_default()))
        })
    }

    fn remembered(&mut self, path: &Path, lora: &Lora) -> Result<Rc<Networks>, LoadError> {
        let origin = Origin::of(path, lora)
            .map_err(|cause| LoadError::Path { path: path.to_owned(), reason: cause.to_string() })?;
        let found = self.known.iter().position(|(known, _)| *known == origin);
        let found = found.and_then(|at| self.known.remove(at));
        self.known.truncate(MAX_LORAS - 1);
        let entry = match found {
            Some(entry) => entry,
            None => (origin, Rc::new(self.merged(path, lora)?)),
        };
        let networks = Rc::clone(&entry.1);
        self.known.push_front(entry);
        Ok(networks)
    }

    fn merged(&mut self, path: &Path, lora: &Lora) -> Result<Networks, LoadError> {
        let began = Instant::now();
        self.made += 1;
        let merge = |this: &Self| this.base.adapted(this.made, this.family, (path, lora.scale), this.device);
        let networks = match merge(self) {
            Err(cause) if cause.is_out_of_memory() && self.release() => merge(self),
            merged => merged,
        }?;
        let (lora, ms) = (&lora.name, began.elapsed().as_millis() as u64);
        if began.elapsed() > LONG {
            warn!(lora, ms, "merging a LoRA took long, and every job waited for it");
        } else {
            debug!(lora, ms, "LoRA merged");
        }
        Ok(networks)
    }

    /// Forgets what no lane draws with; whether there was any.
    pub(in crate::engine::torch) fn release(&mut self) -> bool {
        let before = self.known.len();
        self.known.retain(|(_, networks)| Rc::strong_count(networks) > 1);
        self.known.len() < before
    }
}

fn failed(code: Code, message: String) -> JobError {
    JobError { code, message, field: Some("lora".to_owned()) }
}
