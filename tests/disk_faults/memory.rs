//! The store when `SQLite` has no memory left.

use std::path::Path;

use bytes::Bytes;
use latentd::date::UnixTime;
use latentd::queue::{Claim, Finish, JobState, Record, Rules, SubmissionContext, parse_submission};
use latentd::store::{ClaimRequest, LoadedPayloads, PayloadKind, SqliteStore, Store, StoreError};
use rusqlite::Connection;

const EP: &str = "sd";
const NOW: UnixTime = UnixTime::from_millis(1_000_000);

/// Bytes that `SQLite` may have in this process, 0 for all.
#[expect(unsafe_code, reason = "what SQL has for it raises no limit")]
fn limit(bytes: i64) {
    // Safety: it takes any number, on any thread.
    unsafe { rusqlite::ffi::sqlite3_hard_heap_limit64(bytes) };
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Rules::default(), None).unwrap()
}

async fn submit(store: &SqliteStore, id: &str) -> Result<(), StoreError> {
    let body = format!(r#"{{"input": "{}"}}"#, "x".repeat(50_000));
    let manner = SubmissionContext {
        id: id.into(),
        now: NOW,
        execution_timeout: std::time::Duration::from_mins(9),
        ttl: None,
        wait: None,
    };
    store.submit(EP, parse_submission(body.as_bytes(), manner).unwrap()).await
}

async fn take(store: &SqliteStore) -> Result<Vec<String>, StoreError> {
    let claim = Claim { worker: "w".into(), gpu: None, sends_heartbeats: false, at: NOW };
    let (handed, _) = store.take(EP, ClaimRequest { claim, max_jobs: 9, max_bytes: usize::MAX }).await?;
    Ok(handed.into_iter().map(|job| job.record.id).collect())
}

async fn finish(store: &SqliteStore, id: &str) -> Result<(), StoreError> {
    let end = |record: &mut Record| record.finish(Finish { worker: "w", error: None, output: true }, NOW);
    let output = Bytes::from(format!("\"{id}{}\"", "y".repeat(50_000)));
    store.change(EP, id, end, vec![(PayloadKind::Output, output)], None).await.map(drop)
}

/// A limit is of the whole process, in which no other test has a store.
#[tokio::test]
async fn whatever_allocation_fails_nothing_is_lost_or_done_twice_and_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let store = open(&path);
    let (mut refused, mut ended) = (0, Vec::new());
    // From less than it needs for anything to enough for everything.
    for (round, bytes) in
        (0..60).map(|step| (step, 4096 << (step / 5))).map(|(step, base)| (step, base + base / 5 * (step % 5)))
    {
        let [one, other] = ["a", "b"].map(|name| format!("{name}{round:02}"));
        limit(bytes);
        let submitted = [submit(&store, &one).await, submit(&store, &other).await];
        let taken = take(&store).await;
        let finished = finish(&store, &one).await;
        limit(0);
        refused += submitted.iter().filter(|done| done.is_err()).count();
        for (id, done) in [&one, &other].into_iter().zip(&submitted) {
            if done.is_ok() {
                assert!(store.read(EP, id).await.unwrap().is_some(), "{bytes}: {id} was answered");
            }
        }
        // What was handed out is held, and nothing else is.
        let mut handed = taken.unwrap_or_default();
        let stood = store.read(EP, &one).await.unwrap();
        let done = stood.is_some_and(|record| record.state == JobState::Completed);
        assert!(finished.is_err() || done || submitted[0].is_err(), "{bytes}");
        handed.retain(|id| !(done && *id == one));
        handed.sort();
        assert_eq!(store.held_by(EP, "w").await.unwrap(), handed, "{bytes}");
        // And all goes on.
        for id in [&one, &other] {
            match submit(&store, id).await {
                Ok(()) | Err(StoreError::Duplicate) => {}
                other => panic!("{bytes}: {other:?}"),
            }
        }
        take(&store).await.unwrap();
        for id in [one, other] {
            finish(&store, &id).await.unwrap();
            ended.push(id);
        }
        assert_eq!(store.counts(EP).await.unwrap().completed, ended.len() as u64, "{bytes}");
    }
    assert!(refused > 5 && refused < 100, "{refused} submits were refused");
    drop(store);
    let store = open(&path);
    for id in &ended {
        let (record, parts) = store.find(EP, id, |_| vec![PayloadKind::Output], usize::MAX).await.unwrap().unwrap();
        let LoadedPayloads::Read(parts) = parts else { panic!("{id}: {parts:?}") };
        assert_eq!((record.state, parts[0].as_ref().map(Bytes::len)), (JobState::Completed, Some(50_005)), "{id}");
    }
    let db = Connection::open(&path).unwrap();
    assert_eq!(db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
}
