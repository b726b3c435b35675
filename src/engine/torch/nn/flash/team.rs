//! Work on the threads that libtorch computes with. Others would compete with these: between two operators they do not sleep at once, but
//! spin until the next one comes.

use std::any::Any;
use std::ffi::{c_uint, c_void};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::{ptr, thread};

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

/// Has each of `threads` threads do `work`, this one among them. If it panics on one, it panics here.
fn together<F: Fn() + Sync>(threads: usize, work: &F) {
    match *PARALLEL {
        _ if threads <= 1 => work(),
        Some(parallel) => {
            let task = Task { work, panic: Mutex::new(None) };
            let data = ptr::from_ref(&task).cast_mut().cast();
            // SAFETY: the call returns when all threads are done with the task, which they may share.
            #[expect(unsafe_code, reason = "a call into the OpenMP runtime")]
            unsafe {
                parallel(call::<F>, data, threads as c_uint, 0);
            }
            if let Some(payload) = task.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
                panic::resume_unwind(payload);
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

/// What a thread is given, and what one left that panicked: a panic must not go through the frames of C.
struct Task<'a, F> {
    work: &'a F,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

extern "C" fn call<F: Fn() + Sync>(task: *mut c_void) {
    // SAFETY: the pointer is that of the task in `together`, which lives until all threads are done.
    #[expect(unsafe_code, reason = "a closure comes back from C")]
    let task = unsafe { &*task.cast_const().cast::<Task<'_, F>>() };
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(task.work)) {
        *task.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
    fn a_panic_of_one_is_a_panic_of_all() {
        let fault = panic::catch_unwind(|| for_each(9, |index| assert_ne!(index, 7))).unwrap_err();
        assert!(fault.downcast_ref::<String>().is_some_and(|text| text.contains('7')), "the panic itself");
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
