//! Room on the disk: what happens where there is none, and what is given back.

use super::*;

/// Lets the file have so many pages more than it has, as a disk that is full would.
async fn room_for(store: &SqliteStore, pages: i64) {
    let limit = move |db: &Connection| {
        let now: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
        Ok(db.pragma_update_and_check(None, "max_page_count", now + pages, |_| Ok(()))?)
    };
    store.writer.call(limit).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_keeps_no_gateway_from_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    submit(&store, &["a"]).await;
    assert_eq!(store.sync_clock(None, at(100)).await.unwrap(), at(100));
    // Whatever is kept of the time takes a page more, and there is none.
    let fill = |db: &Connection| {
        let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
        db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        let more = "CREATE TEMP TRIGGER more AFTER DELETE ON time BEGIN INSERT INTO parts VALUES ('', '', 9, zeroblob(99999)); END";
        Ok(db.execute_batch(more)?)
    };
    store.writer.call(fill).await.unwrap();
    assert_eq!(store.sync_clock(None, at(900)).await.unwrap(), at(900), "as it follows from what was kept");
    assert!(store.read(EP, "a").await.unwrap().is_some());
    let room = |db: &Connection| Ok(db.execute_batch("PRAGMA max_page_count = 100000")?);
    store.writer.call(room).await.unwrap();
    assert_eq!(store.sync_clock(Some(at(901)), at(902)).await.unwrap(), at(901));
    assert_eq!(store.sync_clock(None, at(902)).await.unwrap(), at(901), "kept now");
}

#[tokio::test]
async fn a_store_that_was_killed_is_opened_without_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    submit(&store, &["a"]).await;
    // As it lies there while it is open.
    let copy = tempfile::tempdir().unwrap();
    for ending in ["", "-wal"] {
        let name = format!("queue.db{ending}");
        std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let bytes = |file: &str| std::fs::metadata(copy.path().join(file)).unwrap().len();
    let before = [bytes("queue.db"), bytes("queue.db-wal")];
    let opened = open(&copy, "queue.db");
    assert_eq!([bytes("queue.db"), bytes("queue.db-wal")], before, "there may be no room for more");
    assert!(opened.read(EP, "a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_disk_refuses_jobs_loses_nothing_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (store, path) = (open(&folder, "queue.db"), folder.path().join("queue.db"));
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w", 1, 1)).await.unwrap();
    let before = rows(&path);
    room_for(&store, 20).await;
    let why = |refused: Result<_, StoreError>| match refused {
        Err(StoreError::NoSpace(why)) => why,
        other => panic!("{other:?}"),
    };
    let refused = why(store.submit(EP, large("l", 100)).await);
    assert!(refused.starts_with("the disk at /") && refused.contains(" is full: "), "{refused}");
    assert_eq!(why(store.submit(EP, job("c", false, at(1))).await), refused, "nor is a small one taken for a moment");
    assert_eq!((rows(&path), store.read(EP, "l").await), (before, Ok(None)), "nothing is half there");
    // A result without room is refused, and its job as it was: its worker sends it again.
    let result = vec![(PayloadKind::Output, Bytes::from("1".repeat(100 << 10)))];
    why(store.change(EP, "a", end("w", true, 2), result.clone(), None).await.map(drop));
    assert_eq!(
        (store.held_by(EP, "w").await.unwrap(), store.counts(EP).await.unwrap().completed),
        (vec!["a".into()], 0)
    );
    // What there is room for goes on.
    assert_eq!(ids(&store.take(EP, claim_request("w", 2, 2)).await.unwrap().0), ["b"]);
    store.change(EP, "b", end("w", true, 3), output("[2]"), None).await.unwrap();
    room_for(&store, 1000).await;
    store.change(EP, "a", end("w", true, 3), result.clone(), None).await.unwrap();
    assert_eq!(store.payload(EP, "a", PayloadKind::Output).await.unwrap().unwrap(), result[0].1);
    let began = std::time::Instant::now();
    while let Err(refused) = store.submit(EP, large("l", 100)).await {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{refused}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_written_together_with_too_much_is_undone_with_it_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, "queue.db");
    submit(&store, &["a"]).await;
    room_for(&store, 20).await;
    // All of one turn of the writer, which is asked before it can begin.
    let (small, much, other) = tokio::join!(
        store.submit(EP, job("b", false, at(1))),
        store.submit(EP, large("l", 100)),
        store.take_stops(EP, "w")
    );
    assert!(matches!(much, Err(StoreError::NoSpace(_))), "{much:?}");
    for (id, answer) in [("b", small.is_ok()), ("l", false)] {
        assert_eq!(store.read(EP, id).await.unwrap().is_some(), answer, "{id} is there if that was answered");
    }
    assert!(matches!(other, Ok(_) | Err(StoreError::NoSpace(_))), "{other:?}");
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap().len(), 1 + usize::from(small.is_ok()));
}

#[tokio::test]
async fn new_jobs_leave_what_is_kept_free_and_results_may_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    submit(&open(&folder, "queue.db"), &["a"]).await;
    let store = SqliteStore::open(&path, Rules::default(), Some(u64::MAX)).unwrap();
    let refused = store.submit(EP, job("b", false, at(1))).await;
    assert!(matches!(&refused, Err(StoreError::NoSpace(why)) if why.contains("gateway.min_free")), "{refused:?}");
    store.take(EP, claim_request("w", 1, 1)).await.unwrap();
    store.change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap(), [""; 0]);
}

/// Bytes of a file, once all is in it.
fn size(path: &Path) -> u64 {
    let db = Connection::open(path).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn a_file_gives_back_what_it_needs_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (store, path) = (open(&folder, "queue.db"), folder.path().join("queue.db"));
    submit(&store, &["a"]).await;
    for number in 0..64 {
        store.submit(EP, large(&format!("l{number}"), 1 << 10)).await.unwrap();
    }
    // Nothing is erased, so nothing moves.
    store.reclaim_space().await.unwrap();
    let full = size(&path);
    assert!(full > 64 << 20, "{full}");
    for number in 0..64 {
        let gone = |record: &mut Record| {
            record.hidden = true;
            Transition::Changed
        };
        store.change(EP, &format!("l{number}"), gone, Vec::new(), None).await.unwrap();
        if number == 20 {
            store.reclaim_space().await.unwrap();
            assert!(size(&path) >= full, "less than half is room for what comes");
        }
    }
    for _ in 0..5 {
        store.reclaim_space().await.unwrap();
    }
    let left = size(&path);
    assert!(left < 8 << 20, "{left}");
    assert!(store.payload(EP, "a", PayloadKind::Input).await.unwrap().is_some());
    submit(&store, &["b"]).await;
    assert_eq!(ids(&store.take(EP, claim_request("w", 9, 1)).await.unwrap().0), ["a", "b"]);
}

#[tokio::test]
async fn a_file_of_the_versions_before_learns_to_shrink() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    submit(&open(&folder, "queue.db"), &["a"]).await;
    let kind = || vacuum::read(&Connection::open(&path).unwrap(), "auto_vacuum").unwrap();
    Connection::open(&path).unwrap().execute_batch("PRAGMA auto_vacuum = NONE; VACUUM").unwrap();
    assert_eq!(kind(), 0);
    let store = open(&folder, "queue.db");
    assert_eq!(kind(), 2);
    assert_eq!(ids(&store.take(EP, claim_request("w", 9, 1)).await.unwrap().0), ["a"]);
}
