//! The shape of a convolution.

/// How a convolution's window moves.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct ConvParams {
    /// Height and width of the kernel.
    pub(in crate::engine::torch) kernel: i64,
    /// Pixels from one position to the next.
    pub(in crate::engine::torch) stride: i64,
    /// Zeros added on every side.
    pub(in crate::engine::torch) padding: i64,
}

impl ConvParams {
    /// 1×1: a linear map of every pixel.
    pub(in crate::engine::torch) const POINT: Self = Self { kernel: 1, stride: 1, padding: 0 };
    /// 3×3 that keeps the size.
    pub(in crate::engine::torch) const SAME: Self = Self { kernel: 3, stride: 1, padding: 1 };
    /// 3×3 that halves it.
    pub(in crate::engine::torch) const HALVE: Self = Self { kernel: 3, stride: 2, padding: 1 };
}
