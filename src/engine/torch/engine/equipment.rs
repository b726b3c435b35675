//! What an engine makes use of where it is there: a GPU's streams and graphs, LoRA files, a pace of previews.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tracing::warn;

use super::warm_up_plan::WarmUp;
use super::{TorchEngine, offload};
use crate::config;
use crate::engine::torch::decode::preview::PreviewPace;
use crate::engine::torch::decode::queue::DecodeQueue;
use crate::engine::torch::denoise::graphs::Graphs;
use crate::engine::torch::device::async_work::{AsyncDecoder, GraphCapture};
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::cuda::{Gpu, Usage};
use crate::engine::torch::device::target::Target;
use crate::engine::torch::device::threads::Threads;
use crate::engine::torch::embeddings::EmbeddingLibrary;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::{Model, Refiner};
use crate::engine::torch::networks::offload::{Offload, OffloadPlan};
use crate::job::Size;

impl TorchEngine {
    /// The same with LoRA files from `folder`.
    #[must_use]
    pub fn with_loras(self, folder: Option<PathBuf>) -> Self {
        Self { loras: self.loras.with_folder(folder), ..self }
    }

    /// The same with files of textual inversions from `folder`.
    #[must_use]
    pub fn with_embeddings(self, folder: Option<PathBuf>) -> Self {
        Self { embeddings: EmbeddingLibrary::new(folder, self.context.clone()), ..self }
    }

    /// The same with the refiner at `path`, which goes on with what the model has made of jobs that ask for it, and draws from images.
    ///
    /// # Errors
    /// As for [`Model::load`]; or it is no refiner, or none that fits the model.
    pub fn with_refiner(self, path: &Path, clip_tokenizer: &Path) -> Result<Self, LoadError> {
        let refiner = Refiner::load_to(&self.context, path, clip_tokenizer, &self.model)?;
        let mut offload = self.offload;
        offload.watch(&refiner.networks);
        Ok(Self { refiner: Some(refiner), offload, ..self })
    }

    /// The same with parts that may leave a GPU without memory for all of them.
    fn with_offload(self, plan: OffloadPlan) -> Self {
        let mut offload = Offload::new(plan, self.context.clone());
        offload.watch_autoencoder(&self.model.vae);
        offload.watch(&self.model.networks());
        Self { offload, ..self }
    }

    /// The same with previews at this pace.
    #[must_use]
    pub fn with_previews(self, previews: PreviewPace) -> Self {
        Self { previews, ..self }
    }

    /// The same with as many threads as go fastest beside what else the machine does, if it is on the CPU.
    #[must_use]
    pub fn with_threads_that_suit(self) -> Self {
        let threads = self.model.target.is_cpu().then(Threads::new);
        Self { threads, ..self }
    }

    /// The same with so many rows in an evaluation at the usual size of its family, or, where none are given, as many as memory and what is
    /// measured allow; made ready in idle time for pictures of `sizes`, width and height, or of the usual one.
    #[must_use]
    pub fn with_warm_up(self, sizes: Option<&[(u32, u32)]>, rows: Option<usize>) -> Self {
        let sizes: Vec<Size> = match sizes {
            Some(sizes) => sizes.iter().map(|&(width, height)| Size { width, height }).collect(),
            None => vec![self.model.usual_size()],
        };
        let models = (self.usual_area, self.refiner.is_some());
        let warm_up = WarmUp::new(&sizes, rows, models, |size| self.latent_area(size));
        let most_pixels = rows.map_or(self.most_pixels, |rows| rows.saturating_mul(self.usual_area));
        Self { most_pixels, warm_up, ..self }
    }

    /// The same with evaluations that `capture` records and replays.
    #[must_use]
    pub fn with_graphs(self, capture: Box<dyn GraphCapture>) -> Self {
        let graphs = Some(Graphs::new(capture));
        Self { graphs, ..self }
    }

    /// The same with pictures that `decoder` decodes.
    #[must_use]
    pub fn with_decoder(self, decoder: Box<dyn AsyncDecoder>) -> Self {
        Self { decodes: DecodeQueue::by(decoder), ..self }
    }

    /// Counts what it makes use of on its GPU, if it is on one and the CUDA helper is there.
    pub fn usage(&self) -> Option<Arc<Usage>> {
        self.context.usage()
    }

    /// An engine on the model at `path`, as [`Model::load`] has it, and the refiner at another; if `target` is a GPU, as [`Self::with_cuda`]
    /// has it, and its weights come there by way of pinned memory.
    ///
    /// # Errors
    /// As for [`Model::load`]; or the first is a refiner, or the other none that fits.
    pub fn load(
        (path, refiner): (&Path, Option<&Path>),
        clip_tokenizer: &Path,
        target: Target,
        settings: &config::CudaConfig,
    ) -> Result<Self, LoadError> {
        let gpu = open(settings, target);
        let offload = offload::plan(settings.offload, target, [Some(path), refiner].into_iter().flatten())?;
        let may_offload = offload == OffloadPlan::WhenMemoryRunsOut;
        let loaded = Self::load_as(offload, (path, refiner), clip_tokenizer, (target, gpu.clone()), settings);
        let lanes = match loaded {
            Err(cause) if cause.is_out_of_memory() && may_offload => {
                let offload = OffloadPlan::Now;
                Self::load_as(offload, (path, refiner), clip_tokenizer, (target, gpu), settings)?
            }
            loaded => loaded?,
        };
        Ok(if target.is_cpu() { lanes } else { lanes.with_warm_up(settings.warm_up.as_deref(), settings.rows) })
    }

    fn load_as(
        offload: OffloadPlan,
        (path, refiner): (&Path, Option<&Path>),
        clip_tokenizer: &Path,
        (target, gpu): (Target, Option<Rc<Gpu>>),
        settings: &config::CudaConfig,
    ) -> Result<Self, LoadError> {
        let context = context(gpu.as_ref(), target);
        let context = if offload == OffloadPlan::Now { context.with_offload() } else { context };
        let model = Model::load_to(&context, path, clip_tokenizer, target)?;
        if model.family.family().is_refiner() {
            let reason = "this is a refiner, which draws after a base model: set that as model, and this as refiner";
            return Err(LoadError::Path { path: path.to_owned(), reason: reason.to_owned() });
        }
        let lanes = Self { context, ..Self::new(model) }.with_offload(offload);
        let lanes = match refiner {
            Some(path) => lanes.with_refiner(path, clip_tokenizer)?,
            None => lanes,
        };
        Ok(lanes.on(gpu, settings))
    }

    /// The same, and if it is on a GPU, on streams of its own, one for evaluations and one for pictures, with CUDA graphs if `settings` say
    /// so. Where the helper is not to be had the log says so, and all goes on without. Whoever calls this must stay on this thread.
    #[must_use]
    pub fn with_cuda(self, settings: &config::CudaConfig) -> Self {
        let gpu = open(settings, self.model.target);
        let context = context(gpu.as_ref(), self.model.target);
        Self { context, ..self }.on(gpu, settings)
    }

    fn on(self, gpu: Option<Rc<Gpu>>, settings: &config::CudaConfig) -> Self {
        let Some(gpu) = gpu else { return self };
        let lanes = self.with_decoder(Box::new(Rc::clone(&gpu)));
        if settings.graphs { lanes.with_graphs(Box::new(gpu)) } else { lanes }
    }
}

/// The GPU of `target`, if it is one and the helper is there.
fn open(settings: &config::CudaConfig, target: Target) -> Option<Rc<Gpu>> {
    match Gpu::open(settings, target) {
        Ok(gpu) => gpu.map(Rc::new),
        Err(cause) => {
            warn!(%cause, "no CUDA graphs and kernels: pictures are the same, and slower");
            None
        }
    }
}

fn context(gpu: Option<&Rc<Gpu>>, target: Target) -> DeviceContext {
    gpu.map_or_else(|| DeviceContext::plain(target.device), |gpu| DeviceContext::on(Rc::clone(gpu), target.device))
}
