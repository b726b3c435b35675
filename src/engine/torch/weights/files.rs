//! Weight files: mapped or read, checked, and handed out tensor by tensor until none is left over.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Mmap, MmapMut, UncheckedAdvice};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use tch::{Device, Kind, Tensor};

pub(in crate::engine::torch) use super::source::TensorSource;
use crate::disk::whole;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;

/// Tells where a file may keep the tensor that a module asks for by name, the likeliest first.
pub(in crate::engine::torch) type Names = Box<dyn Fn(&str) -> Vec<TensorSource>>;

/// One or more weight files that make one part of a model.
pub(in crate::engine::torch) struct Weights {
    files: Vec<MappedFile>,
    names: Names,
    used: RefCell<HashSet<String>>,
    context: DeviceContext,
}

struct MappedFile {
    path: PathBuf,
    map: Arc<Mmap>,
    metadata: Metadata,
    /// Whether the map is of the file, and not of memory of our own.
    on_disk: bool,
    /// Where the tensors' bytes begin.
    data: usize,
    /// Whether a tensor uses the mapped pages as they are.
    shared: Cell<bool>,
}

impl Weights {
    /// Maps `paths` and checks their headers. Tensors will be given at `context`.
    pub(in crate::engine::torch) fn open(paths: &[PathBuf], context: &DeviceContext) -> Result<Self, LoadError> {
        let files = paths.iter().map(|path| MappedFile::open(path, true, map)).collect::<Result<_, _>>()?;
        Ok(Self::of(files, context.clone()))
    }

    /// Reads one file instead, and at most `largest` bytes of it: for files that people write over while we run.
    pub(in crate::engine::torch) fn read(
        path: &Path,
        largest: u64,
        context: &DeviceContext,
    ) -> Result<Self, LoadError> {
        let file = MappedFile::open(path, false, |path| read(path, largest))?;
        Ok(Self::of(vec![file], context.clone()))
    }

    fn of(files: Vec<MappedFile>, context: DeviceContext) -> Self {
        Self { files, names: Box::new(|name| vec![name.to_owned().into()]), used: RefCell::default(), context }
    }

    /// The same files read through another naming.
    pub(in crate::engine::torch) fn renamed(self, names: Names) -> Self {
        Self { names, ..self }
    }

    /// The place from which a module's tensors are named; they come as `kind`.
    pub(in crate::engine::torch) fn root(&self, kind: Kind) -> Scope<'_> {
        self.part("", kind)
    }

    /// The same where one file holds several parts: names begin with `prefix` as it is.
    pub(in crate::engine::torch) fn part(&self, prefix: &str, kind: Kind) -> Scope<'_> {
        Scope { weights: self, prefix: prefix.to_owned(), kind }
    }

    /// Every tensor's name and shape.
    pub(in crate::engine::torch) fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
        self.files
            .iter()
            .flat_map(|file| file.metadata.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())))
    }

    /// The value of `key` in `__metadata__` of the first file's header.
    pub(in crate::engine::torch) fn header_metadata(&self, key: &str) -> Option<&str> {
        self.files[0].metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The first file, for errors that concern all of them.
    pub(in crate::engine::torch) fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// Refuses files that hold tensors that were not asked for, except those for which `harmless` holds. Gives back the
    /// mappings that tensors still use: they must live as long as the tensors.
    pub(in crate::engine::torch) fn finish(self, harmless: impl Fn(&str) -> bool) -> Result<Vec<Arc<Mmap>>, LoadError> {
        let used = self.used.borrow();
        for file in &self.files {
            let mut surplus: Vec<String> = file.metadata.tensors().into_keys().collect();
            surplus.retain(|name| !used.contains(name) && !harmless(name));
            if !surplus.is_empty() {
                surplus.sort();
                let first = surplus.iter().take(3).cloned().collect();
                return Err(LoadError::Surplus { file: file.path.clone(), count: surplus.len(), first });
            }
        }
        Ok(self.files.iter().filter(|file| file.shared.get()).map(|file| Arc::clone(&file.map)).collect())
    }

    fn find<'a>(&self, sources: &'a [TensorSource]) -> Option<(&MappedFile, &TensorInfo, &'a TensorSource)> {
        sources.iter().find_map(|source| {
            self.files.iter().find_map(|file| file.metadata.info(&source.name).map(|info| (file, info, source)))
        })
    }

    /// The tensor that modules call `name`. `shape` must match but for trailing ones (1×1 convolutions are matrices).
    fn tensor(&self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, LoadError> {
        let sources = (self.names)(name);
        let Some((file, info, source)) = self.find(&sources) else {
            let tensor = sources.into_iter().next().map_or_else(|| name.to_owned(), |source| source.name);
            return Err(LoadError::Missing { file: self.path().to_owned(), tensor, expected: shape.to_vec() });
        };
        let found: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        let expected = source.shape(shape);
        if trimmed(&found) != trimmed(&expected) {
            let (tensor, found) = (source.name.clone(), info.shape.clone());
            return Err(LoadError::Shape { file: file.path.clone(), tensor, expected, found });
        }
        let view = source.view(&file.view(&source.name, info)?)?;
        let tensor = self.context.upload_weight(&view)?.f_to_kind(kind)?.f_reshape(shape)?;
        if tensor.device() == Device::Cpu && tensor.data_ptr() == view.data_ptr() {
            file.shared.set(true);
        } else {
            file.release(source.range(info));
        }
        self.used.borrow_mut().insert(source.name.clone());
        Ok(tensor)
    }
}

impl MappedFile {
    fn open(path: &Path, on_disk: bool, bytes: impl FnOnce(&Path) -> io::Result<Mmap>) -> Result<Self, LoadError> {
        let fault = |cause: io::Error| LoadError::Path { path: path.to_owned(), reason: cause.to_string() };
        let map = bytes(path).map_err(fault)?;
        let header = |cause: SafeTensorError| LoadError::Header { file: path.to_owned(), reason: cause.to_string() };
        let (length, metadata) = SafeTensors::read_metadata(&map).map_err(header)?;
        let map = Arc::new(map);
        Ok(Self { path: path.to_owned(), map, metadata, on_disk, data: length + 8, shared: Cell::new(false) })
    }

    /// The tensor in place, in the file's own numbers.
    fn view(&self, name: &str, info: &TensorInfo) -> Result<Tensor, LoadError> {
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                let dtype = format!("{other:?}");
                return Err(LoadError::Dtype { file: self.path.clone(), tensor: name.to_owned(), dtype });
            }
        };
        let (start, end) = info.data_offsets;
        let Some(bytes) = self.map.get(self.data + start..self.data + end) else {
            return Err(LoadError::Header { file: self.path.clone(), reason: format!("{name} lies beyond its end") });
        };
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        let aligned = bytes.as_ptr().align_offset(kind.elt_size_in_bytes()) == 0;
        if !aligned {
            return Ok(Tensor::f_from_data_size(bytes, &shape, kind)?);
        }
        // SAFETY: `bytes` holds shape × element size bytes (safetensors has checked it against the header) and is aligned.
        // Tensors that keep the view are told by `shared`, and `finish` hands out the mapping to be kept beside them.
        #[expect(unsafe_code, reason = "a tensor over mapped memory")]
        let view = unsafe { Tensor::f_from_blob(bytes.as_ptr(), &shape, &[], kind, Device::Cpu) }?;
        Ok(view)
    }

    /// Gives back the memory that a tensor's bytes were read into, once they are elsewhere: else a model would be in memory twice until it
    /// is loaded. What is wanted again comes from the file again.
    fn release(&self, Range { start, end }: Range<usize>) {
        if self.on_disk {
            // SAFETY: the pages are those of a file that is mapped for reading: whatever reads them later finds the same bytes.
            #[expect(unsafe_code, reason = "pages of a mapping are dropped")]
            let _ =
                unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.data + start, end - start) };
        }
    }
}

fn map(path: &Path) -> io::Result<Mmap> {
    let file = whole::open(path)?;
    // SAFETY: the mapping is private and read-only. A file that another process shortens while it is mapped ends this
    // process with SIGBUS; replacing a model means writing a new file and renaming it, which leaves the old one intact.
    #[expect(unsafe_code, reason = "mapping a file")]
    unsafe {
        Mmap::map(&file)
    }
}

/// The same bytes in memory of our own, where no other process can take them away.
fn read(path: &Path, largest: u64) -> io::Result<Mmap> {
    let mut file = whole::open(path)?;
    let length = file.metadata()?.len();
    if length > largest {
        return Err(io::Error::other(format!("it has {length} bytes, and at most {largest} are read")));
    }
    let mut memory = MmapMut::map_anon(length as usize)?;
    file.read_exact(&mut memory)?;
    memory.make_read_only()
}

/// A place in a part's tree of tensors, such as `down_blocks.0.resnets.1`.
#[derive(Clone)]
pub(in crate::engine::torch) struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
    /// What tensors come as.
    kind: Kind,
}

impl Scope<'_> {
    /// What modules call this place, without the name of the part that a single file holds beside others.
    pub(in crate::engine::torch) fn name(&self) -> &str {
        self.prefix.rsplit('/').next().unwrap_or_default()
    }

    /// The place `name` below this one.
    pub(in crate::engine::torch) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { weights: self.weights, prefix: self.path(name), kind: self.kind }
    }

    /// The tensor `name` here, of `shape`, or the error that tells why not.
    pub(in crate::engine::torch) fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        self.weights.tensor(&self.path(name), shape, self.kind)
    }

    /// Whether a part that is loaded goes to main memory until it is used.
    pub(in crate::engine::torch) fn offloads(&self) -> bool {
        self.weights.context.offloads()
    }

    /// What tensors come as.
    pub(in crate::engine::torch) fn kind(&self) -> Kind {
        self.kind
    }

    fn path(&self, name: impl std::fmt::Display) -> String {
        let joint = if self.prefix.is_empty() || self.prefix.ends_with('/') { "" } else { "." };
        format!("{}{joint}{name}", self.prefix)
    }
}

fn trimmed(mut shape: &[i64]) -> &[i64] {
    while let [rest @ .., 1] = shape {
        shape = rest;
    }
    shape
}
