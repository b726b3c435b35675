//! What every store does, as tests that are stamped for each.

/// Each test for each store.
macro_rules! contract {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::MemoryStore::new(super::rules())).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                super::$test(super::in_folder(&folder)).await;
            })*
        }
        mod redis {
            $(#[tokio::test]
            async fn $test() {
                let server = super::Server::start(&[]);
                super::$test(super::RedisStore::by(super::rules(), &server).await).await;
            })*
        }
    };
}

mod agree;
mod claims;
mod file;
mod lookups;
mod outcomes;

use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::redis_server::Server;
use super::*;
use crate::queue::{Claim, Finish, Rules, SubmissionContext, parse_submission};

const START: UnixTime = UnixTime::from_millis(1_000_000);
pub(super) const EP: &str = "sd";

pub(super) fn at(seconds: u64) -> UnixTime {
    START + Duration::from_secs(seconds)
}

pub(super) fn job(id: &str, low: bool, now: UnixTime) -> Submission {
    let body = format!(
        r#"{{"input": {{"n": "{id}", "big": 36893488147419103232}}, "policy": {{"lowPriority": {low}}}, "x": 1}}"#
    );
    let manner =
        SubmissionContext { id: id.into(), now, execution_timeout: Duration::from_secs(30), ttl: None, wait: None };
    parse_submission(body.as_bytes(), manner).unwrap()
}

pub(super) fn claim_request(worker: &str, most: usize, seconds: u64) -> ClaimRequest {
    ClaimRequest {
        claim: Claim { worker: worker.into(), gpu: None, sends_heartbeats: true, at: at(seconds) },
        max_jobs: most,
        max_bytes: usize::MAX,
    }
}

pub(super) fn ids(handed: &[ClaimedJob]) -> Vec<&str> {
    handed.iter().map(|handed| &*handed.record.id).collect()
}

pub(super) fn end(worker: &'static str, well: bool, seconds: u64) -> impl JobEvent {
    move |record: &mut Record| {
        record.finish(Finish { worker, error: (!well).then(|| "e".into()), output: true }, at(seconds))
    }
}

pub(super) fn output(text: &'static str) -> Vec<(PayloadKind, Bytes)> {
    vec![(PayloadKind::Output, Bytes::from_static(text.as_bytes()))]
}

pub(super) async fn submit(store: &impl Store, ids: &[&str]) {
    for id in ids {
        store.submit(EP, job(id, id.starts_with("low"), at(0))).await.unwrap();
    }
}

/// As many may wait as no other test needs.
fn rules() -> Rules {
    Rules { max_waiting: Some(6), ..Rules::default() }
}

fn in_folder(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(&folder.path().join("queue.db"), rules(), None).unwrap()
}
