//! Which library attends, shape by shape: libtorch's `FlashAttention` 2, which is there for every shape of these networks, or cuDNN's, which is
//! faster for some and has no plan for others. Plans of cuDNN are made for one batch size each and take a fraction of a second, so nothing
//! is given to it that was not tried before in idle time, unless the settings say so.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tch::{Kind, Tensor};
use tracing::{debug, warn};

use super::helper::{CudaEvent, Helper, Stream};
use crate::config;
use crate::engine::torch::error::{Forward, TorchError};

/// Calls of each library that a measurement takes the time of, after one that does not count.
const CALLS: u32 = 5;

/// Largest size of a head that `FlashAttention` 2 and cuDNN's forward pass have kernels for.
const LARGEST_HEAD: i64 = 256;

thread_local! {
    static ATTENTION: RefCell<Option<Rc<Attention>>> = const { RefCell::new(None) };
}

/// This thread's attention, if it works on a GPU whose settings let cuDNN attend.
pub(in crate::engine::torch) fn of_this_thread() -> Option<Rc<Attention>> {
    ATTENTION.with_borrow(Option::clone)
}

/// This thread's modules ask it until this is dropped.
#[derive(Debug)]
pub(super) struct AttentionInUse(());

impl Drop for AttentionInUse {
    fn drop(&mut self) {
        ATTENTION.set(None);
    }
}

/// Shapes are measured until it is dropped.
#[derive(Debug)]
pub(in crate::engine::torch) struct Measuring(Rc<Attention>);

impl Drop for Measuring {
    fn drop(&mut self) {
        self.0.measuring.set(false);
    }
}

/// What cuDNN makes a plan for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    batch: i64,
    heads: i64,
    queries: i64,
    keys: i64,
    /// Of a head.
    size: i64,
    causal: bool,
    half: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    Flash,
    Cudnn,
}

/// Decides for the shapes of one engine.
#[derive(Debug)]
pub(in crate::engine::torch) struct Attention {
    helper: Rc<Helper>,
    stream: Stream,
    choice: config::AttentionBackend,
    known: RefCell<HashMap<Shape, Library>>,
    measuring: Cell<bool>,
    warned: Cell<bool>,
}

impl Attention {
    /// Has this thread's modules ask, if `choice` is not the one that libtorch makes by itself once the helper is in use.
    pub(super) fn install(
        helper: &Rc<Helper>,
        stream: &Stream,
        choice: config::AttentionBackend,
    ) -> Option<AttentionInUse> {
        if choice == config::AttentionBackend::Flash {
            return None;
        }
        let (helper, stream) = (Rc::clone(helper), stream.clone());
        let (known, measuring, warned) = (RefCell::default(), Cell::new(false), Cell::new(false));
        let attention = Self { helper, stream, choice, known, measuring, warned };
        ATTENTION.set(Some(Rc::new(attention)));
        Some(AttentionInUse(()))
    }

    /// Has shapes that are met for the first time measured, if that is `wanted`, until what comes of this is dropped.
    pub(in crate::engine::torch) fn measure(self: Rc<Self>, wanted: bool) -> Measuring {
        self.measuring.set(wanted);
        Measuring(self)
    }

    /// `softmax(q kᵀ / √size) v` by cuDNN, `[batch, heads, length, size]` each; `None` where it is libtorch's turn.
    pub(in crate::engine::torch) fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        causal: bool,
    ) -> Forward<Option<Tensor>> {
        let Some(shape) = Shape::of(q, k, causal) else { return Ok(None) };
        let known = self.known.borrow().get(&shape).copied();
        let library = match known {
            Some(library) => library,
            None if self.choice == config::AttentionBackend::Cudnn => self.decide(shape, self.tried(q, k, v, causal)?),
            None if self.measuring.get() => self.decide(shape, self.measured(shape, q, k, v)?),
            None => Library::Flash,
        };
        if library == Library::Flash { Ok(None) } else { self.helper.attend_cudnn(q, k, v, causal).map(Some) }
    }

    fn decide(&self, shape: Shape, library: Library) -> Library {
        self.known.borrow_mut().insert(shape, library);
        library
    }

    /// cuDNN, unless it has no plan.
    fn tried(&self, q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Forward<Library> {
        match self.helper.attend_cudnn(q, k, v, causal) {
            Ok(_) => Ok(Library::Cudnn),
            Err(cause) => {
                let told = TorchError::of(&cause);
                if matches!(told, TorchError::OutOfMemory(_) | TorchError::Cuda(_)) {
                    return Err(cause); // no matter of plans
                }
                let cause = told.first_line();
                debug!(cause, shape = ?q.size(), keys = ?k.size(), "cuDNN does not attend in this shape");
                if self.choice == config::AttentionBackend::Cudnn && !self.warned.replace(true) {
                    warn!(cause, "cuDNN does not attend in some shapes; FlashAttention does");
                }
                Ok(Library::Flash)
            }
        }
    }

    /// The faster one.
    fn measured(&self, shape: Shape, q: &Tensor, k: &Tensor, v: &Tensor) -> Forward<Library> {
        if self.tried(q, k, v, shape.causal)? == Library::Flash {
            return Ok(Library::Flash);
        }
        let flash = self
            .time(|| Tensor::f_scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, shape.causal, None, false))?;
        let cudnn = self.time(|| self.helper.attend_cudnn(q, k, v, shape.causal))?;
        let [flash_us, cudnn_us] = [flash, cudnn].map(|time| time.as_micros() as u64 / u64::from(CALLS));
        debug!(?shape, flash_us, cudnn_us, "attention measured");
        Ok(if cudnn < flash { Library::Cudnn } else { Library::Flash })
    }

    /// What the GPU takes for [`CALLS`] calls.
    fn time(&self, attend: impl Fn() -> Forward) -> Forward<Duration> {
        let (begin, end) = (CudaEvent::new(&self.helper)?, CudaEvent::new(&self.helper)?);
        let _ = attend()?;
        begin.record(&self.stream)?;
        for _ in 0..CALLS {
            let _ = attend()?;
        }
        end.record(&self.stream)?;
        end.synchronize()?;
        begin.elapsed(&end)
    }
}

impl Shape {
    /// `None` where neither library has a kernel.
    fn of(q: &Tensor, k: &Tensor, causal: bool) -> Option<Self> {
        let (batch, heads, queries, size) = q.size4().ok()?;
        let half = match q.kind() {
            Kind::Half => true,
            Kind::BFloat16 => false,
            _ => return None,
        };
        let fits = q.device().is_cuda() && size <= LARGEST_HEAD && size % 8 == 0;
        fits.then(|| Self { batch, heads, queries, keys: k.size()[2], size, causal, half })
    }
}
