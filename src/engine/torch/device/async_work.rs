//! What a device may do later, or beside: evaluations that are captured, pictures that are decoded.

use std::fmt::Debug;
use std::time::Duration;

use tch::{TchError, Tensor};

/// What gives a tensor from tensors that stay where they are; always of the same shape.
pub type Evaluation = Box<dyn Fn() -> Result<Tensor, TchError>>;

/// Can write down what it is given, to do it later.
pub trait GraphCapture: Debug {
    /// Writes `work` down, which is not done by that. After an error all is as if it had not been called.
    ///
    /// # Errors
    /// The device cannot, or has no memory.
    fn capture(&self, work: Evaluation) -> Result<Box<dyn CapturedGraph>, TchError>;
}

/// Work that is captured.
pub trait CapturedGraph: Debug {
    /// Does it, on what its tensors hold now. The result is in the same memory each time.
    ///
    /// # Errors
    /// The device's.
    fn replay(&self) -> Result<Tensor, TchError>;
}

/// Makes pictures from latents.
pub trait AsyncDecoder: Debug {
    /// Begins `work`, which gives bytes on the device, after everything that the device was given before. After an error all is as if it
    /// had not been called.
    ///
    /// # Errors
    /// The device's, or that it has no memory.
    fn begin(&self, work: &dyn Fn() -> Result<Tensor, TchError>) -> Result<Box<dyn PendingDecode>, TchError>;
}

/// Work that was begun. To drop it is to wait for it.
pub trait PendingDecode: Debug {
    /// Whether it is done; does not wait.
    ///
    /// # Errors
    /// The device's.
    fn is_done(&self) -> Result<bool, TchError>;

    /// Waits until it is: the bytes, in main memory, and for how long the device was at it.
    ///
    /// # Errors
    /// The device's.
    fn finish(&self) -> Result<(Tensor, Duration), TchError>;
}
