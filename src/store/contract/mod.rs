//! What every store does, as tests that are stamped for each.

mod agree;
mod file;

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

async fn jobs_are_handed_out_in_line(store: impl Store) {
    submit(&store, &["low-1", "a", "b", "c"]).await;
    assert_eq!(store.submit(EP, job("a", false, at(1))).await, Err(StoreError::Duplicate));
    assert!(store.take("another", claim_request("w", 9, 1)).await.unwrap().is_empty());
    let first = store.take(EP, claim_request("w1", 2, 1)).await.unwrap();
    assert_eq!(ids(&first), ["a", "b"]);
    assert_eq!(first[0].input, r#"{"n": "a", "big": 36893488147419103232}"#);
    assert_eq!(first[0].rest, r#"{"policy":{"lowPriority": false},"x":1}"#);
    assert_eq!(
        (first[0].record.holder(), store.held_by(EP, "w1").await.unwrap()),
        (Some("w1"), vec!["a".into(), "b".into()])
    );
    assert_eq!(store.read(EP, "a").await.unwrap().as_ref(), Some(&first[0].record));
    submit(&store, &["d"]).await;
    let lose = |record: &mut Record| record.abandon("w1", "gone", &Rules::default(), at(2));
    store.change(EP, "b", lose, Vec::new(), None).await.unwrap();
    assert_eq!(
        store.ids_in_state(EP, JobState::InQueue).await.unwrap(),
        ["b", "c", "d", "low-1"],
        "what was lost is first"
    );
    assert_eq!(ids(&store.take(EP, claim_request("w2", 9, 3)).await.unwrap()), ["b", "c", "d", "low-1"]);
    assert_eq!(store.held_by(EP, "w1").await.unwrap(), ["a"]);
}

async fn jobs_are_handed_out_by_weight(store: impl Store) {
    let mut short = job("e", false, at(0));
    short.record.expires = at(1);
    store.submit(EP, short).await.unwrap();
    submit(&store, &["a", "b", "c", "d"]).await;
    let one = r#"{"n": "a", "big": 36893488147419103232}{"policy":{"lowPriority": false},"x":1}"#.len();
    let by_weight = |bytes| ClaimRequest { max_bytes: bytes, ..claim_request("w1", 9, 1) };
    let handed = store.take(EP, by_weight(2 * one)).await.unwrap();
    assert_eq!((ids(&handed), handed[0].bytes()), (vec!["a", "b"], one));
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap(), ["e", "c", "d"], "the others wait as before");
    assert_eq!(ids(&store.take(EP, by_weight(2 * one - 1)).await.unwrap()), ["c"]);
    assert_eq!(ids(&store.take(EP, by_weight(0)).await.unwrap()), ["d"], "one is handed out, whatever it weighs");
}

async fn an_end_is_kept_with_its_output_and_the_first_counts(store: impl Store) {
    submit(&store, &["a"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    let (record, transition) = store.change(EP, "a", end("w1", true, 5), output("[1]"), None).await.unwrap().unwrap();
    assert_eq!((record.state, transition), (JobState::Completed, Transition::Changed));
    let (record, transition) = store.change(EP, "a", end("w2", false, 6), output("[2]"), None).await.unwrap().unwrap();
    assert_eq!((record.state, transition), (JobState::Completed, Transition::Unchanged));
    assert_eq!(store.payload(EP, "a", PayloadKind::Output).await.unwrap().unwrap(), "[1]");
    assert!(store.change(EP, "b", end("w1", true, 5), Vec::new(), None).await.unwrap().is_none());
    assert_eq!(store.counts(EP).await.unwrap(), Counts { completed: 1, ..Counts::default() });
    assert!(store.held_by(EP, "w1").await.unwrap().is_empty());
}

async fn a_retry_forgets_what_came_of_it_and_waits_at_the_end(store: impl Store) {
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    let chunk = Some(Bytes::from_static(b"1"));
    store.change(EP, "a", |record: &mut Record| record.part("w1"), Vec::new(), chunk).await.unwrap();
    store.change(EP, "a", end("w1", false, 5), output("[1]"), None).await.unwrap();
    assert!(store.payload(EP, "a", PayloadKind::Output).await.unwrap().is_some());
    store.change(EP, "a", |record: &mut Record| record.retry(at(6)), Vec::new(), None).await.unwrap();
    assert_eq!(store.payload(EP, "a", PayloadKind::Output).await.unwrap(), None);
    assert!(store.take_chunks(EP, "a", 10).await.unwrap().0.is_empty());
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap(), ["b", "a"]);
    assert_eq!(store.counts(EP).await.unwrap(), Counts { in_queue: 2, failed: 1, ..Counts::default() });
    assert!(store.payload(EP, "a", PayloadKind::Input).await.unwrap().is_some());
}

async fn what_is_wanted_of_a_job_is_found_in_that_order(store: impl Store) {
    submit(&store, &["a"]).await;
    let wanted = |record: &Record| match record.state {
        JobState::Completed => vec![PayloadKind::Warnings, PayloadKind::Output, PayloadKind::Input],
        _ => Vec::new(),
    };
    let (record, parts) = store.find(EP, "a", wanted, 0).await.unwrap().unwrap();
    assert_eq!((record.state, parts), (JobState::InQueue, LoadedPayloads::Read(Vec::new())));
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    store.change(EP, "a", end("w1", true, 5), output("[1]"), None).await.unwrap();
    let input = store.payload(EP, "a", PayloadKind::Input).await.unwrap();
    let bytes = 3 + input.as_ref().unwrap().len();
    let known = store.read(EP, "a").await.unwrap().unwrap();
    for _ in 0..2 {
        // Whether or not the record is known from a look before.
        let large = store.find(EP, "a", wanted, bytes - 1).await.unwrap().unwrap();
        assert_eq!(large, (known.clone(), LoadedPayloads::Large(bytes)));
    }
    let found = store.find(EP, "a", wanted, bytes).await.unwrap().unwrap();
    assert_eq!(found, (known, LoadedPayloads::Read(vec![None, Some("[1]".into()), input])));
    assert_eq!(
        store.find(EP, "a", wanted, 2).await.unwrap().unwrap().1,
        LoadedPayloads::Large(bytes),
        "now that it is known"
    );
    assert_eq!(store.find(EP, "b", wanted, 9).await.unwrap(), None);
}

async fn a_stream_is_drained_once_and_by_size(store: impl Store) {
    submit(&store, &["a"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    for text in ["11", "22", "333", "4"] {
        store.change(EP, "a", |record: &mut Record| record.part("w1"), Vec::new(), Some(text.into())).await.unwrap();
    }
    let late =
        store.change(EP, "a", |record: &mut Record| record.part("w2"), Vec::new(), Some("5".into())).await.unwrap();
    assert_eq!(late.unwrap().1, Transition::Unchanged);
    let drains = [
        ("a", 4, &["11", "22"][..], Some(3)),
        ("a", 2, &[], Some(3)),
        ("a", 3, &["333"], Some(1)),
        ("a", 9, &["4"], None),
        ("a", 9, &[], None),
        ("b", 9, &[], None),
    ];
    for (id, most, wanted, next) in drains {
        let drained = store.take_chunks(EP, id, most).await.unwrap();
        assert_eq!(drained, (wanted.iter().map(|chunk| Bytes::from(*chunk)).collect(), next), "{most} bytes of {id}");
    }
}

async fn who_works_in_vain_is_told_once(store: impl Store) {
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w1", 2, 1)).await.unwrap();
    for id in ["b", "a"] {
        store.change(EP, id, |record: &mut Record| record.cancel(at(2)), Vec::new(), None).await.unwrap();
    }
    assert!(store.take_stops(EP, "w2").await.unwrap().is_empty());
    assert_eq!(store.take_stops(EP, "w1").await.unwrap(), ["b", "a"]);
    assert!(store.take_stops(EP, "w1").await.unwrap().is_empty());
}

async fn what_is_due_is_found_and_what_is_over_is_erased(store: impl Store) {
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), Some(at(31)));
    assert!(store.due(at(30), 9).await.unwrap().is_empty());
    assert_eq!(store.due(at(31), 9).await.unwrap(), [(EP.to_owned(), "a".to_owned())]);
    let tick = |seconds| move |record: &mut Record| record.tick(&Rules::default(), at(seconds));
    let (record, transition) = store.change(EP, "a", tick(31), Vec::new(), None).await.unwrap().unwrap();
    assert_eq!((record.state, transition), (JobState::TimedOut, Transition::Stop("w1".into())));
    let later = 31 + 30 * 60;
    assert_eq!(store.due(at(later), 9).await.unwrap().len(), 1);
    assert!(
        store.change(EP, "a", tick(later), Vec::new(), None).await.unwrap().is_some_and(|(record, _)| record.hidden)
    );
    assert_eq!(store.read(EP, "a").await.unwrap(), None);
    assert_eq!(store.payload(EP, "a", PayloadKind::Input).await.unwrap(), None);
    let day = 24 * 3600;
    assert_eq!((store.next_due().await.unwrap(), store.due(at(day), 1).await.unwrap().len()), (Some(at(day)), 1));
}

async fn what_has_expired_is_handed_to_nobody_and_is_in_nobody_s_way(store: impl Store) {
    let mut short = job("a", false, at(0));
    short.record.expires = at(10);
    store.submit(EP, short).await.unwrap();
    submit(&store, &["b"]).await;
    assert_eq!(ids(&store.take(EP, claim_request("w1", 1, 10)).await.unwrap()), ["b"]);
}

async fn news_come_after_what_they_tell_of(store: impl Store) {
    let mut events = store.subscribe();
    submit(&store, &["a"]).await;
    assert_eq!(events.next().await, Some(StoreEvent::JobQueued(EP.into())));
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    assert_eq!(events.next().await, Some(StoreEvent::JobChanged(EP.into(), "a".into())));
    store.change(EP, "a", |record: &mut Record| record.cancel(at(2)), Vec::new(), None).await.unwrap();
    assert_eq!(events.next().await, Some(StoreEvent::JobEnded(EP.into(), "a".into())));
    assert_eq!(events.next().await, Some(StoreEvent::WorkerStop(EP.into(), "w1".into())));
    assert_eq!(store.take_stops(EP, "w1").await.unwrap(), ["a"]);
}

async fn keys_have_names_of_their_own(store: impl Store) {
    let key = |name: &str, worker: bool| {
        let (name, endpoint) = (name.to_owned(), worker.then(|| "e".to_owned()));
        KeyRecord { name, worker, endpoint, digest: "ab".into(), created: at(1) }
    };
    assert_eq!(store.keys().await.unwrap(), []);
    for (name, worker) in [("b", true), ("a", false)] {
        store.add_key(key(name, worker)).await.unwrap();
    }
    assert_eq!(store.add_key(key("a", true)).await, Err(StoreError::Duplicate));
    assert_eq!(store.keys().await.unwrap(), [key("a", false), key("b", true)]);
    assert_eq!((store.remove_key("a").await, store.remove_key("a").await), (Ok(true), Ok(false)));
    assert_eq!(store.keys().await.unwrap(), [key("b", true)]);
}

async fn as_many_jobs_wait_as_may(store: impl Store) {
    let refused = Err(StoreError::QueueFull(6));
    submit(&store, &["a", "b", "low-c", "d", "e", "f"]).await;
    assert_eq!(store.submit(EP, job("g", false, at(1))).await, refused);
    assert_eq!((store.read(EP, "g").await, store.payload(EP, "g", PayloadKind::Input).await), (Ok(None), Ok(None)));
    assert_eq!(
        store.submit(EP, job("a", false, at(1))).await,
        Err(StoreError::Duplicate),
        "one that is there is no other"
    );
    store.submit("another", job("g", false, at(1))).await.unwrap();
    store.take(EP, claim_request("w1", 2, 1)).await.unwrap();
    submit(&store, &["g", "h"]).await;
    assert_eq!(store.submit(EP, job("i", false, at(1))).await, refused);
    let lose = |record: &mut Record| record.abandon("w1", "gone", &Rules::default(), at(2));
    store.change(EP, "a", lose, Vec::new(), None).await.unwrap();
    assert_eq!(store.counts(EP).await.unwrap().in_queue, 7, "who has waited before waits again");
    for (id, answer) in [("d", refused), ("e", Ok(()))] {
        store.change(EP, id, |record: &mut Record| record.cancel(at(3)), Vec::new(), None).await.unwrap();
        assert_eq!(store.submit(EP, job("i", false, at(3))).await, answer);
    }
}

async fn jobs_are_listed_a_page_at_a_time(store: impl Store) {
    assert_eq!(store.next_submitted(EP).await.unwrap(), None);
    submit(&store, &["low-a", "b", "c"]).await;
    store.submit(EP, job("d", false, at(7))).await.unwrap();
    assert_eq!(store.next_submitted(EP).await.unwrap(), Some(at(0)));
    assert_eq!(ids(&store.take(EP, claim_request("w1", 2, 8)).await.unwrap()), ["b", "c"]);
    assert_eq!(store.next_submitted(EP).await.unwrap(), Some(at(7)), "of low priority is last");
    store.change(EP, "c", end("w1", true, 9), output("[1]"), None).await.unwrap();
    let page = async |states: &[JobState], offset, limit| {
        let query = PageQuery { states: states.to_vec(), offset, limit };
        let JobPage { jobs, total } = store.page(EP, query).await.unwrap();
        (jobs.into_iter().map(|record| record.id).collect::<Vec<_>>(), total)
    };
    let all = [JobState::InProgress, JobState::InQueue, JobState::Completed];
    let listed = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(page(&all, 0, 9).await, (listed(&["b", "d", "low-a", "c"]), 4));
    assert_eq!(page(&all, 1, 2).await, (listed(&["d", "low-a"]), 4));
    assert_eq!(page(&all, 2, 9).await, (listed(&["low-a", "c"]), 4));
    assert_eq!(page(&all, 4, 9).await, (listed(&[]), 4));
    assert_eq!(page(&[JobState::Failed], 0, 9).await, (listed(&[]), 0));
    let query = PageQuery { states: all.to_vec(), offset: 0, limit: 1 };
    assert_eq!(store.page(EP, query).await.unwrap().jobs, [store.read(EP, "b").await.unwrap().unwrap()]);
    let workers = || listed(&["w1", "w2"]);
    assert_eq!(store.busy_workers(EP, workers()).await.unwrap(), ["w1".to_owned()].into());
    assert!(store.busy_workers("other", workers()).await.unwrap().is_empty());
    assert!(store.busy_workers(EP, Vec::new()).await.unwrap().is_empty());
}

/// As many may wait as no other test needs.
fn rules() -> Rules {
    Rules { max_waiting: Some(6), ..Rules::default() }
}

/// Each test for each store.
async fn the_time_of_the_queue_goes_on_whatever_the_clock_says(store: impl Store) {
    let keep = async |on: Option<u64>, wall: u64| store.sync_clock(on.map(at), at(wall)).await.unwrap();
    assert_eq!(keep(None, 100).await, at(100), "nothing is kept");
    assert_eq!(keep(Some(160), 9_160).await, at(160));
    assert_eq!(keep(Some(170), 5).await, at(170));
    assert_eq!(keep(Some(90), 5).await, at(170), "another was further");
    let begun = keep(None, 5).await;
    assert!(begun >= at(170) && begun < at(230), "{begun:?}");
}

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

contract! {
    jobs_are_handed_out_in_line
    jobs_are_handed_out_by_weight
    jobs_are_listed_a_page_at_a_time
    an_end_is_kept_with_its_output_and_the_first_counts
    a_retry_forgets_what_came_of_it_and_waits_at_the_end
    what_is_wanted_of_a_job_is_found_in_that_order
    a_stream_is_drained_once_and_by_size
    who_works_in_vain_is_told_once
    what_is_due_is_found_and_what_is_over_is_erased
    what_has_expired_is_handed_to_nobody_and_is_in_nobody_s_way
    news_come_after_what_they_tell_of
    keys_have_names_of_their_own
    as_many_jobs_wait_as_may
    the_time_of_the_queue_goes_on_whatever_the_clock_says
}

fn in_folder(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(&folder.path().join("queue.db"), rules(), None).unwrap()
}
