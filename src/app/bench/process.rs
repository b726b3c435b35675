//! What the kernel knows of this process.

use std::fs;

use super::figures::MemoryFigures;
use crate::engine;

/// Clock ticks a second, of `/proc` on every Linux that there is.
const TICKS: f64 = 100.0;

/// Seconds since it was started, to a hundredth; not a number where there is no `/proc`.
pub(super) fn age() -> f64 {
    let read = || -> Option<f64> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the name, which may have blanks; the start is the 22nd.
        let began: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let now: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
        Some(now - began / TICKS)
    };
    read().unwrap_or(f64::NAN)
}

/// The most that was resident, and what is taken of the device.
pub(super) fn memory(device: Option<engine::Memory>) -> MemoryFigures {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    MemoryFigures { resident: peak.unwrap_or(0) << 10, device: device.map(|memory| memory.total - memory.free) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_an_age_and_memory() {
        // Of a run of tests.
        assert!((0.0..86_400.0).contains(&age()));
        assert!(memory(None).resident > 1 << 20);
    }
}
