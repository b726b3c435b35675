//! Where to compute and in what numbers. libtorch's CUDA half is opened here, at run time, so that one binary serves
//! machines with and without a GPU.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fmt, fs};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use tch::{Cuda, Device, Kind};
use tracing::debug;

use crate::config;
use crate::engine::torch::error::DeviceError;

/// A device and the numbers to compute in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Where.
    pub device: Device,
    /// In what.
    pub kind: Kind,
}

impl Target {
    /// f32 on the CPU: the reference's own arithmetic.
    pub const REFERENCE: Self = Self { device: Device::Cpu, kind: Kind::Float };

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.device == Device::Cpu
    }

    /// Free and total memory in bytes of the device.
    ///
    /// # Errors
    /// CUDA's.
    pub fn memory(&self) -> Result<(usize, usize), DeviceError> {
        if let Device::Cuda(number) = self.device {
            return gpu_memory(number);
        }
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |key: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<usize>().ok())
        };
        Ok((kib("MemAvailable:").unwrap_or(0) << 10, kib("MemTotal:").unwrap_or(0) << 10))
    }

    /// Resolves what the configuration says.
    ///
    /// `auto` takes the first GPU where there is an NVIDIA driver, which is its kernel module or, as on WSL 2, its library that
    /// finds a GPU: a GPU that is there but unusable is an error, never a silent fall back. Numbers: f16 on a GPU; on the CPU bf16 where it multiplies bf16 matrices, else f32.
    ///
    /// # Errors
    /// The device is not there or cannot be used, or cannot compute in `dtype`.
    pub fn choose(device: config::Device, dtype: config::Dtype) -> Result<Self, DeviceError> {
        let device = match device {
            config::Device::Cuda(number) if has_driver() => open_cuda(number)?,
            config::Device::Cuda(number) => return Err(DeviceError::NoDriver(format!("cuda:{number}"))),
            config::Device::Auto | config::Device::AllCuda if has_driver() => open_cuda(0)?,
            config::Device::AllCuda => return Err(DeviceError::NoDriver("cuda:all".into())),
            config::Device::Auto | config::Device::Cpu => {
                before_the_first_convolution();
                Device::Cpu
            }
        };
        let kind = match dtype {
            config::Dtype::F16 if device == Device::Cpu => return Err(DeviceError::HalfOnCpu),
            config::Dtype::F16 => Kind::Half,
            config::Dtype::Bf16 => Kind::BFloat16,
            config::Dtype::Auto if device != Device::Cpu => Kind::Half,
            config::Dtype::Auto if multiplies_bf16() => Kind::BFloat16,
            config::Dtype::Auto | config::Dtype::F32 => Kind::Float,
        };
        Ok(Self { device, kind })
    }
}

/// Whether [`Target::choose`] will choose half precision, as far as that can be told without asking the device.
pub fn expects_half(device: config::Device, dtype: config::Dtype) -> bool {
    match dtype {
        config::Dtype::F16 => true,
        config::Dtype::Auto => device != config::Device::Cpu && has_driver(),
        config::Dtype::Bf16 | config::Dtype::F32 => false,
    }
}

/// One by one what `device` stands for: `cuda:all` is every GPU.
///
/// # Errors
/// All GPUs were asked for and they cannot be counted.
pub fn each(device: config::Device) -> Result<Vec<config::Device>, DeviceError> {
    match device {
        config::Device::AllCuda if has_driver() => Ok((0..gpus()?).map(config::Device::Cuda).collect()),
        config::Device::AllCuda => Err(DeviceError::NoDriver("cuda:all".into())),
        one => Ok(vec![one]),
    }
}

/// As the configuration writes it: `cuda:0 in f16`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Device::Cuda(number) => write!(f, "cuda:{number}")?,
            _ => f.write_str("cpu")?,
        }
        f.write_str(match self.kind {
            Kind::Half => " in f16",
            Kind::BFloat16 => " in bf16",
            _ => " in f32",
        })
    }
}

/// What the dynamic linker says; of itself the error has only that it was the linker.
pub(in crate::engine::torch) fn linker(cause: &libloading::Error) -> String {
    cause.source().map_or_else(|| cause.to_string(), ToString::to_string)
}

/// Whether there is an NVIDIA driver: its kernel module, which may be without a GPU or broken, or else a library of the driver's that finds
/// a GPU. On WSL 2 there is but the library. A process looks once.
fn has_driver() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let module = || ["/proc/driver/nvidia/version", "/dev/nvidiactl"].iter().any(|path| Path::new(path).exists());
    *FOUND.get_or_init(|| module() || driver_s_gpus().is_some_and(|count| count > 0))
}

/// How many GPUs the driver's own library finds; `None` where it is missing or does not start.
#[expect(unsafe_code, reason = "calls into the driver's library")]
fn driver_s_gpus() -> Option<c_int> {
    // SAFETY: NVIDIA's driver; opening it does nothing but load it.
    let driver = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW) }.ok()?;
    let mut count = 0;
    // SAFETY: the signatures are those of the CUDA driver API, cuInit(unsigned) and cuDeviceGetCount(int*).
    let found = unsafe {
        driver.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit\0").ok()?(0) == 0
            && driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount\0").ok()?(&raw mut count) == 0
    };
    // Never closed: a driver that has started has threads.
    std::mem::forget(driver);
    found.then_some(count)
}

/// Whether the CPU has instructions for bf16 products; without them bf16 is slower than f32.
pub fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let found = false;
    found
}

/// Opens libtorch's CUDA half, once a process, and checks GPU `number`.
fn open_cuda(number: usize) -> Result<Device, DeviceError> {
    let present = gpus()?;
    if number >= present {
        return Err(DeviceError::NoSuchGpu { asked: number, present });
    }
    open_libraries()?;
    if Cuda::is_available() {
        Ok(Device::Cuda(number))
    } else {
        Err(DeviceError::Cuda("libtorch finds no usable GPU".into()))
    }
}

/// Opens libtorch's CUDA half where there is a driver, for whoever turns to a GPU later in this process: libtorch asks once, at its first
/// convolution, whether there is such a half, and remembers that there was none.
fn before_the_first_convolution() {
    if has_driver()
        && let Err(cause) = open_libraries()
    {
        debug!(%cause, "no GPU can be used by this process any more");
    }
}

/// Opens libtorch's CUDA half. Needs no GPU.
pub(in crate::engine::torch) fn open_libraries() -> Result<(), DeviceError> {
    // The binary's rpath leads to it, as it leads to the half that is linked.
    // SAFETY: libtorch's own library; its initialisers register the CUDA backend and do nothing else.
    #[expect(unsafe_code, reason = "opening a shared library runs its initialisers")]
    let opened = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    // Never closed: the backend stays registered for as long as the process lives.
    std::mem::forget(opened.map_err(|cause| DeviceError::Libraries(linker(&cause)))?);
    Ok(())
}

/// The major of the CUDA that libtorch is built for.
pub(in crate::engine::torch) fn cuda_major() -> Result<c_int, DeviceError> {
    Ok(Runtime::open()?.version(b"cudaRuntimeGetVersion\0")? / 1000)
}

/// The file that the process has libtorch from; `None` if it is linked into the program.
pub fn libtorch() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().last());
    files.find(|path| path.ends_with("/libtorch_cpu.so")).map(PathBuf::from)
}

/// How many GPUs the CUDA runtime finds. libtorch itself is linked to that runtime, so it is in the process already.
fn gpus() -> Result<usize, DeviceError> {
    let runtime = Runtime::open()?;
    let (driver, needed) = (runtime.version(b"cudaDriverGetVersion\0")?, runtime.version(b"cudaRuntimeGetVersion\0")?);
    // Since CUDA 11 a driver serves every minor release of its major.
    if driver / 1000 < needed / 1000 {
        let said = |version: c_int| format!("{}.{}", version / 1000, version % 1000 / 10);
        return Err(DeviceError::OldDriver { driver: said(driver), needed: said(needed) });
    }
    runtime.version(b"cudaGetDeviceCount\0").map(|count| usize::try_from(count).unwrap_or(0))
}

/// Free and total memory of GPU `number` in bytes. It becomes the current one of this thread, which the runtime asks about.
fn gpu_memory(number: usize) -> Result<(usize, usize), DeviceError> {
    let runtime = Runtime::open()?;
    let (mut free, mut total) = (0_usize, 0_usize);
    // SAFETY: the signature is that of the CUDA runtime API, cudaSetDevice(int).
    #[expect(unsafe_code, reason = "a call into the CUDA runtime")]
    let status =
        unsafe { runtime.symbol::<unsafe extern "C" fn(c_int) -> c_int>(b"cudaSetDevice\0")?(number as c_int) };
    runtime.check(status)?;
    // SAFETY: the signature is that of the CUDA runtime API, cudaMemGetInfo(size_t*, size_t*).
    #[expect(unsafe_code, reason = "a call into the CUDA runtime")]
    let status = unsafe {
        let call = runtime.symbol::<unsafe extern "C" fn(*mut usize, *mut usize) -> c_int>(b"cudaMemGetInfo\0")?;
        call(&raw mut free, &raw mut total)
    };
    runtime.check(status)?;
    Ok((free, total))
}

/// The CUDA runtime's C interface, as far as it is needed to tell what is wrong with a GPU.
struct Runtime(Library);

impl Runtime {
    fn open() -> Result<Self, DeviceError> {
        let mut fault = String::new();
        for name in ["libcudart.so.13", "libcudart.so.12"] {
            // SAFETY: NVIDIA's runtime; opening it does nothing but load it.
            #[expect(unsafe_code, reason = "opening a shared library runs its initialisers")]
            match unsafe { Library::open(Some(name), RTLD_NOW) } {
                Ok(library) => return Ok(Self(library)),
                Err(cause) => fault = linker(&cause),
            }
        }
        Err(DeviceError::Libraries(fault))
    }

    /// # Safety
    /// `F` must be the signature of the function called `name`.
    #[expect(unsafe_code, reason = "a symbol has the type that its caller says")]
    unsafe fn symbol<F>(&self, name: &[u8]) -> Result<Symbol<F>, DeviceError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.get(name) }.map_err(|cause| DeviceError::Libraries(linker(&cause)))
    }

    /// Calls one of the runtime's functions that store an int and answer with a status.
    fn version(&self, name: &[u8]) -> Result<c_int, DeviceError> {
        let mut value: c_int = 0;
        // SAFETY: all functions called here have the signature cudaError_t f(int*).
        #[expect(unsafe_code, reason = "a call into the CUDA runtime")]
        let status = unsafe { self.symbol::<unsafe extern "C" fn(*mut c_int) -> c_int>(name)?(&raw mut value) };
        self.check(status)?;
        Ok(value)
    }

    fn check(&self, status: c_int) -> Result<(), DeviceError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: const char* cudaGetErrorString(cudaError_t) gives a static string for every number.
        #[expect(unsafe_code, reason = "a call into the CUDA runtime")]
        let text = unsafe {
            CStr::from_ptr(self.symbol::<unsafe extern "C" fn(c_int) -> *const c_char>(b"cudaGetErrorString\0")?(
                status,
            ))
        };
        Err(DeviceError::Cuda(text.to_string_lossy().into_owned()))
    }
}
