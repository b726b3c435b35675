//! How libtorch computes on a CPU: with how many threads, and where it has its memory from.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::available_parallelism;

use memmap2::{Mmap, UncheckedAdvice};
use tikv_jemallocator::Jemalloc;

/// For the whole process, libtorch too. What tensors let go of is kept for the next ones: the C library's own allocator returns large
/// pieces to the system at once, and the next tensor has them zeroed and mapped page by page again, a third of the time of decoding a
/// picture; or, where it is told to keep them, finds no place in them for as large a piece again.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's settings, by the name that it knows them by; the environment's `MALLOC_CONF` goes before them. Large pieces are kept as others
/// are, and what was not wanted for half a minute is given back, by a thread that runs beside.
#[unsafe(export_name = "malloc_conf")]
#[expect(unsafe_code, reason = "a symbol of this name is jemalloc's to read")]
pub static MALLOC_CONF: &[u8; 82] =
    b"oversize_threshold:0,dirty_decay_ms:30000,muzzy_decay_ms:0,background_thread:true\0";

/// For an engine whose tensors are in main memory, before its thread starts.
pub fn prepare() {
    // libtorch counts the CPUs of the machine. A container may be given less of their time, and threads that wait for each
    // other's share of it are slower than fewer threads.
    let threads = available_parallelism().map_or(1, |threads| threads.get().min(c_int::MAX as usize) as c_int);
    tch::set_num_threads(tch::get_num_threads().min(threads));
}

/// Bytes that are worth giving back at once.
const RECLAIM_AT_BYTES: usize = 64 << 20;
/// Bytes that weights have left since memory was last given back.
static FREED_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Files of weights that tensors lie in.
static MAPS: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

/// Tensors lie in these.
pub(in crate::engine::torch) fn track(maps: &[Arc<Mmap>]) {
    let mut all = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|map| map.strong_count() > 0);
    all.extend(maps.iter().map(Arc::downgrade));
}

/// A weight was brought into another order and has left so many bytes behind. Else a model would be in memory twice when it is first used,
/// and what is kept for the next tensors would be as large as all weights.
pub(in crate::engine::torch) fn note_freed(bytes: usize) {
    if FREED_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes >= RECLAIM_AT_BYTES {
        reclaim();
    }
}

/// Tensors of so many bytes come next. Where these are large, what smaller ones have left is of no use to them.
pub(in crate::engine::torch) fn reclaim_before(bytes: usize) {
    if bytes >= RECLAIM_AT_BYTES {
        reclaim();
    }
}

/// Gives back all memory that is free now. The next tensors get fresh pages, so this is not for every evaluation.
pub(in crate::engine::torch) fn reclaim() {
    FREED_BYTES.store(0, Ordering::Relaxed);
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    for map in maps.iter().filter_map(Weak::upgrade) {
        discard(&map);
    }
    // SAFETY: jemalloc's name for the pages of all arenas that are unused (MALLCTL_ARENAS_ALL); it takes and gives no value.
    #[expect(unsafe_code, reason = "jemalloc's control interface")]
    let _ = unsafe {
        tikv_jemalloc_sys::mallctl(c"arena.4096.purge".as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0)
    };
}

/// Gives back the memory that a file was read into; what is still wanted comes from the file again.
fn discard(map: &Mmap) {
    // SAFETY: the pages are those of a file that is mapped for reading.
    #[expect(unsafe_code, reason = "pages of a mapping are dropped")]
    let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use safetensors::tensor::{Dtype, TensorView};
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::engine::torch::device::context::DeviceContext;
    use crate::engine::torch::nn::Linear;
    use crate::engine::torch::weights::files::Weights;

    /// Bytes of memory that the pages of a mapped file take in this process.
    fn resident(file: &Path) -> usize {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.ends_with(file.to_str().unwrap()));
        let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    #[test]
    fn a_packed_weight_leaves_its_file() {
        let (folder, side) = (tempfile::tempdir().unwrap(), 4608);
        let (file, bytes) = (folder.path().join("one.safetensors"), vec![0; 4 * side * side]);
        let tensor = TensorView::new(Dtype::F32, vec![side, side], &bytes).unwrap();
        safetensors::serialize_to_file([("weight", tensor)], None, &file).unwrap();
        let weights = Weights::open(std::slice::from_ref(&file), &DeviceContext::plain(Device::Cpu)).unwrap();
        let linear = Linear::load(&weights.root(Kind::Float), side as i64, side as i64, false).unwrap();
        let maps = weights.finish(|_| false).unwrap();
        track(&maps);
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>();
        assert_eq!(sum(&maps[0]), sum(&maps[0][..200]), "all of it was read, and is zeros but for the header");
        assert!(resident(&file) > RECLAIM_AT_BYTES);
        let _ = linear.forward(&Tensor::ones([8, side as i64], (Kind::Float, Device::Cpu))).unwrap();
        if cfg!(target_arch = "x86_64") {
            assert!(resident(&file) < RECLAIM_AT_BYTES / 4, "{} bytes", resident(&file));
        }
    }
}
