//! What belongs to whom, of several workers and kinds of entries.

use super::*;

#[tokio::test]
async fn what_a_dead_worker_left_comes_to_a_living_one() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path(), NOW);
    let second = open(root.path(), NOW);
    drop(second.1.keep(header("j"), later(60), Bytes::from_static(b"body")).await);
    drop((first, second));
    let heir = open(root.path(), NOW);
    assert_eq!(jobs(&heir.2), ["j"]);
    assert_eq!(heir.2[0].body().await.unwrap(), "body");
    assert_eq!(jobs(&open(root.path(), NOW).2), [""; 0], "and to no other");
}

#[tokio::test]
async fn trays_do_not_mix() {
    let root = tempfile::tempdir().unwrap();
    an_entry(&root, "j").await;
    let spool = Spool::open(root.path(), 1000).unwrap();
    assert_eq!(jobs(&spool.open_kind("webhooks", NOW).1), [""; 0]);
    assert_eq!(jobs(&spool.open_kind("results", NOW).1), ["j"]);
}
