//! What an engine makes use of where it is there: a GPU's streams and graphs, LoRA files, a pace of previews.

use std::path::PathBuf;
use std::rc::Rc;

use tracing::warn;

use super::Lanes;
use crate::config;
use crate::engine::torch::cuda::Gpu;
use crate::engine::torch::developing::{Darkroom, Developing};
use crate::engine::torch::graphs::{Graphs, Recorder};
use crate::engine::torch::place::Place;
use crate::engine::torch::preview::Pace;
use crate::engine::torch::threads::Threads;

impl Lanes {
    /// The same with LoRA files from `folder`.
    #[must_use]
    pub fn with_loras(self, folder: Option<PathBuf>) -> Self {
        Self { adapters: self.adapters.with_folder(folder), ..self }
    }

    /// The same with previews at this pace.
    #[must_use]
    pub fn with_previews(self, previews: Pace) -> Self {
        Self { previews, ..self }
    }

    /// The same with as many threads as go fastest beside what else the machine does, if it is on the processor.
    #[must_use]
    pub fn with_threads_that_suit(self) -> Self {
        let threads = self.model.target.is_cpu().then(Threads::new);
        Self { threads, ..self }
    }

    /// The same with evaluations that `recorder` records and replays.
    #[must_use]
    pub fn with_graphs(self, recorder: Box<dyn Recorder>) -> Self {
        let graphs = Some(Graphs::new(recorder, self.model.target));
        Self { graphs, ..self }
    }

    /// The same with pictures that `darkroom` develops.
    #[must_use]
    pub fn with_darkroom(self, darkroom: Box<dyn Darkroom>) -> Self {
        Self { developing: Developing::by(darkroom), ..self }
    }

    /// The same, and if it is on a GPU, on streams of its own, one for evaluations and one for pictures, with CUDA graphs if `settings` say
    /// so. Where the helper is not to be had the log says so, and all goes on without. Whoever calls this must stay on this thread.
    #[must_use]
    pub fn with_cuda(self, settings: &config::Cuda) -> Self {
        let target = self.model.target;
        match Gpu::open(settings, target) {
            Ok(None) => self,
            Ok(Some(gpu)) => {
                let gpu = Rc::new(gpu);
                let place = Place::on(Rc::clone(&gpu), target.device);
                let lanes = Self { place, ..self.with_darkroom(Box::new(Rc::clone(&gpu))) };
                if settings.graphs { lanes.with_graphs(Box::new(gpu)) } else { lanes }
            }
            Err(cause) => {
                warn!(%cause, "no CUDA graphs and kernels: pictures are the same, and slower");
                self
            }
        }
    }
}
