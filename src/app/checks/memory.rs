//! Memory of the machine, as far as this process may have it.

use std::fs;
use std::path::Path;

use super::{Check, Verdict};
use crate::models::size;

/// Beside a model's weights: the program, pictures on their way in and out.
const MEMORY_BESIDE_WEIGHTS: u64 = 512 << 20;

/// Whether there is enough: `least` GiB where somebody says so, else what weights of `weights` bytes want, which is an estimate and
/// therefore no reason not to try.
pub fn check(least: Option<f64>, weights: u64) -> Check {
    match available() {
        Some(free) => judge(free, least, weights),
        None => Check::not_ok(
            "memory",
            Verdict::Warn,
            "how much is free is not known",
            "mount /proc, where the kernel tells it",
        ),
    }
}

fn judge(free: u64, least: Option<f64>, weights: u64) -> Check {
    if let Some(least) = least {
        let found = format!("{} available, and fitness.min_memory asks for {least} GiB", size(free));
        return if free as f64 >= least * f64::from(1 << 30) {
            Check::ok("memory", found)
        } else {
            Check::not_ok("memory", Verdict::Fail, found, "give it more, or set RUNPOD_MIN_MEMORY_GB lower")
        };
    }
    let wanted = weights + MEMORY_BESIDE_WEIGHTS;
    let found = format!("{} available, {} should do", size(free), size(wanted));
    if free >= wanted {
        Check::ok("memory", found)
    } else {
        Check::not_ok("memory", Verdict::Warn, found, "stop other processes, or take a smaller model")
    }
}

/// Bytes that this process can still get, from the machine or from its container, whichever has less.
pub fn available() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let machine = kib(&read(Path::new("/proc/meminfo")), "MemAvailable:");
    let group = read(Path::new("/proc/self/cgroup"));
    // The second hierarchy alone has no number and no name.
    let own = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let folder = Path::new("/sys/fs/cgroup").join(own);
    let file = |name: &str| read(&folder.join(name));
    let container = left(&file("memory.max"), &file("memory.current"), &file("memory.stat"));
    machine.into_iter().chain(container).min()
}

/// A line of `/proc/meminfo`, in bytes.
fn kib(info: &str, key: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a control group of Linux has left, `None` where it has no limit. Pages of files that are not in use can be had back.
fn left(max: &str, current: &str, stat: &str) -> Option<u64> {
    let (max, current): (u64, u64) = (max.trim().parse().ok()?, current.trim().parse().ok()?);
    let idle = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(max.saturating_sub(current.saturating_sub(idle.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_may_have_less_than_its_machine() {
        assert_eq!(left("4096\n", "3000\n", "anon 5\ninactive_file 1000\nactive_file 7\n"), Some(2096));
        assert_eq!(left("4096", "9000", ""), Some(0));
        assert_eq!((left("max\n", "3000", ""), left("", "", "")), (None, None));
        assert_eq!(kib("MemTotal: 9 kB\nMemAvailable:    2 kB\n", "MemAvailable:"), Some(2048));
        assert_eq!(kib("MemAvailable: 18446744073709551615 kB", "MemAvailable:"), None);
        assert!(available().is_some_and(|free| free > 0));
    }

    #[test]
    fn an_estimate_warns_and_a_limit_fails() {
        let verdict = |free, least, weights| judge(free, least, weights).verdict;
        assert_eq!(verdict(2 << 30, None, 1 << 30), Verdict::Ok);
        assert_eq!(verdict(1 << 30, None, 1 << 30), Verdict::Warn);
        assert_eq!(verdict(2 << 30, Some(2.0), u64::MAX - MEMORY_BESIDE_WEIGHTS), Verdict::Ok);
        assert_eq!(verdict((2 << 30) - 1, Some(2.0), 0), Verdict::Fail);
    }
}
