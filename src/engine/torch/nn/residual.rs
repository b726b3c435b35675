//! A sequence, and what is still to be added to it: on a GPU the norm that comes next reads both anyway and adds them for nothing.

use tch::Tensor;

use super::Forward;

/// A sum of two of one shape, `[batch, length, channels]`.
#[derive(Debug)]
pub(in crate::engine::torch) struct Residual {
    pub(super) x: Tensor,
    /// What a layer makes of `x`, if it is not in there already.
    pub(super) change: Option<Tensor>,
}

impl Residual {
    /// With all that is added.
    pub(in crate::engine::torch) fn whole(self) -> Forward {
        let Self { x, change } = self;
        change.map_or(Ok(x.shallow_clone()), |mut change| change.f_add_(&x))
    }
}

/// A sequence as it is.
impl From<Tensor> for Residual {
    fn from(x: Tensor) -> Self {
        Self { x, change: None }
    }
}
