//! A spool through restarts, crashes and full disks.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::clock::FakeClock;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Slip {
    job: String,
    url: String,
}

impl Note for Slip {
    fn job(&self) -> &str {
        &self.job
    }
}

const NOW: UnixTime = UnixTime::from_millis(1_000_000);

fn slip(job: &str) -> Slip {
    Slip { job: job.into(), url: format!("http://queue/{job}") }
}

fn later(seconds: u64) -> UnixTime {
    NOW + Duration::from_secs(seconds)
}

/// A spool that holds 1000 bytes, its tray, and what was left in it.
fn open(root: &Path, now: UnixTime) -> (Spool, Tray<Slip>, Vec<Kept<Slip>>) {
    let spool = Spool::open(root, 1000).unwrap();
    let (tray, left) = spool.tray("results", now);
    (spool, tray, left)
}

fn jobs(left: &[Kept<Slip>]) -> Vec<&str> {
    left.iter().map(|kept| kept.note().job()).collect()
}

fn names(root: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(root.path().join("0/results")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A letter's file, as it is between two steps of a process that dies there.
async fn a_letter(root: &TempDir, job: &str) -> PathBuf {
    let (_spool, tray, _) = open(root.path(), NOW);
    let kept = tray.keep(slip(job), later(60), Bytes::from_static(b"{}")).await;
    match &kept.place {
        Place::Disk { path, .. } => path.clone(),
        _ => panic!("{kept:?} is not on disk"),
    }
}

#[tokio::test]
async fn what_was_not_delivered_comes_back_and_what_was_does_not() {
    let root = tempfile::tempdir().unwrap();
    let (spool, tray, left) = open(root.path(), NOW);
    assert!(left.is_empty());
    let late = tray.keep(slip("late"), later(90), Bytes::from_static(b"1")).await;
    let soon = tray.keep(slip("soon"), later(60), Bytes::from_static(b"2")).await;
    let done = tray.keep(slip("done"), later(60), Bytes::from_static(b"3")).await;
    assert_eq!(done.body().await.unwrap(), "3");
    done.done().await;
    drop((late, soon, tray, spool));

    let (_spool, _tray, left) = open(root.path(), NOW);
    assert_eq!(jobs(&left), ["soon", "late"]);
    assert_eq!((left[0].note(), left[0].deadline()), (&slip("soon"), later(60)));
    assert_eq!([left[0].body().await.unwrap(), left[1].body().await.unwrap()], ["2", "1"]);
    for kept in left {
        kept.done().await;
    }
    assert_eq!(names(&root), [""; 0]);
}

#[tokio::test]
async fn whatever_step_a_process_dies_at_its_letters_are_whole_or_not_there() {
    let root = tempfile::tempdir().unwrap();
    let path = a_letter(&root, "j").await;
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
    // A draft of a second letter beside it.
    fs::write(path.with_file_name("x.draft"), "x").unwrap();
    assert_eq!(jobs(&open(root.path(), NOW).2), ["j"]);
    // After removing it.
    fs::remove_file(&path).unwrap();
    assert_eq!(jobs(&open(root.path(), NOW).2), [""; 0]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    a_letter(&root, "j").await;
    assert_eq!(jobs(&open(root.path(), later(59)).2), ["j"]);
    assert_eq!(jobs(&open(root.path(), later(60)).2), [""; 0]);
    assert_eq!(names(&root), [""; 0]);
}

#[tokio::test]
async fn what_is_damaged_is_set_aside_once_and_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = a_letter(&root, "broken").await;
    a_letter(&root, "whole").await;
    fs::write(&path, "not a letter").unwrap();
    fs::create_dir(path.with_file_name("folder.letter")).unwrap();
    for _ in 0..2 {
        assert_eq!(jobs(&open(root.path(), NOW).2), ["whole"]);
        assert!(path.with_extension("damaged").is_file());
    }
}

#[tokio::test]
async fn a_letter_that_is_damaged_later_is_told_when_it_is_read() {
    let root = tempfile::tempdir().unwrap();
    let (_spool, tray, _) = open(root.path(), NOW);
    let kept = tray.keep(slip("j"), later(60), Bytes::from_static(b"body")).await;
    let Place::Disk { path, .. } = &kept.place else { panic!("{kept:?} is not on disk") };
    fs::write(path, "").unwrap();
    let error = kept.body().await.unwrap_err().to_string();
    assert!(error.contains("is damaged and was set aside: it was cut off or changed"), "{error}");
    kept.done().await;
    assert_eq!(jobs(&open(root.path(), NOW).2), [""; 0]);
}

#[tokio::test]
async fn a_letter_that_is_exchanged_has_its_place() {
    let root = tempfile::tempdir().unwrap();
    let (spool, tray, _) = open(root.path(), NOW);
    let kept = tray.keep(slip("j"), later(60), vec![0; 1000].into()).await;
    let before = names(&root);
    let kept = kept.exchange(slip("k"), Bytes::from_static(b"other")).await;
    assert_eq!((names(&root), spool.has_room()), (before, true));
    assert_eq!((kept.note(), kept.body().await.unwrap()), (&slip("k"), "other".into()));
    drop((kept, tray, spool));

    let (spool, _tray, mut left) = open(root.path(), NOW);
    let kept = left.pop().unwrap();
    assert_eq!((kept.note(), kept.deadline(), kept.body().await.unwrap()), (&slip("k"), later(60), "other".into()));
    // A disk that refuses: it is in memory, and counts there.
    fs::remove_dir_all(root.path().join("0/results")).unwrap();
    let kept = kept.exchange(slip("l"), vec![0; 1000].into()).await;
    assert!(!kept.lasts() && kept.note() == &slip("l") && !spool.has_room());
    let kept = kept.exchange(slip("m"), Bytes::from_static(b"m")).await;
    assert!(spool.has_room() && kept.body().await.unwrap() == "m");
    kept.done().await;
    assert!(spool.has_room());
}

#[tokio::test]
async fn a_full_spool_has_no_room_until_it_drains() {
    let root = tempfile::tempdir().unwrap();
    let (spool, tray, _) = open(root.path(), NOW);
    let small = tray.keep(slip("small"), later(60), Bytes::from_static(b"x")).await;
    assert!(spool.has_room());
    let large = tray.keep(slip("large"), later(60), vec![0; 1000].into()).await;
    assert!(!spool.has_room());
    let more = tray.keep(slip("more"), later(60), Bytes::from_static(b"what is worked on is kept")).await;
    assert!(matches!(more.place, Place::Disk { .. }));
    drop((small, large, more, tray, spool));

    let (spool, _tray, mut left) = open(root.path(), NOW);
    assert!(!spool.has_room(), "what was left counts");
    let large = left.remove(left.iter().position(|kept| kept.note().job == "large").unwrap());
    tokio::join!(spool.room(), large.done());
    assert!(spool.has_room());
}

#[tokio::test]
async fn a_disk_that_refuses_is_survived() {
    let root = tempfile::tempdir().unwrap();
    let (spool, tray, _) = open(root.path(), NOW);
    let folder = root.path().join("0/results");
    fs::remove_dir(&folder).unwrap();
    let [a, b] = ["a", "b"].map(|job| tray.keep(slip(job), later(60), Bytes::from_static(b"body")));
    let (a, b) = tokio::join!(a, b);
    assert!(spool.has_room() && !a.lasts() && spool.0.refused.load(Ordering::Relaxed));
    assert_eq!(a.body().await.unwrap(), "body");
    let large = tray.keep(slip("large"), later(60), vec![0; 992].into()).await;
    assert!(!spool.has_room(), "memory is not without end either");
    a.done().await;
    assert!(spool.has_room());
    let more = tray.keep(slip("more"), later(60), vec![0; 8].into()).await;
    assert!(!spool.has_room());
    drop((b, large, more));
    assert!(spool.has_room(), "what is lost with its owner does not stop the taking for ever");
    fs::create_dir(&folder).unwrap();
    tray.keep(slip("c"), later(60), Bytes::from_static(b"body")).await.done().await;
    assert!(spool.has_room() && !spool.0.refused.load(Ordering::Relaxed));
}

#[tokio::test]
async fn without_a_folder_letters_are_kept_in_memory() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("0")).unwrap();
    fs::write(root.path().join("0/results"), "a file where a tray should be").unwrap();
    let (homeless, trayless) = (Spool::in_memory(8), Spool::open(root.path(), 8).unwrap());
    for spool in [homeless, trayless] {
        let (tray, left) = spool.tray::<Slip>("results", NOW);
        assert!(left.is_empty());
        let kept = tray.keep(slip("j"), later(60), Bytes::from_static(b"12345678")).await;
        assert_eq!((kept.body().await.unwrap(), kept.lasts(), spool.has_room()), ("12345678".into(), false, false));
        kept.done().await;
        assert!(spool.has_room());
    }
}

#[tokio::test]
async fn what_a_dead_worker_left_comes_to_a_living_one() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path(), NOW);
    let second = open(root.path(), NOW);
    drop(second.1.keep(slip("j"), later(60), Bytes::from_static(b"body")).await);
    drop((first, second));
    let heir = open(root.path(), NOW);
    assert_eq!(jobs(&heir.2), ["j"]);
    assert_eq!(heir.2[0].body().await.unwrap(), "body");
    assert_eq!(jobs(&open(root.path(), NOW).2), [""; 0], "and to no other");
}

#[tokio::test]
async fn trays_do_not_mix() {
    let root = tempfile::tempdir().unwrap();
    a_letter(&root, "j").await;
    let spool = Spool::open(root.path(), 1000).unwrap();
    assert_eq!(jobs(&spool.tray("webhooks", NOW).1), [""; 0]);
    assert_eq!(jobs(&spool.tray("results", NOW).1), ["j"]);
}

/// A file of this age at [`NOW`], and the folders above it.
fn aged(path: &Path, days: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs::File::create(path).unwrap();
    let changed = Duration::from_millis(LATER.as_millis()).checked_sub(Duration::from_hours(24 * days)).unwrap();
    file.set_modified(UNIX_EPOCH + changed).unwrap();
}

const LATER: UnixTime = UnixTime::from_millis(1_795_000_000_000);

#[tokio::test]
async fn what_nobody_comes_for_is_removed_after_a_week() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (own, busy, gone) = ("0123456789abcdef", "fedcba9876543210", "00000000ffffffff");
    // A queue that nobody asks any more, one that another worker serves, and what no worker made.
    drop(Spool::of_queue(root.path(), gone, 9).unwrap());
    let _other = Spool::of_queue(root.path(), busy, 9).unwrap();
    let removed = [
        format!("{gone}/0/results/a.letter"),
        format!("{gone}/0/webhooks/a.damaged"),
        format!("{gone}/0/x/a.draft"),
        format!("{own}/0/results/a.damaged"),
        format!("{own}/0/unused/a.letter"),
    ];
    let kept = [
        format!("{busy}/0/results/a.letter"),
        format!("{own}/0/results/a.txt"),
        "notes/0/x/a.letter".to_owned(),
        "a.letter".to_owned(),
    ];
    for name in removed.iter().chain(&kept) {
        aged(&at(name), 7);
    }
    let young = removed.clone().map(|name| name.replace("/a.", "/young."));
    for name in &young {
        aged(&at(name), 6);
    }

    let spool = Spool::of_queue(root.path(), own, 1000).unwrap();
    let (tray, _) = spool.tray::<Slip>("results", LATER);
    // As long as it is in somebody's hands a letter is theirs, whatever the date is.
    let held = tray.keep(slip("j"), LATER + Duration::from_hours(1), Bytes::from_static(b"body")).await;
    let Place::Disk { path, .. } = &held.place else { panic!("{held:?} is not on disk") };
    fs::File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    let clock = FakeClock::at(LATER);
    let swept = async {
        while removed.iter().any(|name| at(name).exists()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        never = spool.tend(&clock) => match never {},
        () = swept => {}
        () = tokio::time::sleep(Duration::from_mins(1)) => panic!("something is still there"),
    }
    spool.0.sweep(LATER);
    for name in kept.iter().chain(&young) {
        assert!(at(name).exists(), "{name}");
    }
    assert_eq!(held.body().await.unwrap(), "body");
    held.done().await;
    assert!(spool.has_room());
}

#[tokio::test(start_paused = true)]
async fn what_becomes_old_is_removed_the_day_after() {
    let root = tempfile::tempdir().unwrap();
    let (spool, clock) = (Spool::open(root.path(), 1000).unwrap(), FakeClock::at(LATER));
    let file = root.path().join("0/results/a.damaged");
    aged(&file, 6);
    let days = async {
        for left in [true, false] {
            tokio::time::sleep(Duration::from_hours(1)).await;
            assert_eq!(file.exists(), left);
            clock.advance(Duration::from_hours(24));
            tokio::time::sleep(Duration::from_hours(23)).await;
        }
    };
    tokio::select! {
        never = spool.tend(&clock) => match never {},
        () = days => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Letters that were kept, some of them delivered, and files of anything among them.
    #[test]
    fn all_that_was_kept_and_nothing_else_comes_back(
        letters in proptest::collection::vec((".*", proptest::collection::vec(any::<u8>(), 0..60), 1..5_u64, any::<bool>()), 0..8),
        litter in proptest::collection::vec(("[a-z0-9-]{1,9}", "letter|draft|damaged|txt", proptest::collection::vec(any::<u8>(), 0..90)), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let root = tempfile::tempdir().unwrap();
            let (spool, tray, _) = open(root.path(), NOW);
            let mut expected = Vec::new();
            for (job, body, minutes, delivered) in letters {
                let kept = tray.keep(slip(&job), later(60 * minutes), body.clone().into()).await;
                if delivered {
                    kept.done().await;
                } else {
                    expected.push((minutes, job, Bytes::from(body)));
                }
            }
            for (name, ending, bytes) in litter {
                fs::write(root.path().join("0/results").join(format!("{name}.{ending}")), bytes).unwrap();
            }
            drop((tray, spool));
            let (_spool, _tray, left) = open(root.path(), NOW);
            let mut found = Vec::new();
            for kept in left {
                found.push((NOW.until(kept.deadline()).as_secs() / 60, kept.note().job.clone(), kept.body().await.unwrap()));
            }
            assert!(found.is_sorted_by_key(|(minutes, ..)| *minutes));
            expected.sort();
            found.sort();
            assert_eq!(found, expected);
        });
    }
}
