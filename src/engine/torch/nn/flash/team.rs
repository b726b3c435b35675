//! Work on the threads that libtorch computes with. Others would compete with these: between two operators they do not sleep at once, but
//! spin until the next one comes.

use std::ffi::{c_uint, c_void};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use libloading::os::unix::Library;

/// Of the OpenMP runtime, GCC's or one that stands in for it: has `work(data)` done by each of so many threads.
type Parallel =
    unsafe extern "C" fn(work: extern "C" fn(*mut c_void), data: *mut c_void, threads: c_uint, flags: c_uint);

/// libtorch's own OpenMP runtime, where it has one.
#[expect(unsafe_code, reason = "a symbol has the type that is said here")]
static PARALLEL: LazyLock<Option<Parallel>> = LazyLock::new(|| {
    // SAFETY: the function's type is that of GCC's libgomp.
    unsafe { Library::this().get::<Parallel>(b"GOMP_parallel\0") }.ok().map(|function| *function)
});

/// Does `work` for each number below `count`, in any order, each once; a thread that is slow does fewer.
pub(super) fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let member = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            work(index);
        }
    };
    together(usize::try_from(tch::get_num_threads()).unwrap_or(1).min(count), &member);
}

/// Has each of `threads` threads do `work`, this one among them.
fn together<F: Fn() + Sync>(threads: usize, work: &F) {
    extern "C" fn call<F: Fn() + Sync>(work: *mut c_void) {
        // SAFETY: the pointer is that of `work` below, which lives until all threads are done.
        #[expect(unsafe_code, reason = "a closure comes back from C")]
        let work = unsafe { &*work.cast_const().cast::<F>() };
        work();
    }
    match *PARALLEL {
        _ if threads <= 1 => work(),
        Some(parallel) => {
            let data = std::ptr::from_ref(work).cast_mut().cast();
            // SAFETY: the call returns when all threads are done; `work` may be shared by them.
            #[expect(unsafe_code, reason = "a call into the OpenMP runtime")]
            unsafe {
                parallel(call::<F>, data, threads as c_uint, 0);
            }
        }
        None => thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use super::*;

    #[test]
    fn each_is_done_once() {
        for count in [0, 1, 2, 7, 1000] {
            let done: Vec<AtomicU8> = (0..count).map(|_| AtomicU8::new(0)).collect();
            for_each(count, |index| {
                done[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{count}");
        }
    }

    #[test]
    fn threads_are_as_many_as_asked_for() {
        let came = AtomicUsize::new(0);
        together(3, &|| {
            came.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(came.into_inner(), 3);
        assert!(PARALLEL.is_some(), "libtorch of PyPI has GCC's runtime");
    }
}
