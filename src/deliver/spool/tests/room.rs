//! Room on a disk that is full, refuses, or is none.

use super::*;

#[tokio::test]
async fn a_full_spool_has_no_room_until_it_drains() {
    let root = tempfile::tempdir().unwrap();
    let (spool, kind, _) = open(root.path(), NOW);
    let small = kind.keep(header("small"), later(60), Bytes::from_static(b"x")).await;
    assert!(spool.has_room());
    let large = kind.keep(header("large"), later(60), vec![0; 1000].into()).await;
    assert!(!spool.has_room());
    let more = kind.keep(header("more"), later(60), Bytes::from_static(b"what is worked on is kept")).await;
    assert!(matches!(more.storage, Storage::Disk { .. }));
    drop((small, large, more, kind, spool));

    let (spool, _tray, mut left) = open(root.path(), NOW);
    assert!(!spool.has_room(), "what was left counts");
    let large = left.remove(left.iter().position(|entry| entry.header().job == "large").unwrap());
    tokio::join!(spool.room(), large.done());
    assert!(spool.has_room());
}

#[tokio::test]
async fn a_disk_that_refuses_is_survived() {
    let root = tempfile::tempdir().unwrap();
    let (spool, kind, _) = open(root.path(), NOW);
    let folder = root.path().join("0/results");
    fs::remove_dir(&folder).unwrap();
    fs::write(&folder, "a file where a folder should be").unwrap();
    let [a, b] = ["a", "b"].map(|job| kind.keep(header(job), later(60), Bytes::from_static(b"body")));
    let (a, b) = tokio::join!(a, b);
    assert!(spool.has_room() && !a.lasts() && spool.0.refused.load(Ordering::Relaxed));
    assert_eq!(a.body().await.unwrap(), "body");
    let large = kind.keep(header("large"), later(60), vec![0; 992].into()).await;
    assert!(!spool.has_room(), "memory is not without end either");
    a.done().await;
    assert!(spool.has_room());
    let more = kind.keep(header("more"), later(60), vec![0; 8].into()).await;
    assert!(!spool.has_room());
    drop((b, large, more));
    assert!(spool.has_room(), "what is lost with its owner does not stop the taking for ever");
    fs::remove_file(&folder).unwrap();
    kind.keep(header("c"), later(60), Bytes::from_static(b"body")).await.done().await;
    assert!(spool.has_room() && !spool.0.refused.load(Ordering::Relaxed));
}

#[tokio::test]
async fn without_a_folder_entries_are_kept_in_memory() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("0")).unwrap();
    fs::write(root.path().join("0/results"), "a file where a folder should be").unwrap();
    let (homeless, trayless) = (Spool::in_memory(8), Spool::open(root.path(), 8).unwrap());
    for spool in [homeless, trayless] {
        let (kind, left) = spool.open_kind::<ResultHeader>("results", NOW);
        assert!(left.is_empty());
        let entry = kind.keep(header("j"), later(60), Bytes::from_static(b"12345678")).await;
        assert_eq!((entry.body().await.unwrap(), entry.lasts(), spool.has_room()), ("12345678".into(), false, false));
        entry.done().await;
        assert!(spool.has_room());
    }
}
