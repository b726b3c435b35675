//! The CUDA helper library, which `native/cuda.cpp` becomes: found, checked, and its functions as safe ones. Nothing else calls it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

use super::kernels;
use crate::config;
use crate::engine::torch::device::target;
use crate::engine::torch::error::{DeviceError, Forward};

/// The interface that this file knows, and the libtorch that `tch` was written for.
const INTERFACE: c_int = 4;
const LIBTORCH: &str = "2.11.0";

/// Why there is no helper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// It is nowhere.
    #[error("the CUDA helper {name} is not in {}; scripts/setup-cuda-helper builds it", .folders.join(", "))]
    Absent {
        /// What the file is called.
        name: String,
        /// Where it was looked for.
        folders: Vec<String>,
    },
    /// It is there, and cannot be used.
    #[error("the CUDA helper {path} cannot be used: {reason}; scripts/setup-cuda-helper builds it again")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker says, or what it was built for.
        reason: String,
    },
    /// libtorch has no CUDA half, or it does not load.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

type Status = c_int;
type Handle = *mut c_void;
type Given = *const C_tensor;

/// The library's functions; `native/cuda.cpp` says what they do.
#[derive(Debug)]
struct HelperFunctions {
    error: unsafe extern "C" fn() -> *const c_char,
    enter: unsafe extern "C" fn(c_int, *mut i64) -> Status,
    stream_new: unsafe extern "C" fn(c_int, *mut i64) -> Status,
    stream_use: unsafe extern "C" fn(c_int, i64) -> Status,
    attend_cudnn: unsafe extern "C" fn(Given, Given, Given, c_int, *mut Handle) -> Status,
    exact: unsafe extern "C" fn() -> Status,
    trim: unsafe extern "C" fn() -> Status,
    upload: unsafe extern "C" fn(Handle, usize, *const c_void, usize, usize) -> Status,
    event_new: unsafe extern "C" fn(*mut Handle) -> Status,
    event_record: unsafe extern "C" fn(Handle, c_int, i64) -> Status,
    event_wait: unsafe extern "C" fn(Handle) -> Status,
    event_block: unsafe extern "C" fn(Handle, c_int, i64) -> Status,
    event_passed: unsafe extern "C" fn(Handle, *mut c_int) -> Status,
    event_elapsed: unsafe extern "C" fn(Handle, Handle, *mut f32) -> Status,
    event_drop: unsafe extern "C" fn(Handle),
    pool_new: unsafe extern "C" fn(*mut u64) -> Status,
    graph_begin: unsafe extern "C" fn(c_int, *const u64, *mut Handle) -> Status,
    graph_end: unsafe extern "C" fn(Handle) -> Status,
    graph_replay: unsafe extern "C" fn(Handle) -> Status,
    graph_drop: unsafe extern "C" fn(Handle),
}

impl HelperFunctions {
    /// # Safety
    /// `library` must be a build of `native/cuda.cpp` with this interface.
    #[expect(unsafe_code, reason = "a symbol has the type that is said here")]
    unsafe fn of(library: &Library) -> Result<Self, libloading::Error> {
        macro_rules! function {
            // SAFETY: the caller's promise; the types above are those of the interface.
            ($name:literal) => {
                *unsafe { library.get(concat!("latentd_cuda_", $name, "\0").as_bytes()) }?
            };
        }
        Ok(Self {
            error: function!("error"),
            enter: function!("enter"),
            stream_new: function!("stream_new"),
            stream_use: function!("stream_use"),
            attend_cudnn: function!("attend_cudnn"),
            exact: function!("exact"),
            trim: function!("trim"),
            upload: function!("upload"),
            event_new: function!("event_new"),
            event_record: function!("event_record"),
            event_wait: function!("event_wait"),
            event_block: function!("event_block"),
            event_passed: function!("event_passed"),
            event_elapsed: function!("event_elapsed"),
            event_drop: function!("event_drop"),
            pool_new: function!("pool_new"),
            graph_begin: function!("graph_begin"),
            graph_end: function!("graph_end"),
            graph_replay: function!("graph_replay"),
            graph_drop: function!("graph_drop"),
        })
    }
}

/// The library, open for as long as the process lives.
#[derive(Debug)]
pub struct Helper {
    functions: HelperFunctions,
    kernels: Option<kernels::KernelFunctions>,
    path: PathBuf,
}

impl Helper {
    /// Opens libtorch's CUDA half, and the helper for its CUDA. Needs no GPU.
    ///
    /// # Errors
    /// There is none, or it is for another libtorch or another latentd.
    pub fn open(settings: &config::CudaConfig) -> Result<Rc<Self>, HelperError> {
        target::open_libraries()?;
        let name = format!("liblatentd_cuda{}.so", target::cuda_major()?);
        let path = if let Some(path) = &settings.helper { path.clone() } else { find(&name, &settings.folders)? };
        Self::at(&path).map(Rc::new).map_err(|reason| HelperError::Unusable { path, reason })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[expect(unsafe_code, reason = "opening a shared library, and asking it for functions")]
    fn at(path: &Path) -> Result<Self, String> {
        let text = |cause: libloading::Error| target::linker(&cause);
        // SAFETY: a file of this name in these folders is ours, or the operator says that it is; its initialisers are C++'s own.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(text)?;
        // SAFETY: these two keep name and type in every interface; the second gives a text that is never freed.
        let (interface, built_for) = unsafe {
            let interface = library.get::<unsafe extern "C" fn() -> c_int>(b"latentd_cuda_interface\0");
            let torch = library.get::<unsafe extern "C" fn() -> *const c_char>(b"latentd_cuda_torch\0");
            let (interface, torch) = (interface.map_err(text)?, torch.map_err(text)?);
            (interface(), CStr::from_ptr(torch()).to_string_lossy().into_owned())
        };
        if interface != INTERFACE {
            return Err(format!("it has interface {interface}, and this latentd knows {INTERFACE}"));
        }
        if built_for != LIBTORCH {
            return Err(format!("it was built for libtorch {built_for}, and this is {LIBTORCH}"));
        }
        // SAFETY: it has just said that it is one.
        let functions = unsafe { HelperFunctions::of(&library) }.map_err(text)?;
        // SAFETY: the same; without a compiler for kernels it was built without them.
        let kernels = unsafe { kernels::KernelFunctions::of(&library) }.ok();
        // Never closed: graphs and streams of the process may need it to the end.
        std::mem::forget(library);
        Ok(Self { functions, kernels, path: path.to_owned() })
    }

    /// Whether it was built with kernels.
    pub fn has_kernels(&self) -> bool {
        self.kernels.is_some()
    }

    /// Its kernels for tensors on `device`.
    pub(super) fn kernels(&self, device: Device) -> Option<kernels::Kernels> {
        self.kernels.map(|calls| kernels::Kernels::new(calls, device))
    }

    /// What a call came to.
    #[expect(unsafe_code, reason = "a call into the helper")]
    fn check(&self, status: Status) -> Forward<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: a text of this thread's, which stays until its next call fails.
        let text = unsafe { CStr::from_ptr((self.functions.error)()) };
        Err(TchError::Torch(text.to_string_lossy().into_owned()))
    }

    /// A handle that a call made, if it did not fail.
    fn made(&self, call: impl FnOnce(*mut Handle) -> Status) -> Forward<Handle> {
        let mut handle = ptr::null_mut();
        self.check(call(&raw mut handle))?;
        Ok(handle)
    }

    /// Attention by cuDNN, as [`super::attention`] has it.
    ///
    /// # Errors
    /// cuDNN has no plan for the shape; or the device's.
    #[expect(unsafe_code, reason = "a call into the helper, and a tensor that it made")]
    pub(super) fn attend_cudnn(&self, query: &Tensor, key: &Tensor, value: &Tensor, causal: bool) -> Forward {
        let attend = self.functions.attend_cudnn;
        // SAFETY: the tensors live as long as the call.
        let call = |made| unsafe { attend(query.as_ptr(), key.as_ptr(), value.as_ptr(), c_int::from(causal), made) };
        let made = self.made(call)?;
        // SAFETY: a tensor on the heap, as torch-sys has them, and not shared.
        Ok(unsafe { Tensor::from_ptr(made.cast()) })
    }

    /// f32 is f32 from here on, in all of the process: no TF32, which has the mantissa of f16.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn exact(&self) -> Forward<()> {
        // SAFETY: it takes nothing.
        self.check(unsafe { (self.functions.exact)() })
    }

    /// Gives back to the GPUs what tensors that are gone have left.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn trim(&self) -> Forward<()> {
        // SAFETY: it takes nothing.
        self.check(unsafe { (self.functions.trim)() })
    }
}

/// Beside libtorch, else in the first of `folders` that has it.
fn find(name: &str, folders: &[PathBuf]) -> Result<PathBuf, HelperError> {
    let libtorch = target::libtorch().and_then(|file| file.parent().map(Path::to_path_buf));
    let folders: Vec<PathBuf> = libtorch.into_iter().chain(folders.iter().cloned()).collect();
    folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| HelperError::Absent {
        name: name.to_owned(),
        folders: folders.iter().map(|folder| folder.display().to_string()).collect(),
    })
}

/// A stream of a GPU: a value of it exists only where the thread has entered the GPU.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    helper: Rc<Helper>,
    device: c_int,
    number: i64,
}

impl Stream {
    /// Has this thread work on a stream of its own on GPU `device`.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn enter(helper: &Rc<Helper>, device: usize) -> Forward<Self> {
        let (device, mut number) = (device as c_int, 0);
        // SAFETY: `number` is there to be written.
        helper.check(unsafe { (helper.functions.enter)(device, &raw mut number) })?;
        Ok(Self { helper: Rc::clone(helper), device, number })
    }

    /// Another stream of the same GPU, for [`Self::run`].
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn sibling(&self) -> Forward<Self> {
        let mut number = 0;
        // SAFETY: `number` is there to be written.
        self.helper.check(unsafe { (self.helper.functions.stream_new)(self.device, &raw mut number) })?;
        Ok(Self { helper: Rc::clone(&self.helper), device: self.device, number })
    }

    /// Has this thread do `work` on this stream, and go on with `usual`, which it works on.
    pub(super) fn run<T>(&self, usual: &Self, work: impl FnOnce() -> Forward<T>) -> Forward<T> {
        self.make_current()?;
        let done = work();
        usual.make_current()?;
        done
    }

    #[expect(unsafe_code, reason = "a call into the helper")]
    fn make_current(&self) -> Forward<()> {
        // SAFETY: the numbers are those of a stream that there is.
        self.helper.check(unsafe { (self.helper.functions.stream_use)(self.device, self.number) })
    }

    /// Copies `bytes` to `target`, a tensor without gaps on this GPU, from its byte `offset` on, by way of `block` bytes of pinned memory.
    /// Waits for nothing that the GPU does; the copy is what the stream of this thread does next.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn upload(&self, target: &Tensor, offset: usize, bytes: &[u8], block: usize) -> Forward<()> {
        let (upload, target) = (self.helper.functions.upload, target.as_ptr().cast_mut().cast());
        // SAFETY: the tensor and the bytes are there for as long as the call takes, which looks whether there is room in the one for the
        // others.
        self.helper.check(unsafe { upload(target, offset, bytes.as_ptr().cast(), bytes.len(), block) })
    }

    /// Which GPU it is of.
    pub(super) fn device(&self) -> Device {
        Device::Cuda(self.device as usize)
    }

    /// Writes down what `work` gives the stream, and does not do it. What `work` gives is there after each replay.
    #[expect(unsafe_code, reason = "calls into the helper")]
    pub(super) fn capture(&self, pool: &MemoryPool, work: impl FnOnce() -> Forward) -> Forward<(CudaGraph, Tensor)> {
        let functions = &self.helper.functions;
        // SAFETY: a pool is two numbers, which the call reads.
        let begin = |made| unsafe { (functions.graph_begin)(self.device, pool.0.as_ptr(), made) };
        let graph = CudaGraph { helper: Rc::clone(&self.helper), handle: self.helper.made(begin)? };
        // If it fails, the graph is dropped while it is being captured, which ends that.
        let output = work()?;
        // SAFETY: the graph was begun on this thread, which is on the same stream still.
        self.helper.check(unsafe { (functions.graph_end)(graph.handle) })?;
        Ok((graph, output))
    }
}

/// A point in a stream's work.
#[derive(Debug)]
pub(super) struct CudaEvent {
    helper: Rc<Helper>,
    handle: Handle,
}

impl CudaEvent {
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn new(helper: &Rc<Helper>) -> Forward<Self> {
        // SAFETY: the handle is there to be written.
        let handle = helper.made(|made| unsafe { (helper.functions.event_new)(made) })?;
        Ok(Self { helper: Rc::clone(helper), handle })
    }

    /// Moves to where `stream` is now.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn record(&self, stream: &Stream) -> Forward<()> {
        // SAFETY: the handle is an event's, and lives as long as `self`.
        self.helper.check(unsafe { (self.helper.functions.event_record)(self.handle, stream.device, stream.number) })
    }

    /// Waits until the stream has come by; at once where the event was never set.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn synchronize(&self) -> Forward<()> {
        // SAFETY: as above.
        self.helper.check(unsafe { (self.helper.functions.event_wait)(self.handle) })
    }

    /// Has `stream` wait for it before it begins what it is given from here on. It may be set again at once.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn wait(&self, stream: &Stream) -> Forward<()> {
        // SAFETY: as above.
        self.helper.check(unsafe { (self.helper.functions.event_block)(self.handle, stream.device, stream.number) })
    }

    /// Whether the stream has come by.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn query(&self) -> Forward<bool> {
        let mut passed = 0;
        // SAFETY: as above, and `passed` is there to be written.
        self.helper.check(unsafe { (self.helper.functions.event_passed)(self.handle, &raw mut passed) })?;
        Ok(passed != 0)
    }

    /// From here to `end`, both of which are passed.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn elapsed(&self, end: &Self) -> Forward<Duration> {
        let mut milliseconds = 0.0;
        let elapsed = self.helper.functions.event_elapsed;
        // SAFETY: as above, for both handles.
        self.helper.check(unsafe { elapsed(self.handle, end.handle, &raw mut milliseconds) })?;
        Ok(Duration::try_from_secs_f32(milliseconds / 1000.0).unwrap_or_default())
    }
}

impl Drop for CudaEvent {
    #[expect(unsafe_code, reason = "a call into the helper")]
    fn drop(&mut self) {
        // SAFETY: the handle is an event's, and it is not used after this.
        unsafe { (self.helper.functions.event_drop)(self.handle) }
    }
}

/// Memory that graphs share.
#[derive(Debug)]
pub(super) struct MemoryPool([u64; 2]);

impl MemoryPool {
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn new(helper: &Helper) -> Forward<Self> {
        let mut numbers = [0; 2];
        // SAFETY: two numbers are there to be written.
        helper.check(unsafe { (helper.functions.pool_new)(numbers.as_mut_ptr()) })?;
        Ok(Self(numbers))
    }
}

/// Work that was written down.
#[derive(Debug)]
pub(super) struct CudaGraph {
    helper: Rc<Helper>,
    handle: Handle,
}

impl CudaGraph {
    /// Has the current stream do it all.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(super) fn replay(&self) -> Forward<()> {
        // SAFETY: the handle is a graph's, and lives as long as `self`.
        self.helper.check(unsafe { (self.helper.functions.graph_replay)(self.handle) })
    }
}

impl Drop for CudaGraph {
    #[expect(unsafe_code, reason = "a call into the helper")]
    fn drop(&mut self) {
        // SAFETY: the handle is a graph's, and it is not used after this.
        unsafe { (self.helper.functions.graph_drop)(self.handle) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::io::{self, Write};

    use tch::Kind;

    use super::*;
    use crate::config::{Config, Environment, Flags};

    fn settings() -> config::CudaConfig {
        Config::load(&Flags::default(), &Environment::default()).unwrap().cuda
    }

    /// The helper of this checkout, where it is built and libtorch's CUDA half is there.
    fn helper(test: &str) -> Option<Rc<Helper>> {
        match Helper::open(&settings()) {
            Ok(helper) => Some(helper),
            Err(HelperError::Unusable { path, reason }) => panic!("{}: {reason}", path.display()),
            Err(cause) => {
                // Past the harness, which keeps what a test that passes prints.
                io::stderr().write_all(format!("SKIPPED: {test}: {cause}\n").as_bytes()).unwrap();
                None
            }
        }
    }

    #[test]
    fn every_function_is_there_and_without_a_gpu_says_so() {
        let Some(helper) = helper("the CUDA helper is not called") else { return };
        if tch::Cuda::is_available() {
            return; // examples/devices has the rest
        }
        let unset = CudaEvent::new(&helper).unwrap();
        unset.synchronize().unwrap();
        assert!(unset.query().unwrap());
        assert!(unset.elapsed(&unset).unwrap_err().to_string().contains("must be recorded"));
        MemoryPool::new(&helper).unwrap();
        helper.exact().unwrap();
        helper.trim().unwrap();
        let attend = |kind| {
            let x = Tensor::zeros([1, 2, 8, 8], (kind, Device::Cpu));
            helper.attend_cudnn(&x, &x, &x, false).map(|_| ())
        };
        let nowhere = Stream { helper: Rc::clone(&helper), device: 0, number: 0 };
        let faults = [
            Stream::enter(&helper, 0).map(|_| ()),
            nowhere.upload(&Tensor::from_slice(&[1_u8]), 0, &[1], 1),
            unset.record(&nowhere),
            nowhere.sibling().map(|_| ()),
            attend(Kind::Half),
            nowhere.capture(&MemoryPool([0, 7]), || panic!("nothing can begin")).map(|_| ()),
            // Without a compiler for kernels there are none.
            helper
                .kernels(Device::Cpu)
                .map_or_else(|| unset.record(&nowhere), |kernels| kernels.deviation(Kind::Float).map(|_| ())),
        ];
        for fault in faults {
            let told = fault.unwrap_err().to_string();
            assert!(told.to_lowercase().contains("nvidia") || told.contains("CUDA"), "{told}");
            assert!(!told.contains("Exception raised from"), "a stack of frames: {told}");
        }
    }

    #[test]
    fn a_helper_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("liblatentd_cuda13.so");
        std::fs::write(&path, "no library".repeat(1000)).unwrap();
        let cause = Helper::at(&path).unwrap_err();
        assert!(cause.contains("liblatentd_cuda13.so") && cause.contains("ELF"), "{cause}");
        let cause = Helper::at(&target::libtorch().unwrap()).unwrap_err();
        assert!(cause.contains("latentd_cuda_interface"), "{cause}");
    }

    #[test]
    fn a_helper_is_found_in_a_folder_of_the_operator_s() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("liblatentd_cuda98.so"); // no CUDA's: beside libtorch there is none
        std::fs::write(&path, "").unwrap();
        let folders = [folder.path().to_owned()];
        assert_eq!(find("liblatentd_cuda98.so", &folders), Ok(path));
        let cause = find("liblatentd_cuda99.so", &folders).unwrap_err().to_string();
        assert!(cause.contains("liblatentd_cuda99.so is not in ") && cause.contains("setup-cuda-helper"), "{cause}");
    }
}
