//! What holds of a queue in a file beyond the contract: it is there when the file is opened again, and no other file is taken for one.

use super::super::{SqliteStore, Store};
use super::{EP, claim_request, in_folder, submit};
use crate::queue::{JobState, Rules};

#[tokio::test]
async fn what_was_answered_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(&folder);
    submit(&store, &["a", "b"]).await;
    let taken = store.take(EP, claim_request("w1", 1, 1)).await.unwrap().0;
    drop(store);
    let store = in_folder(&folder);
    assert_eq!(store.read(EP, "a").await.unwrap().as_ref(), Some(&taken[0].record));
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap(), ["b"]);
    submit(&store, &["c"]).await;
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap(), ["b", "c"], "places go on");
}

#[tokio::test]
async fn a_file_of_a_newer_latentd_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(in_folder(&folder));
    let path = folder.path().join("queue.db");
    rusqlite_version(&path);
    let error = SqliteStore::open(&path, Rules::default(), None).unwrap_err().to_string();
    assert!(error.contains("newer latentd"), "{error}");
    std::fs::write(&path, "no database, but long enough to be taken for one").unwrap();
    assert!(SqliteStore::open(&path, Rules::default(), None).unwrap_err().to_string().contains("not a database"));
}

/// Sets the version in the header of a file: bytes 60 to 63, as its makers document its format.
fn rusqlite_version(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}
