//! What can be wrong with a model or a device, in words that name the file, the tensor, the key.

use std::path::PathBuf;

use tch::TchError;

use crate::engine::tokenizer::TokenizerError;
use crate::job::{Code, JobError};
use crate::sampler::ScheduleError;

/// What a forward pass gives: a tensor, or libtorch's complaint.
pub(super) type Forward<T = tch::Tensor> = Result<T, TchError>;

/// What went wrong in libtorch, as far as it makes a difference to the engine. Its C interface gives nothing but a text, which is read
/// here alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TorchError {
    /// The device, or the machine, has not enough memory for it. The engine is sound.
    #[error("{0}")]
    OutOfMemory(String),
    /// CUDA failed: the device is lost to this process, every call fails from now on.
    #[error("{0}")]
    Cuda(String),
    /// cuDNN or cuBLAS failed. Mostly the device is lost; where another library can do the same, it may try.
    #[error("{0}")]
    CudaLibrary(String),
    /// Something else, such as shapes that do not fit.
    #[error("{0}")]
    Other(String),
}

impl TorchError {
    /// What `cause` is.
    pub(super) fn of(cause: &TchError) -> Self {
        let text = cause.to_string();
        let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        if has(&["out of memory", "can't allocate memory"]) {
            Self::OutOfMemory(text)
        } else if has(&["CUDA error"]) {
            Self::Cuda(text)
        } else if has(&["CUDNN_STATUS", "CUBLAS_STATUS"]) {
            Self::CudaLibrary(text)
        } else {
            Self::Other(text)
        }
    }

    /// Whether memory did not suffice.
    pub(super) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory(_))
    }

    /// Whether the device is gone for this process.
    pub(super) fn is_device_lost(&self) -> bool {
        matches!(self, Self::Cuda(_) | Self::CudaLibrary(_))
    }

    /// The text without the stack of C++ frames that libtorch ends it with.
    pub(super) fn first_line(&self) -> &str {
        let (Self::OutOfMemory(text) | Self::Cuda(text) | Self::CudaLibrary(text) | Self::Other(text)) = self;
        text.lines().next().unwrap_or_default()
    }
}

/// libtorch failed while a job was worked on; the engine itself is sound, unless its device is lost.
impl From<TorchError> for JobError {
    fn from(cause: TorchError) -> Self {
        if cause.is_device_lost() {
            return Self::engine_lost(cause.first_line());
        }
        let code = if cause.is_out_of_memory() { Code::OutOfMemory } else { Code::EngineError };
        Self { code, message: cause.first_line().to_owned(), field: None }
    }
}

impl From<TchError> for TorchError {
    fn from(cause: TchError) -> Self {
        Self::of(&cause)
    }
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for and there is no driver.
    #[error("device = {0}: this machine has no NVIDIA driver; use --device cpu to compute on the CPU")]
    NoDriver(String),
    /// The driver is older than this libtorch's CUDA.
    #[error(
        "the NVIDIA driver is too old: it ends at CUDA {driver}, and libtorch needs CUDA {needed}; update the driver, \
         build with a libtorch 2.11.0 for an older CUDA, or use --device cpu"
    )]
    OldDriver {
        /// Newest CUDA that the driver knows.
        driver: String,
        /// CUDA that libtorch was built for.
        needed: String,
    },
    /// libtorch's CUDA half is missing or does not load.
    #[error(
        "a GPU is here, but libtorch's CUDA libraries do not load: {0}; run scripts/setup-libtorch --cuda, or use --device cpu"
    )]
    Libraries(String),
    /// CUDA itself complains.
    #[error("a GPU is here, but CUDA cannot use it: {0}; use --device cpu to compute on the CPU")]
    Cuda(String),
    /// There is no such GPU.
    #[error("device = cuda:{asked}: this machine has {present} GPUs, numbered from 0")]
    NoSuchGpu {
        /// The number asked for.
        asked: usize,
        /// How many there are.
        present: usize,
    },
    /// The CPU has no arithmetic for it.
    #[error("dtype = f16 needs a GPU; on the CPU use f32 or bf16")]
    HalfOnCpu,
}

/// Why a model did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is nothing where the model should be.
    #[error("{path}: {reason}")]
    Path {
        /// Where it should be.
        path: PathBuf,
        /// What is missing or wrong, and what to do.
        reason: String,
    },
    /// A pickle runs code when it is read, so it is never read.
    #[error("{0}: this is a pickle file, which can run code when it is opened; convert it to .safetensors first")]
    Pickle(PathBuf),
    /// The file is no intact safetensors file.
    #[error("{file}: not an intact safetensors file: {reason}")]
    Header {
        /// The weight file.
        file: PathBuf,
        /// What its header says or lacks.
        reason: String,
    },
    /// The configuration asks for a tensor that the file lacks.
    #[error("{file}: tensor {tensor} is missing; its configuration asks for shape {expected:?}")]
    Missing {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name in that file.
        tensor: String,
        /// The shape the configuration asks for.
        expected: Vec<i64>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{file}: tensor {tensor} has shape {found:?}; its configuration asks for {expected:?}")]
    Shape {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name in that file.
        tensor: String,
        /// The shape the configuration asks for.
        expected: Vec<i64>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's numbers are of a kind that weights never are.
    #[error("{file}: tensor {tensor} holds {dtype}; weights must be F32, F16 or BF16")]
    Dtype {
        /// The weight file.
        file: PathBuf,
        /// The tensor's name in that file.
        tensor: String,
        /// The kind found.
        dtype: String,
    },
    /// The file holds tensors that the model has no place for: the two do not belong together.
    #[error("{file}: this model has no place for {count} of its tensors, such as {}", .first.join(", "))]
    Surplus {
        /// The weight file.
        file: PathBuf,
        /// How many there are.
        count: usize,
        /// Some of them.
        first: Vec<String>,
    },
    /// A configuration file cannot be read as one.
    #[error("{file}: {reason}")]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A configuration asks for something that latentd does not do.
    #[error("{file}: {key} = {value} is not supported{}", .supported.as_ref().map(|s| format!("; supported: {s}")).unwrap_or_default())]
    Unsupported {
        /// The configuration file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What would be.
        supported: Option<String>,
    },
    /// The scheduler's configuration is not supported.
    #[error("{file}: {cause}")]
    Schedule {
        /// The configuration file.
        file: PathBuf,
        /// What about it.
        #[source]
        cause: ScheduleError,
    },
    /// The tokenizer did not load.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TorchError),
}

impl LoadError {
    /// Whether memory did not suffice.
    pub(super) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Torch(cause) if cause.is_out_of_memory())
    }
}

impl From<TchError> for LoadError {
    fn from(cause: TchError) -> Self {
        Self::Torch(cause.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libtorch_says_is_told_apart() {
        let of = |text: &str| TorchError::from(TchError::Torch(text.to_owned()));
        for text in [
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "CUDA error: out of memory",
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        ] {
            assert!(of(text).is_out_of_memory() && !of(text).is_device_lost(), "{text}");
        }
        assert!(matches!(of("CUDA error: an illegal memory access was encountered"), TorchError::Cuda(_)));
        for text in
            ["cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"]
        {
            assert!(matches!(of(text), TorchError::CudaLibrary(_)) && of(text).is_device_lost(), "{text}");
        }
        let shapes = of("mat1 and mat2 shapes cannot be multiplied\nException raised from meta at …");
        assert!(!shapes.is_out_of_memory() && !shapes.is_device_lost());
        assert_eq!(shapes.first_line(), "Internal torch error: mat1 and mat2 shapes cannot be multiplied");
        assert!(LoadError::from(TchError::Torch("out of memory".to_owned())).is_out_of_memory());
    }
}
