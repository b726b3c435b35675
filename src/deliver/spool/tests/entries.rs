//! Entries through restarts, crashes and damage.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn what_was_not_delivered_comes_back_and_what_was_does_not() {
    let root = tempfile::tempdir().unwrap();
    let (spool, kind, left) = open(root.path(), NOW);
    assert!(left.is_empty());
    let late = kind.keep(header("late"), later(90), Bytes::from_static(b"1")).await;
    let soon = kind.keep(header("soon"), later(60), Bytes::from_static(b"2")).await;
    let done = kind.keep(header("done"), later(60), Bytes::from_static(b"3")).await;
    assert_eq!(done.body().await.unwrap(), "3");
    done.done().await;
    drop((late, soon, kind, spool));

    let (_spool, _tray, left) = open(root.path(), NOW);
    assert_eq!(jobs(&left), ["soon", "late"]);
    assert_eq!((left[0].header(), left[0].deadline()), (&header("soon"), later(60)));
    assert_eq!([left[0].body().await.unwrap(), left[1].body().await.unwrap()], ["2", "1"]);
    for entry in left {
        entry.done().await;
    }
    assert_eq!(names(&root), [""; 0]);
}

#[tokio::test]
async fn whatever_step_a_process_dies_at_its_entries_are_whole_or_not_there() {
    let root = tempfile::tempdir().unwrap();
    let path = an_entry(&root, "j").await;
    let whole = fs::read(&path).unwrap();

    // While writing the draft, at every byte of it; and before renaming it.
    for end in 0..=whole.len() {
        fs::rename(&path, path.with_extension(DRAFT)).unwrap();
        fs::write(path.with_extension(DRAFT), &whole[..end]).unwrap();
        assert_eq!(jobs(&open(root.path(), NOW).2), [""; 0]);
        assert_eq!(names(&root), [""; 0], "drafts are removed");
        fs::write(&path, &whole).unwrap();
    }
    // After renaming it: before it was sent, while it was, and before it was removed.
    assert_eq!(jobs(&open(root.path(), NOW).2), ["j"]);
    // A draft of a second entry beside it.
    fs::write(path.with_file_name("x.draft"), "x").unwrap();
    assert_eq!(jobs(&open(root.path(), NOW).2), ["j"]);
    // After removing it.
    fs::remove_file(&path).unwrap();
    assert_eq!(jobs(&open(root.path(), NOW).2), [""; 0]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    an_entry(&root, "j").await;
    assert_eq!(jobs(&open(root.path(), later(59)).2), ["j"]);
    assert_eq!(jobs(&open(root.path(), later(60)).2), [""; 0]);
    assert_eq!(names(&root), [""; 0]);
}

#[tokio::test]
async fn what_is_damaged_is_set_aside_once_and_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = an_entry(&root, "broken").await;
    an_entry(&root, "whole").await;
    fs::write(&path, "not an entry").unwrap();
    fs::create_dir(path.with_file_name("folder.letter")).unwrap();
    for _ in 0..2 {
        assert_eq!(jobs(&open(root.path(), NOW).2), ["whole"]);
        assert!(path.with_extension("damaged").is_file());
    }
}

#[tokio::test]
async fn an_entry_that_is_damaged_later_is_told_when_it_is_read() {
    let root = tempfile::tempdir().unwrap();
    let (_spool, kind, _) = open(root.path(), NOW);
    let entry = kind.keep(header("j"), later(60), Bytes::from_static(b"body")).await;
    let Storage::Disk { path, .. } = &entry.storage else { panic!("{entry:?} is not on disk") };
    fs::write(path, "").unwrap();
    let error = entry.body().await.unwrap_err().to_string();
    assert!(error.contains("is damaged and was set aside: it was cut off or changed"), "{error}");
    entry.done().await;
    assert_eq!(jobs(&open(root.path(), NOW).2), [""; 0]);
}

#[tokio::test]
async fn an_entry_that_is_exchanged_has_its_place() {
    let root = tempfile::tempdir().unwrap();
    let (spool, kind, _) = open(root.path(), NOW);
    let entry = kind.keep(header("j"), later(60), vec![0; 1000].into()).await;
    let before = names(&root);
    let entry = entry.exchange(header("k"), Bytes::from_static(b"other")).await;
    assert_eq!((names(&root), spool.has_room()), (before, true));
    assert_eq!((entry.header(), entry.body().await.unwrap()), (&header("k"), "other".into()));
    drop((entry, kind, spool));

    let (spool, _tray, mut left) = open(root.path(), NOW);
    let entry = left.pop().unwrap();
    assert_eq!(
        (entry.header(), entry.deadline(), entry.body().await.unwrap()),
        (&header("k"), later(60), "other".into())
    );
    // A disk that refuses: it is in memory, and counts there.
    fs::remove_dir_all(root.path().join("0/results")).unwrap();
    let entry = entry.exchange(header("l"), vec![0; 1000].into()).await;
    assert!(!entry.lasts() && entry.header() == &header("l") && !spool.has_room());
    let entry = entry.exchange(header("m"), Bytes::from_static(b"m")).await;
    assert!(spool.has_room() && entry.body().await.unwrap() == "m");
    entry.done().await;
    assert!(spool.has_room());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Entries that were kept, some of them delivered, and files of anything among them.
    #[test]
    fn all_that_was_kept_and_nothing_else_comes_back(
        entries in proptest::collection::vec((".*", proptest::collection::vec(any::<u8>(), 0..60), 1..5_u64, any::<bool>()), 0..8),
        litter in proptest::collection::vec(("[a-z0-9-]{1,9}", "letter|draft|damaged|txt", proptest::collection::vec(any::<u8>(), 0..90)), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let root = tempfile::tempdir().unwrap();
            let (spool, kind, _) = open(root.path(), NOW);
            let mut expected = Vec::new();
            for (job, body, minutes, delivered) in entries {
                let entry = kind.keep(header(&job), later(60 * minutes), body.clone().into()).await;
                if delivered {
                    entry.done().await;
                } else {
                    expected.push((minutes, job, Bytes::from(body)));
                }
            }
            for (name, ending, bytes) in litter {
                fs::write(root.path().join("0/results").join(format!("{name}.{ending}")), bytes).unwrap();
            }
            drop((kind, spool));
            let (_spool, _tray, left) = open(root.path(), NOW);
            let mut found = Vec::new();
            for entry in left {
                found.push((NOW.until(entry.deadline()).as_secs() / 60, entry.header().job.clone(), entry.body().await.unwrap()));
            }
            assert!(found.is_sorted_by_key(|(minutes, ..)| *minutes));
            expected.sort();
            found.sort();
            assert_eq!(found, expected);
        });
    }
}
