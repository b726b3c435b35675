//! What the tests of a spool share.
#![allow(clippy::unwrap_used)]

mod letters;
mod room;
mod seats;
mod sweep;

use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Slip {
    job: String,
    url: String,
}

impl Note for Slip {
    fn job(&self) -> &str {
        &self.job
    }
}

const NOW: UnixTime = UnixTime::from_millis(1_000_000);

fn slip(job: &str) -> Slip {
    Slip { job: job.into(), url: format!("http://queue/{job}") }
}

fn later(seconds: u64) -> UnixTime {
    NOW + Duration::from_secs(seconds)
}

/// A spool that holds 1000 bytes, its tray, and what was left in it.
fn open(root: &Path, now: UnixTime) -> (Spool, Tray<Slip>, Vec<Kept<Slip>>) {
    let spool = Spool::open(root, 1000).unwrap();
    let (tray, left) = spool.tray("results", now);
    (spool, tray, left)
}

fn jobs(left: &[Kept<Slip>]) -> Vec<&str> {
    left.iter().map(|kept| kept.note().job()).collect()
}

fn names(root: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(root.path().join("0/results")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A letter's file, as it is between two steps of a process that dies there.
async fn a_letter(root: &TempDir, job: &str) -> PathBuf {
    let (_spool, tray, _) = open(root.path(), NOW);
    let kept = tray.keep(slip(job), later(60), Bytes::from_static(b"{}")).await;
    match &kept.place {
        Place::Disk { path, .. } => path.clone(),
        _ => panic!("{kept:?} is not on disk"),
    }
}
