//! The part of the configuration that is about NVIDIA GPUs.

use std::path::PathBuf;

use super::{Reader, environment};

/// How a GPU is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuda {
    /// Whether evaluations are recorded and replayed.
    pub graphs: bool,
    /// Whether kernels of our own are used.
    pub kernels: bool,
    /// The helper library; `None` is the one that is found.
    pub helper: Option<PathBuf>,
    /// Where it is looked for beside libtorch's folder.
    pub folders: Vec<PathBuf>,
}

impl Reader {
    pub(super) fn cuda(&mut self) -> Option<Cuda> {
        let (graphs, kernels) = (self.read("cuda.graphs"), self.read("cuda.kernels"));
        let helper = self.read::<String>("cuda.helper");
        let helper = Some(helper?).filter(|path| path != "auto").map(PathBuf::from);
        Some(Cuda { graphs: graphs?, kernels: kernels?, helper, folders: environment::program_folders() })
    }
}
