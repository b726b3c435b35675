//! What a GPU can do beyond libtorch's C interface: capture an evaluation as a CUDA graph, take numbers and weights without being waited for,
//! decode pictures beside the evaluations.

pub(in crate::engine::torch) mod attention;
mod decode_stream;
mod helper;
pub(in crate::engine::torch) mod kernels;
mod pinned_chunks;
mod pinned_upload;
mod usage;

pub use helper::{Helper, HelperError};
pub use usage::{Usage, Used};

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tracing::{debug, warn};

use self::attention::Attention;
use self::helper::{CudaEvent, CudaGraph, MemoryPool, Stream};
use self::kernels::KernelsInUse;
use self::pinned_chunks::PinnedChunks;
use super::async_work::{CapturedGraph, Evaluation, GraphCapture};
use super::target::Target;
use crate::config;
use crate::engine::torch::error::Forward;

/// A GPU on a stream of which this thread works.
#[derive(Debug)]
pub struct Gpu {
    helper: Rc<Helper>,
    stream: Stream,
    /// For pictures.
    decode_stream: Stream,
    /// What its graphs share, for as long as there is one: libtorch takes no more into a pool that all have left.
    pool: RefCell<Weak<MemoryPool>>,
    /// Ends of the last two evaluations, the even one and the odd one.
    ends: [CudaEvent; 2],
    evaluations: Cell<usize>,
    /// Chunks of weights on their way.
    chunks: RefCell<PinnedChunks<CudaEvent>>,
    usage: Arc<Usage>,
    /// What this thread's modules use until this goes.
    _in_use: (Option<KernelsInUse>, Option<attention::AttentionInUse>),
}

impl Gpu {
    /// Opens the helper and has this thread work on a stream of its own; `None` on the CPU. If `target` is in f32, all of the
    /// process multiplies f32 from then on, and not TF32.
    ///
    /// # Errors
    /// There is no helper, or CUDA's own.
    pub fn open(settings: &config::CudaConfig, target: Target) -> Result<Option<Self>, HelperError> {
        let Device::Cuda(number) = target.device else { return Ok(None) };
        let helper = Helper::open(settings)?;
        Self::enter(&helper, number, target.kind, settings).map(Some).map_err(|cause| {
            // CUDA's own text goes on with where to read more.
            let reason = cause.to_string().lines().next().unwrap_or_default().to_owned();
            HelperError::Unusable { path: helper.path().to_owned(), reason }
        })
    }

    fn enter(helper: &Rc<Helper>, number: usize, kind: Kind, settings: &config::CudaConfig) -> Forward<Self> {
        if kind == Kind::Float {
            helper.exact()?;
        }
        let stream = Stream::enter(helper, number)?;
        let decode_stream = stream.sibling()?;
        let ends = [CudaEvent::new(helper)?, CudaEvent::new(helper)?];
        let usage = Arc::default();
        let attention = Attention::install(helper, &stream, settings.attention);
        let kernels = settings.kernels.then(|| install(helper, Device::Cuda(number), kind, &usage)).flatten();
        let (pool, evaluations, chunks) = (RefCell::default(), Cell::new(0), RefCell::default());
        Ok(Self {
            helper: Rc::clone(helper),
            stream,
            decode_stream,
            pool,
            ends,
            evaluations,
            chunks,
            usage,
            _in_use: (kernels, attention),
        })
    }

    /// An evaluation has been given to the GPU: waits until the one before it is done.
    pub(in crate::engine::torch) fn throttle(&self) -> Forward<()> {
        self.usage.evaluated();
        let this = self.evaluations.get() % 2;
        self.ends[this].record(&self.stream)?;
        self.evaluations.set(this + 1);
        self.ends[1 - this].synchronize()
    }

    /// Counts what is made use of.
    pub(in crate::engine::torch) fn usage(&self) -> Arc<Usage> {
        Arc::clone(&self.usage)
    }

    /// Gives back memory that no tensor uses.
    pub(in crate::engine::torch) fn trim(&self) {
        if let Err(cause) = self.helper.trim() {
            debug!(%cause, "memory of a GPU is not given back yet");
        }
    }

    /// Waits until the last evaluation is done.
    pub(in crate::engine::torch) fn synchronize(&self) -> Forward<()> {
        self.ends[(self.evaluations.get() + 1) % 2].synchronize()
    }
}

/// Has this thread use the helper's kernels, if there are any and they compute what they should.
fn install(helper: &Helper, device: Device, kind: Kind, usage: &Arc<Usage>) -> Option<KernelsInUse> {
    let Some(kernels) = helper.kernels(device) else {
        warn!(
            "the CUDA helper was built without kernels, and libtorch's operators take longer: scripts/setup-cuda-helper --kernels"
        );
        return None;
    };
    match kernels.deviation(kind) {
        Ok(deviation) if deviation <= 1.0 => return Some(kernels.counted(usage).install()),
        Ok(deviation) => warn!(
            deviation,
            "kernels compute something else than libtorch's operators, and stay unused; please report this"
        ),
        Err(cause) => warn!(%cause, "kernels do not run on this GPU, and libtorch's operators take longer"),
    }
    None
}

/// Goes after all tensors of an engine, so that the next engine, whose stream is another, finds their memory free.
impl Drop for Gpu {
    fn drop(&mut self) {
        self.trim();
    }
}

impl GraphCapture for Rc<Gpu> {
    fn capture(&self, work: Evaluation) -> Forward<Box<dyn CapturedGraph>> {
        let shared = self.pool.borrow().upgrade();
        let pool = shared.map_or_else(|| MemoryPool::new(&self.helper).map(Rc::new), Ok)?;
        let (graph, output) = self.stream.capture(&pool, work)?;
        *self.pool.borrow_mut() = Rc::downgrade(&pool);
        self.usage.recorded();
        Ok(Box::new(GpuGraph { output, graph, usage: self.usage(), _pool: pool }))
    }
}

/// A graph, and where its result lies. They go in this order: the result's memory is the pool's, which lasts as long as a graph of it.
#[derive(Debug)]
struct GpuGraph {
    output: Tensor,
    graph: CudaGraph,
    usage: Arc<Usage>,
    _pool: Rc<MemoryPool>,
}

impl CapturedGraph for GpuGraph {
    fn replay(&self) -> Forward {
        self.graph.replay()?;
        self.usage.replayed();
        Ok(self.output.shallow_clone())
    }
}
