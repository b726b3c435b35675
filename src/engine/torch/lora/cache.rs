//! A model and what LoRA files make of it: the last few are remembered, and live on in the lanes that draw with them.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::{Model, ModelFamily};
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::offload::Offload;
use crate::engine::torch::weights::state::FileState;
use crate::job::{Code, JobError, Lora};

/// Changed models that are remembered, the one in use among them. The others together have at most as many bytes of their own as the model: of
/// SD 1.5 in f16 one takes up to 1 GB beside the model, of SDXL up to 6 GB.
const MAX_LORAS: usize = 3;

/// A merge that takes longer is worth a word: every job waits for it.
const LONG: Duration = Duration::from_secs(1);

/// Networks by the LoRA that made them, the last used first.
#[derive(Debug)]
pub(in crate::engine::torch) struct LoraCache {
    base: Rc<Networks>,
    /// Of what a LoRA may change.
    model_bytes: usize,
    family: &'static dyn ModelFamily,
    folder: Option<PathBuf>,
    /// Each with the bytes of what it changes.
    known: VecDeque<(Origin, Rc<Networks>, usize)>,
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
        let model_bytes = base.memories().iter().map(|memory| memory.bytes()).sum();
        Self { base, model_bytes, family: model.family, folder: None, known: VecDeque::new(), made: 0 }
    }

    /// The same with LoRA files from `folder`.
    pub(in crate::engine::torch) fn with_folder(self, folder: Option<PathBuf>) -> Self {
        Self { folder, ..self }
    }

    /// What a job with `lora` draws with: the model itself where it has none.
    ///
    /// # Errors
    /// Of the job alone: its file is gone, broken, or for another model, or does not fit into memory.
    pub(in crate::engine::torch) fn choose(
        &mut self,
        lora: Option<&Lora>,
        at: (&DeviceContext, &mut Offload),
    ) -> Result<Rc<Networks>, JobError> {
        // Times nothing it changes nothing, so it needs no copies.
        let Some(lora) = lora.filter(|lora| lora.scale != 0.0) else { return Ok(Rc::clone(&self.base)) };
        let file = format!("{}.safetensors", lora.name);
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(&file)) else {
            return Err(failed(Code::LoraFailed, format!("lora {:?}: lora_dir is not set", lora.name)));
        };
        self.remembered(&path, lora, at).map_err(|cause| {
            // Where the file lies is no concern of a client's.
            let told = cause.to_string().replace(&path.display().to_string(), &file);
            warn!(%cause, "a LoRA cannot be used");
            let code = if cause.is_out_of_memory() { Code::OutOfMemory } else { Code::LoraFailed };
            failed(code, format!("lora {:?}: {}", lora.name, told.lines().next().unwrap_or_default()))
        })
    }

    fn remembered(
        &mut self,
        path: &Path,
        lora: &Lora,
        at: (&DeviceContext, &mut Offload),
    ) -> Result<Rc<Networks>, LoadError> {
        let origin = Origin::of(path, lora)
            .map_err(|cause| LoadError::Path { path: path.to_owned(), reason: cause.to_string() })?;
        let found = self.known.iter().position(|(known, ..)| *known == origin);
        let found = found.and_then(|at| self.known.remove(at));
        self.known.truncate(MAX_LORAS - 1);
        let entry = if let Some(entry) = found {
            entry
        } else {
            let networks = self.merged(path, lora, at)?;
            let bytes = networks.bytes_beside(&self.base);
            (origin, Rc::new(networks), bytes)
        };
        let networks = Rc::clone(&entry.1);
        while self.known.iter().map(|(.., bytes)| bytes).sum::<usize>() > self.model_bytes {
            self.known.pop_back();
        }
        self.known.push_front(entry);
        Ok(networks)
    }

    fn merged(
        &mut self,
        path: &Path,
        lora: &Lora,
        (context, offload): (&DeviceContext, &mut Offload),
    ) -> Result<Networks, LoadError> {
        let began = Instant::now();
        self.made += 1;
        let merge = |this: &Self| this.base.adapted(this.made, this.family, (path, lora.scale), context);
        let networks = loop {
            match merge(self) {
                Err(cause) if cause.is_out_of_memory() && (self.release() || offload.make_room(None)) => {}
                merged => break merged?,
            }
        };
        offload.watch(&networks);
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
        self.known.retain(|(_, networks, _)| Rc::strong_count(networks) > 1);
        self.known.len() < before
    }
}

fn failed(code: Code, message: String) -> JobError {
    JobError { code, message, field: Some("lora".to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use safetensors::tensor::{Dtype, TensorView};
    use tch::Device;

    use super::*;
    use crate::engine::torch::Target;
    use crate::engine::torch::networks::offload::OffloadPlan;

    /// The LoRA of one convolution of the tiny model.
    fn write(path: &Path) {
        let bytes = vec![0; 4 * 4 * 9 * 16];
        let tensor = |shape: &[usize]| {
            let length = 4 * shape.iter().product::<usize>();
            TensorView::new(Dtype::F32, shape.to_vec(), &bytes[..length]).unwrap()
        };
        let tensors = [
            ("lora_unet_conv_in.lora_down.weight", tensor(&[1, 4, 3, 3])),
            ("lora_unet_conv_in.lora_up.weight", tensor(&[16, 1, 1, 1])),
        ];
        safetensors::serialize_to_file(tensors, None, path).unwrap();
    }

    #[test]
    fn of_sets_that_are_large_beside_the_model_fewer_are_remembered() {
        let _guard = tch::no_grad_guard();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch/miniatures/tiny");
        let model = Model::load(&tiny, Path::new("unused"), Target::REFERENCE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("wool.safetensors"));
        let mut cache = LoraCache::new(&model).with_folder(Some(folder.path().to_owned()));
        let context = DeviceContext::plain(Device::Cpu);
        let mut offload = Offload::new(OffloadPlan::Never, context.clone());
        let mut remembered = |cache: &mut LoraCache, scale| {
            let lora = Lora { name: "wool".to_owned(), scale };
            cache.choose(Some(&lora), (&context, &mut offload)).unwrap();
            cache.known.len()
        };
        let counts = [0.1, 0.2, 0.3, 0.4].map(|scale| remembered(&mut cache, scale));
        assert_eq!(counts, [1, 2, 3, 3]);
        let own = cache.known[0].2;
        assert_eq!(own, 4 * 16 * 4 * 9, "the bytes of the convolution alone");
        for (model_bytes, scale, count) in [(2 * own, 0.5, 3), (2 * own - 1, 0.6, 2), (own - 1, 0.7, 1)] {
            cache.model_bytes = model_bytes;
            assert_eq!(remembered(&mut cache, scale), count, "{model_bytes} bytes");
        }
    }
}
