//! The worker hashes its models' weight files when it takes jobs already: reading them once more may take longer than loading them did.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread;

use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::checks::hashes;
use crate::models::SUMS;
use crate::telemetry::Metrics;

/// What leaves the processor to everybody else.
const NICE: i32 = 19;

/// A thread that hashes, until this is dropped.
#[derive(Debug)]
pub(super) struct Hashing {
    _stop: DropGuard,
}

/// Begins to hash the weight files of the `models` at these paths. A file that is not the listed one is told to the log and `metrics`; it
/// is no reason to end, because what it draws has been seen.
pub(super) fn begin(models: BTreeSet<PathBuf>, metrics: Metrics) -> Hashing {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let thread = thread::Builder::new().name("hashes".to_owned()).spawn(move || {
        // Of this thread alone, on Linux.
        if let Err(cause) = rustix::process::nice(NICE) {
            warn!("weight files are hashed as fast as they can be: {cause}");
        }
        hash(&models, &metrics, &stopped);
    });
    if let Err(cause) = thread {
        warn!("weight files are not hashed: no thread for that: {cause}");
    }
    Hashing { _stop: stop.drop_guard() }
}

fn hash(models: &BTreeSet<PathBuf>, metrics: &Metrics, stop: &CancellationToken) {
    for model in models {
        hashes::each(
            model,
            || stop.is_cancelled(),
            |hashed| {
                let compared = hashed.and_then(|hashed| {
                    let (file, ms) = (hashed.file.display(), hashed.time.as_millis() as u64);
                    let (bytes, sha256) = (hashed.bytes, hashed.short());
                    info!(%file, bytes, ms, sha256, "weight file hashed");
                    hashed.compare()
                });
                if let Err(fault) = compared {
                    error!("{fault}; fetch it again, or mend {}: what this worker draws may be wrong", SUMS);
                    metrics.weights_wrong();
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_another_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.safetensors"), "abc").unwrap();
        let models = BTreeSet::from([folder.path().to_owned()]);
        for (hash, wrong) in
            [("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned(), 0), ("0".repeat(64), 1)]
        {
            fs::write(folder.path().join(SUMS), format!("{hash}  a.safetensors\n")).unwrap();
            let metrics = Metrics::default();
            super::hash(&models, &metrics, &CancellationToken::new());
            let line = format!("latentd_weight_files_wrong {wrong}");
            assert!(metrics.text().lines().any(|told| told == line), "{line} is not in\n{}", metrics.text());
        }
    }

    #[test]
    fn a_thread_hashes_while_others_work() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.safetensors"), "abc").unwrap();
        fs::write(folder.path().join(SUMS), format!("{}  a.safetensors\n", "0".repeat(64))).unwrap();
        let metrics = Metrics::default();
        let hashing = begin(BTreeSet::from([folder.path().to_owned()]), metrics.clone());
        while !metrics.text().contains("latentd_weight_files_wrong 1") {
            thread::yield_now();
        }
        drop(hashing);
    }
}
