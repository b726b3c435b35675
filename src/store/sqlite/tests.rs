//! What is the file's own: copies of it, and what stays in it. What all stores do, `contract` has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::super::contract::{EP, at, end, ids, job, output, submit, taker};
use super::*;
use crate::blocking::blocking;

fn open(folder: &TempDir, name: &str) -> SqliteStore {
    SqliteStore::open(&folder.path().join(name), Rules::default()).unwrap()
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

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_what_was_answered_before_it_began_while_more_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, answered, enough) =
        (Arc::new(open(&folder, "queue.db")), Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    submit(&*store, &["done", "held"]).await;
    store.take(EP, taker("w", 2, 1)).await.unwrap();
    store.change(EP, "done", end("w", true, 2), output("[1]"), None).await.unwrap();
    let mut submits = JoinSet::new();
    for client in 0..4 {
        let (store, answered, enough) = (store.clone(), answered.clone(), enough.clone());
        submits.spawn(async move {
            for number in 0.. {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("{client}-{number}");
                store.submit(EP, job(&id, false, at(1))).await.unwrap();
                answered.lock().unwrap().push(id);
            }
        });
    }
    let count = || answered.lock().unwrap().len();
    while count() < 200 {
        tokio::task::yield_now().await;
    }
    let before = answered.lock().unwrap().clone();
    let (from, to) = (folder.path().join("queue.db"), folder.path().join("copy.db"));
    let copied = blocking({
        let to = to.clone();
        move || SqliteStore::backup(&from, &to)
    })
    .await
    .unwrap();
    let after = count();
    while count() < after + 20 {
        tokio::task::yield_now().await;
    }
    enough.store(true, Ordering::Relaxed);
    submits.join_all().await;
    assert!(copied.jobs as usize >= before.len() + 2 && copied.bytes == fs::metadata(&to).unwrap().len(), "{copied:?}");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = open(&folder, "copy.db");
    for id in &before {
        assert!(copy.read(EP, id).await.unwrap().is_some(), "{id} was answered before");
        assert!(copy.payload(EP, id, Part::Input).await.unwrap().is_some());
    }
    assert_eq!(copy.payload(EP, "done", Part::Output).await.unwrap().unwrap(), "[1]");
    assert_eq!((copy.held(EP, "w").await.unwrap(), copy.counts(EP).await.unwrap().completed), (vec!["held".into()], 1));
    let all = copy.take(EP, taker("w2", usize::MAX, 2)).await.unwrap();
    assert_eq!(ids(&all).len() as u64, copied.jobs - 2, "it is a queue that goes on");
}

#[tokio::test]
async fn a_copy_overwrites_nothing_and_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let why = |from: &str, to: &str| SqliteStore::backup(&path(from), &path(to)).unwrap_err().to_string();
    submit(&open(&folder, "queue.db"), &["a"]).await;
    fs::write(path("there"), "something").unwrap();
    assert!(why("queue.db", "there").contains("none is overwritten"));
    assert_eq!(fs::read_to_string(path("there")).unwrap(), "something");
    assert!(why("missing.db", "copy").contains("missing.db: unable to open"));
    assert!(why("there", "copy").contains("there: "), "it is no store");
    assert!(why("queue.db", "missing/copy").contains("missing/copy.part: No such file"));
    assert!(!path("missing.db").exists() && !path("copy").exists() && !path("copy.part").exists());
    // What a copy left that was killed is in nobody's way; one that goes on is left alone.
    fs::write(path("copy.part"), "half").unwrap();
    let other = begin_elsewhere(&path("copy.part"));
    assert!(why("queue.db", "copy").contains("another process is writing it"));
    drop(other);
    assert_eq!(SqliteStore::backup(&path("queue.db"), &path("copy")).unwrap().jobs, 1);
    assert!(!path("copy.part").exists());
}

/// As another process would.
fn begin_elsewhere(part: &Path) -> fs::File {
    let file = fs::File::open(part).unwrap();
    file.lock().unwrap();
    file
}

#[tokio::test]
async fn jobs_that_are_over_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    submit(&store, &["a", "b", "low-c", "d"]).await;
    store.take(EP, taker("w", 2, 1)).await.unwrap();
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
    assert_eq!(store.stops(EP, "w").await.unwrap(), ["b"]);
    assert_eq!(rows(&path).into_keys().collect::<Vec<_>>(), ["tallies"]);
}

#[tokio::test]
async fn what_a_worker_never_comes_to_hear_is_forgotten_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    let day = 24 * 3600;
    for (id, worker, seconds) in [("a", "w1", 0), ("b", "w2", 10), ("c", "w3", day + 5)] {
        store.submit(EP, job(id, false, at(seconds))).await.unwrap();
        store.take(EP, taker(worker, 1, seconds)).await.unwrap();
        store.change(EP, id, move |record: &mut Record| record.cancel(at(seconds)), Vec::new(), None).await.unwrap();
    }
    let mut heard = Vec::new();
    for worker in ["w1", "w2", "w3"] {
        heard.push(store.stops(EP, worker).await.unwrap());
    }
    assert_eq!(heard, [vec![], vec!["b".to_owned()], vec!["c".to_owned()]]);
}
