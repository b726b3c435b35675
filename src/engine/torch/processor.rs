//! How libtorch computes on a processor: with how many threads, and where it has its memory from.

use std::ffi::c_int;
use std::thread::available_parallelism;

use tikv_jemallocator::Jemalloc;

/// For the whole process, libtorch too. What tensors let go of is kept for the next ones: the C library's own allocator returns large
/// pieces to the system at once, and the next tensor has them zeroed and mapped page by page again, a third of the time of decoding a
/// picture; or, where it is told to keep them, finds no place in them for as large a piece again.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's settings, by the name that it knows them by; the environment's `MALLOC_CONF` goes before them. Large pieces are kept as others
/// are, and what nobody has wanted for half a minute is given back, by a thread that runs beside.
#[unsafe(export_name = "malloc_conf")]
#[expect(unsafe_code, reason = "a symbol of this name is jemalloc's to read")]
pub static MALLOC_CONF: &[u8; 82] =
    b"oversize_threshold:0,dirty_decay_ms:30000,muzzy_decay_ms:0,background_thread:true\0";

/// For an engine whose tensors are in main memory, before its thread starts.
pub fn prepare() {
    // libtorch counts the processors of the machine. A container may be given less of their time, and threads that wait for each
    // other's share of it are slower than fewer threads.
    let threads = available_parallelism().map_or(1, |threads| threads.get().min(c_int::MAX as usize) as c_int);
    tch::set_num_threads(tch::get_num_threads().min(threads));
}
