//! What the tests of a spool share.
#![allow(clippy::unwrap_used)]

mod entries;
mod process_dirs;
mod room;
mod sweep;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ResultHeader {
    job: String,
    url: String,
}

impl EntryHeader for ResultHeader {
    fn job(&self) -> &str {
        &self.job
    }
}

const NOW: UnixTime = UnixTime::from_millis(1_000_000);

fn header(job: &str) -> ResultHeader {
    ResultHeader { job: job.into(), url: format!("http://queue/{job}") }
}

fn later(seconds: u64) -> UnixTime {
    NOW + Duration::from_secs(seconds)
}

/// A spool that holds 1000 bytes, its kind of entries, and what was left in it.
fn open(root: &Path, now: UnixTime) -> (Spool, SpoolKind<ResultHeader>, Vec<SpoolEntry<ResultHeader>>) {
    let spool = Spool::open(root, 1000).unwrap();
    let (kind, left) = spool.open_kind("results", now);
    (spool, kind, left)
}

fn jobs(left: &[SpoolEntry<ResultHeader>]) -> Vec<&str> {
    left.iter().map(|entry| entry.header().job()).collect()
}

fn names(root: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(root.path().join("0/results")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An entry's file, as it is between two steps of a process that dies there.
async fn an_entry(root: &TempDir, job: &str) -> PathBuf {
    let (_spool, kind, _) = open(root.path(), NOW);
    let entry = kind.keep(header(job), later(60), Bytes::from_static(b"{}")).await;
    match &entry.storage {
        Storage::Disk { path, .. } => path.clone(),
        _ => panic!("{entry:?} is not on disk"),
    }
}
