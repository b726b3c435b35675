//! A worker's entries on a disk that fails.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use latentd::clock::UnixTime;
use latentd::deliver::spool::{EntryHeader, Spool, SpoolEntry, SpoolKind};
use serde::{Deserialize, Serialize};

use super::{Fault, Faults};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ResultHeader(String);

impl EntryHeader for ResultHeader {
    fn job(&self) -> &str {
        &self.0
    }
}

const NOW: UnixTime = UnixTime::from_millis(1_000_000);

fn open(folder: &Path) -> (SpoolKind<ResultHeader>, Vec<SpoolEntry<ResultHeader>>) {
    Spool::open(folder, 1 << 30).unwrap().open_kind("results", NOW)
}

async fn keep(kind: &SpoolKind<ResultHeader>, job: &str) -> SpoolEntry<ResultHeader> {
    kind.keep(ResultHeader(job.into()), NOW + Duration::from_mins(1), Bytes::from(format!("{job} is done"))).await
}

/// A process of its own, so that its calls can be made to fail: this test, once more.
#[test]
fn whatever_call_fails_an_entry_is_there_whole_or_was_said_not_to_be() {
    let Some(faults) = Faults::shared() else {
        let (aside, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let faults = Faults::new(aside.path());
        let name = "disk_faults::spool::whatever_call_fails_an_entry_is_there_whole_or_was_said_not_to_be";
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .envs(faults.variables(folder.path()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let root = env::var_os("FAULTS_IN").unwrap();
    for (fail, fault) in [(1, Fault::Broken), (1, Fault::Full), (i64::MAX, Fault::Full), (i64::MAX, Fault::Broken)] {
        for pass in 0.. {
            let folder = tempfile::tempdir_in(&root).unwrap();
            runtime.block_on(entries(folder.path(), &faults, (pass, fail, fault)));
            drop(folder);
            if faults.failed() == 0 {
                assert!(pass > 12, "{pass}: its files are those that were counted");
                break;
            }
            assert!(pass < 500);
        }
    }
}

async fn entries(folder: &Path, faults: &Faults, (pass, fail, fault): (i64, i64, Fault)) {
    let at = format!("{fail} calls after {pass}: {fault:?}");
    let (kind, _) = open(folder);
    faults.arm(pass, fail, fault);
    let [stays, changes, goes] = [keep(&kind, "stays").await, keep(&kind, "changes").await, keep(&kind, "goes").await];
    let was_there = changes.lasts();
    let changes = changes.exchange(ResultHeader("changed".into()), Bytes::from_static(b"it is otherwise")).await;
    assert_eq!(stays.body().await.unwrap(), "stays is done", "{at}");
    assert_eq!(changes.body().await.unwrap(), "it is otherwise", "{at}");
    let there = [stays.lasts(), changes.lasts()];
    goes.done().await;
    faults.mend();
    let again = keep(&kind, "again").await;
    assert!(again.lasts(), "{at}: the disk takes entries again");
    drop((stays, changes, again, kind));

    let (_tray, left) = open(folder);
    let mut found = Vec::new();
    for entry in &left {
        found.push((entry.header().job().to_owned(), entry.body().await.unwrap()));
    }
    let has = |job: &str, body: &str| found.iter().filter(|(name, text)| name == job && text == body).count();
    assert!(has("again", "again is done") == 1, "{at}: {found:?}");
    assert!(!there[0] || has("stays", "stays is done") == 1, "{at}: {found:?}");
    let (before, after) = (has("changes", "changes is done"), has("changed", "it is otherwise"));
    assert!(!there[1] || (before, after) == (0, 1), "{at}: {found:?}");
    assert!(!was_there || before + after == 1, "{at}: one of the two is there whatever happens: {found:?}");
    // What was sent and could not be removed is sent again, as was logged.
    assert!(has("goes", "goes is done") == 0 || fault == Fault::Broken, "{at}: {found:?}");
    let damaged = std::fs::read_dir(folder.join("0/results")).unwrap().filter_map(Result::ok);
    let damaged: Vec<_> = damaged.filter(|file| file.path().extension().is_some_and(|end| end == "damaged")).collect();
    assert!(damaged.is_empty(), "{at}: {damaged:?}");
}
