//! How libtorch computes on a processor: with how many threads, and what becomes of memory that tensors let go of.

use std::ffi::c_int;
use std::thread::available_parallelism;

/// For an engine whose tensors are in main memory, before its thread starts.
pub fn prepare() {
    keep_freed_memory();
    // libtorch counts the processors of the machine. A container may be given less of their time, and threads that wait for each
    // other's share of it are slower than fewer threads.
    let threads = available_parallelism().map_or(1, |threads| threads.get().min(c_int::MAX as usize) as c_int);
    tch::set_num_threads(tch::get_num_threads().min(threads));
}

/// Up to 2 GiB of it, for the next tensor. By itself the C library returns large pieces to the system at once, and the next tensor
/// has them zeroed and mapped page by page again: a third of the time of decoding a picture. One heap, as the others are too small
/// for an image.
fn keep_freed_memory() {
    for (option, value) in [(ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, c_int::MAX), (TOP_PAD, 64 << 20)] {
        // Refused, it costs time and nothing else.
        mallopt(option, value);
    }
}

// malloc.h of glibc, the one C library that libtorch is built for.
const TRIM_THRESHOLD: c_int = -1;
const TOP_PAD: c_int = -2;
const MMAP_MAX: c_int = -4;
const ARENA_MAX: c_int = -8;

#[expect(unsafe_code, reason = "glibc's mallopt, which takes any numbers")]
unsafe extern "C" {
    safe fn mallopt(option: c_int, value: c_int) -> c_int;
}
