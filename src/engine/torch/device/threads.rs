//! With how many threads a CPU evaluates. Operators end when the last of their threads is done, so that one whose core another program
//! takes for a while has all of them wait: beside a busy neighbour, fewer threads may be twice as fast.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::debug;

/// What is evaluated for so long tells how fast it goes.
const WINDOW: Duration = Duration::from_millis(300);
/// So many cores' worth of time that threads are ready and do not run is a neighbour.
const NEIGHBOUR: f64 = 0.2;
/// Another number of threads is tried for one window no sooner than this after the last, and after ever longer as long as none is faster.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_mins(1);
/// Another number must be faster by this factor.
const FASTER: f64 = 1.05;

/// Has libtorch compute with as many threads as go fastest beside what else the machine does.
#[derive(Debug)]
pub(in crate::engine::torch) struct Threads {
    search: Search,
    window: Window,
    waits: HashMap<OsString, Duration>,
}

/// Evaluations since the last look.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    took: Duration,
    work: f64,
    /// The first of them, which prepares operators for another number of threads, does not count.
    warm: bool,
}

impl Threads {
    /// At most as many as libtorch has now.
    pub(in crate::engine::torch) fn new() -> Self {
        let most = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        Self { search: Search::new(most), window: Window::default(), waits: waits() }
    }

    /// An evaluation began then and is done; `work` is what it computed, in any unit.
    pub(in crate::engine::torch) fn evaluated(&mut self, began: Instant, work: f64) {
        let Self { search, window, .. } = self;
        if search.most == 1 {
            return;
        }
        if !window.warm {
            (window.warm, self.waits) = (true, waits());
            return;
        }
        window.took += began.elapsed();
        window.work += work;
        if window.took < WINDOW {
            return;
        }
        let (before, now) = (search.now, waits());
        search.learn(window.took, window.work, waited(&self.waits, &now));
        (*window, self.waits) = (Window { warm: search.now == before, ..Window::default() }, now);
        if search.now != before {
            debug!(threads = search.now, "another number of threads");
            tch::set_num_threads(i32::try_from(search.now).unwrap_or(1));
        }
    }
}

/// How long each thread of this process has been ready and did not run, by its number; none where the kernel does not tell.
fn waits() -> HashMap<OsString, Duration> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| Some((task.file_name(), wait_of(&task.path().join("schedstat"))?))).collect()
}

/// Of one thread, which may have ended.
fn wait_of(schedstat: &Path) -> Option<Duration> {
    let text = fs::read_to_string(schedstat).ok()?;
    // Nanoseconds that it ran and that it waited, and how often.
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// How long threads have waited since `before`, all together.
fn waited(before: &HashMap<OsString, Duration>, now: &HashMap<OsString, Duration>) -> Duration {
    let since =
        |(task, wait): (&OsString, &Duration)| wait.saturating_sub(before.get(task).copied().unwrap_or_default());
    now.iter().map(since).sum()
}

/// Looks for the number of threads that is fastest now, one try at a time.
#[derive(Debug)]
struct Search {
    most: usize,
    now: usize,
    /// What a try began from: number of threads, and work a second.
    before: Option<(usize, f64)>,
    /// Since the last try.
    since: Duration,
    patience: Duration,
}

impl Search {
    fn new(most: usize) -> Self {
        Self { most, now: most, before: None, since: Duration::ZERO, patience: Duration::ZERO }
    }

    /// What the current number of threads did: `work` in so much time, for so much of which threads were ready and did not run.
    fn learn(&mut self, took: Duration, work: f64, lost: Duration) {
        let rate = work / took.as_secs_f64();
        self.since += took;
        if let Some((threads, before)) = self.before.take() {
            self.since = Duration::ZERO;
            if rate > FASTER * before {
                self.patience = SOON;
            } else {
                self.now = threads;
                self.patience = (2 * self.patience).clamp(SOON, LATE);
            }
            return;
        }
        if self.since < self.patience {
            return;
        }
        let neighbours = lost.as_secs_f64() / took.as_secs_f64();
        let next = if neighbours > NEIGHBOUR {
            // A thread that shares a core with a neighbour waits half of the time.
            self.now.saturating_sub(((2.0 * neighbours).round() as usize).max(1)).max(1)
        } else {
            self.now + (self.most - self.now).div_ceil(2)
        };
        if next != self.now {
            self.before = Some((self.now, rate));
            self.now = next;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Barrier, Mutex};
    use std::thread;

    use super::*;

    /// A machine of `cores`, of which neighbours keep some busy: a thread that shares a core has all wait for it.
    fn evaluate(search: &mut Search, cores: usize, busy: usize, seconds: f64) {
        let mut left = seconds;
        while left > 0.0 {
            let displaced = (search.now + busy).saturating_sub(cores).min(search.now);
            let speed = if displaced > 0 { 0.4 } else { 1.0 };
            let took = Duration::from_millis(400);
            let lost = took.mul_f64(0.5 * displaced as f64);
            search.learn(took, search.now as f64 * speed * took.as_secs_f64(), lost);
            left -= took.as_secs_f64();
        }
    }

    #[test]
    fn alone_it_has_all_cores() {
        let mut search = Search::new(8);
        for _ in 0..100 {
            evaluate(&mut search, 8, 0, 0.4);
            assert_eq!(search.now, 8);
        }
    }

    #[test]
    fn beside_a_neighbour_it_gives_way_and_comes_back() {
        for (cores, busy) in [(2, 1), (8, 3), (16, 1)] {
            let mut search = Search::new(cores);
            evaluate(&mut search, cores, busy, 20.0);
            let mut given_way = 0;
            for _ in 0..100 {
                evaluate(&mut search, cores, busy, 0.4);
                given_way += usize::from(search.now <= cores - busy);
            }
            assert!(given_way > 85, "{given_way} of 100 with {busy} of {cores} cores busy");
            evaluate(&mut search, cores, 0, 100.0);
            assert_eq!(search.now, cores);
        }
    }

    #[test]
    fn fewer_threads_that_are_no_faster_are_not_kept() {
        // Another program takes a little of each core, and all threads are faster all the same.
        let mut search = Search::new(4);
        let mut all = 0;
        for _ in 0..400 {
            let took = Duration::from_millis(400);
            search.learn(took, search.now as f64, took.mul_f64(0.25));
            all += usize::from(search.now == 4);
        }
        assert!(all > 380, "{all} of 400");
    }

    #[test]
    fn waits_are_counted_of_each_thread_since_it_was_there() {
        let of = |waits: &[(&str, u64)]| {
            waits.iter().map(|(task, millis)| ((*task).into(), Duration::from_millis(*millis))).collect()
        };
        // One has ended, one is new, and one has a number that was another's.
        let (before, now) = (of(&[("1", 10), ("2", 500), ("3", 900)]), of(&[("1", 14), ("3", 1), ("4", 7)]));
        assert_eq!(waited(&before, &now), Duration::from_millis(4 + 7));
    }

    #[test]
    fn the_kernel_tells_who_waits() {
        let file = Path::new("/proc/thread-self/schedstat");
        if wait_of(file).is_none() {
            return; // a kernel without
        }
        assert!(!waits().is_empty());
        let many = 4 * thread::available_parallelism().unwrap().get();
        let (together, sum) = (Barrier::new(many), Mutex::new(Duration::ZERO));
        thread::scope(|scope| {
            for _ in 0..many {
                scope.spawn(|| {
                    together.wait();
                    let (began, before) = (Instant::now(), wait_of(file).unwrap());
                    while began.elapsed() < Duration::from_millis(100) {}
                    *sum.lock().unwrap() += wait_of(file).unwrap().saturating_sub(before);
                });
            }
        });
        assert!(sum.into_inner().unwrap() > Duration::ZERO);
    }
}
