//! What is the file's own: copies of it, its room, and what stays in it. What all stores do, `contract` has.

mod copies;
mod disk_space;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::super::contract::{EP, at, claim_request, end, ids, job, output, submit};
use super::*;
use crate::blocking::blocking;

fn open(folder: &TempDir, name: &str) -> SqliteStore {
    SqliteStore::open(&folder.path().join(name), Rules::default(), None).unwrap()
}

/// How many rows which table has; those that have none are left out.
fn rows(path: &Path) -> BTreeMap<String, i64> {
    let db = Connection::open(path).unwrap();
    let mut tables =
        db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let count = |table: &String| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
    tables.into_iter().map(|table| (table.clone(), count(&table))).filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn only_its_owner_reads_a_queue_that_was_open_to_others_before() {
    let folder = tempfile::tempdir().unwrap();
    let modes = |endings: &[&str]| -> Vec<u32> {
        let mode = |ending: &&str| {
            fs::metadata(folder.path().join(format!("queue.db{ending}"))).unwrap().permissions().mode() & 0o777
        };
        endings.iter().map(mode).collect()
    };
    let store = open(&folder, "queue.db");
    submit(&store, &["a"]).await;
    assert_eq!(modes(&["", "-wal", "-shm"]), [0o600; 3]);
    for ending in ["", "-wal", "-shm"] {
        let path = folder.path().join(format!("queue.db{ending}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    // As another process does while this one serves.
    let other = open(&folder, "queue.db");
    assert_eq!(modes(&["", "-wal", "-shm"]), [0o600; 3]);
    assert!(other.read(EP, "a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_takes_no_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("queue.db"), folder.path().join("aside"));
    let store = open(&folder, "queue.db");
    submit(&store, &["a"]).await;
    store.ready().await.unwrap();
    fs::rename(&path, &aside).unwrap();
    let replaced = || fs::copy(&aside, &path).unwrap();
    for replace in [false, true] {
        if replace {
            replaced();
        }
        let why = store.ready().await.unwrap_err().to_string();
        assert!(why.contains("removed or replaced") && why.contains("queue.db"), "{why}");
        assert!(store.submit(EP, job("b", false, at(1))).await.is_err());
    }
    assert!(store.read(EP, "a").await.unwrap().is_some(), "what is there can still be read");
    fs::rename(&aside, &path).unwrap();
    store.reclaim_space().await.unwrap();
    submit(&store, &["b"]).await;
    store.ready().await.unwrap();
}

#[tokio::test]
async fn jobs_that_are_over_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    submit(&store, &["a", "b", "low-c", "d"]).await;
    store.take(EP, claim_request("w", 2, 1)).await.unwrap();
    store.change(EP, "a", |record: &mut Record| record.part("w"), Vec::new(), Some("1".into())).await.unwrap();
    store.change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    store.change(EP, "low-c", |record: &mut Record| record.cancel(at(2)), Vec::new(), None).await.unwrap();
    let later = at(24 * 3600);
    for (_, id) in store.due(later, 9).await.unwrap() {
        let tick = move |record: &mut Record| record.tick(&Rules::default(), later);
        store.change(EP, &id, tick, Vec::new(), None).await.unwrap();
    }
    let path = folder.path().join("queue.db");
    let left = rows(&path);
    assert_eq!(left.keys().collect::<Vec<_>>(), ["stops", "tallies"], "b had not ended");
    assert_eq!(left["stops"], 1);
    assert_eq!(store.take_stops(EP, "w").await.unwrap(), ["b"]);
    assert_eq!(rows(&path).into_keys().collect::<Vec<_>>(), ["tallies"]);
}

#[tokio::test]
async fn a_take_that_a_crash_has_undone_costs_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    submit(&store, &["a", "b"]).await;
    let path = |name: &str| folder.path().join(name);
    SqliteStore::backup(&path("queue.db"), &path("crashed.db")).unwrap();
    assert_eq!(ids(&store.take(EP, claim_request("w1", 2, 1)).await.unwrap().0), ["a", "b"]);
    // The machine comes back with what was synced before, and the worker goes on.
    let store = open(&folder, "crashed.db");
    assert_eq!(ids(&store.take(EP, claim_request("w2", 1, 2)).await.unwrap().0), ["a"], "it is handed out again");
    for (id, transition) in [("a", Transition::Stop("w2".into())), ("b", Transition::Changed)] {
        let (record, done) = store.change(EP, id, end("w1", true, 3), output("[1]"), None).await.unwrap().unwrap();
        assert_eq!((record.state, done), (JobState::Completed, transition), "{id}");
        assert_eq!(store.payload(EP, id, PayloadKind::Output).await.unwrap().unwrap(), "[1]");
    }
    let (_, late) = store.change(EP, "a", end("w2", true, 4), output("[2]"), None).await.unwrap().unwrap();
    assert_eq!(late, Transition::Unchanged);
    assert!(store.take(EP, claim_request("w2", 9, 5)).await.unwrap().0.is_empty(), "none is drawn once more");
}

#[tokio::test]
async fn what_a_worker_never_comes_to_hear_is_forgotten_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    let day = 24 * 3600;
    for (id, worker, seconds) in [("a", "w1", 0), ("b", "w2", 10), ("c", "w3", day + 5)] {
        store.submit(EP, job(id, false, at(seconds))).await.unwrap();
        store.take(EP, claim_request(worker, 1, seconds)).await.unwrap();
        store.change(EP, id, move |record: &mut Record| record.cancel(at(seconds)), Vec::new(), None).await.unwrap();
    }
    let mut heard = Vec::new();
    for worker in ["w1", "w2", "w3"] {
        heard.push(store.take_stops(EP, worker).await.unwrap());
    }
    assert_eq!(heard, [vec![], vec!["b".to_owned()], vec!["c".to_owned()]]);
}

/// A job with an input of so many KiB.
fn large(id: &str, kib: usize) -> Submission {
    let mut job = job(id, false, at(1));
    job.input = serde_json::value::to_raw_value(&"x".repeat(kib << 10)).unwrap();
    job
}

#[tokio::test]
async fn how_a_job_stands_is_read_again_when_it_changed_here_or_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let (store, path) = (open(&folder, "queue.db"), folder.path().join("queue.db"));
    submit(&store, &["a"]).await;
    let stands = async || {
        let known = store.cache.get(EP, "a", |_| Vec::new()).is_ok();
        (known, store.read(EP, "a").await.unwrap().unwrap().state)
    };
    assert_eq!([stands().await, stands().await], [(false, JobState::InQueue), (true, JobState::InQueue)]);
    store.take(EP, claim_request("w", 1, 1)).await.unwrap();
    assert_eq!([stands().await, stands().await], [(false, JobState::InProgress), (true, JobState::InProgress)]);
    open(&folder, "queue.db").change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    store.reclaim_space().await.unwrap();
    assert_eq!([stands().await, stands().await], [(false, JobState::Completed), (true, JobState::Completed)]);
    store.reclaim_space().await.unwrap();
    assert!(stands().await.0 && rows(&path)["jobs"] == 1);
}

#[tokio::test]
async fn the_time_of_the_queue_goes_on_with_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(&folder.path().join("queue.db"), Rules::default(), None).unwrap();
    let store = open();
    assert_eq!(store.sync_clock(None, at(100)).await, Ok(at(100)));
    assert_eq!(store.sync_clock(Some(at(110)), at(90_110)).await, Ok(at(110)), "the clock was set");
    drop(store);
    let store = open();
    assert_eq!(store.sync_clock(None, at(90_150)).await, Ok(at(150)));
    assert_eq!(store.sync_clock(Some(at(200)), at(90_200)).await, Ok(at(200)), "which follows from what is kept");
    drop(store);
    let store = open();
    assert_eq!(store.sync_clock(None, at(50)).await, Ok(at(110)));
    // While there are jobs, it is known to the minute.
    submit(&store, &["a"]).await;
    assert_eq!(store.sync_clock(Some(at(170)), at(110)).await, Ok(at(170)));
    drop(store);
    assert_eq!(open().sync_clock(None, at(50)).await, Ok(at(170)));
}
