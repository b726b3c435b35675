//! Copies of a queue that is served.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_what_was_answered_before_it_began_while_more_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, answered, enough) =
        (Arc::new(open(&folder, "queue.db")), Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    submit(&*store, &["done", "held"]).await;
    store.take(EP, claim_request("w", 2, 1)).await.unwrap();
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
        assert!(copy.payload(EP, id, PayloadKind::Input).await.unwrap().is_some());
    }
    assert_eq!(copy.payload(EP, "done", PayloadKind::Output).await.unwrap().unwrap(), "[1]");
    assert_eq!(
        (copy.held_by(EP, "w").await.unwrap(), copy.counts(EP).await.unwrap().completed),
        (vec!["held".into()], 1)
    );
    let all = copy.take(EP, claim_request("w2", usize::MAX, 2)).await.unwrap().0;
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
    // What a copy left that was killed is in no one's way; one that goes on is left alone.
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
