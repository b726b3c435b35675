//! What no process comes for.

use std::time::UNIX_EPOCH;

use super::*;
use crate::clock::FakeClock;

/// A day that files can be older than.
const LATER: UnixTime = UnixTime::from_millis(1_795_000_000_000);

/// A file of this age at [`LATER`], and the folders above it.
fn aged(path: &Path, days: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs::File::create(path).unwrap();
    let changed = Duration::from_millis(LATER.as_millis()).checked_sub(Duration::from_hours(24 * days)).unwrap();
    file.set_modified(UNIX_EPOCH + changed).unwrap();
}

#[tokio::test]
async fn what_nobody_comes_for_is_removed_after_a_week() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (own, busy, gone) = ("0123456789abcdef", "fedcba9876543210", "00000000ffffffff");
    // A queue that is no longer asked, one that another worker serves, and what no worker made.
    drop(Spool::of_queue(root.path(), gone, 9).unwrap());
    let _other = Spool::of_queue(root.path(), busy, 9).unwrap();
    let removed = [
        format!("{gone}/0/results/a.letter"),
        format!("{gone}/0/webhooks/a.damaged"),
        format!("{gone}/0/x/a.draft"),
        format!("{own}/0/results/a.damaged"),
        format!("{own}/0/unused/a.letter"),
    ];
    let entry = [
        format!("{busy}/0/results/a.letter"),
        format!("{own}/0/results/a.txt"),
        "notes/0/x/a.letter".to_owned(),
        "a.letter".to_owned(),
    ];
    for name in removed.iter().chain(&entry) {
        aged(&at(name), 7);
    }
    let young = removed.clone().map(|name| name.replace("/a.", "/young."));
    for name in &young {
        aged(&at(name), 6);
    }

    let spool = Spool::of_queue(root.path(), own, 1000).unwrap();
    let (kind, _) = spool.open_kind::<ResultHeader>("results", LATER);
    // As long as it is in somebody's hands an entry is theirs, whatever the date is.
    let held = kind.keep(header("j"), LATER + Duration::from_hours(1), Bytes::from_static(b"body")).await;
    let Storage::Disk { path, .. } = &held.storage else { panic!("{held:?} is not on disk") };
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
    for name in entry.iter().chain(&young) {
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
