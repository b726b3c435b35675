//! Every store does what memory does, whatever happens.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Builder;

use super::super::redis_server::Server;
use super::super::*;
use super::{EP, START};
use crate::queue::{Claim, Finish, JobWebhook, Rules, WebhookOutcome, WebhookRetry};

#[derive(Debug, Clone)]
enum Step {
    Submit(u8, bool),
    Take(u8, usize, usize),
    Beat(u8, u8, bool),
    Forsaken(u8, u8),
    Part(u8, u8),
    Finish(u8, u8, bool),
    Cancel(u8),
    Retry(u8),
    Told(u8, bool),
    Drain(u8),
    Stops(u8),
    Tick,
}

/// Of five jobs not all may wait at once.
fn rules() -> Rules {
    Rules { max_waiting: Some(3), ..Rules::default() }
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let (job, worker) = (0..5u8, 0..3u8);
    let step = prop_oneof![
        4 => (job.clone(), any::<bool>()).prop_map(|(job, low)| Step::Submit(job, low)),
        4 => (worker.clone(), 1..4usize, 0..300usize).prop_map(|(worker, most, bytes)| Step::Take(worker, most, bytes)),
        2 => (job.clone(), worker.clone(), any::<bool>()).prop_map(|(job, worker, named)| Step::Beat(job, worker, named)),
        1 => (job.clone(), worker.clone()).prop_map(|(job, worker)| Step::Forsaken(job, worker)),
        2 => (job.clone(), worker.clone()).prop_map(|(job, worker)| Step::Part(job, worker)),
        3 => (job.clone(), worker.clone(), any::<bool>()).prop_map(|(job, worker, well)| Step::Finish(job, worker, well)),
        1 => job.clone().prop_map(Step::Cancel),
        1 => job.clone().prop_map(Step::Retry),
        1 => (job.clone(), any::<bool>()).prop_map(|(job, well)| Step::Told(job, well)),
        1 => job.prop_map(Step::Drain),
        1 => worker.prop_map(Step::Stops),
        2 => Just(Step::Tick),
    ];
    prop::collection::vec((step, 0..20_000u64), 1..80)
}

/// Takes a step. Returns all that the store says of it, and of where it stands afterwards.
async fn step(store: &impl Store, step: &Step, now: UnixTime) -> String {
    let (id, name) = (|job: &u8| format!("j{job}"), |worker: &u8| format!("w{worker}"));
    let rules = Rules::default();
    let change = async |job: &u8, event: Box<dyn Fn(&mut Record) -> Transition + Send + Sync>, body: Option<Bytes>| {
        let parts = body.clone().map(|body| (PayloadKind::Output, body)).into_iter().collect();
        format!("{:?}", store.change(EP, &id(job), event, parts, body).await)
    };
    let body = || Some(Bytes::from(now.as_millis().to_string()));
    let said = match step.clone() {
        Step::Submit(job, low) => {
            let mut submission = super::job(&id(&job), low, now);
            submission.record.expires = now + Duration::from_mins(4);
            submission.record.webhook = low.then(|| JobWebhook::new("https://a.example", Vec::new()));
            format!("{:?}", store.submit(EP, submission).await)
        }
        Step::Take(worker, most, bytes) => {
            let claim = Claim { worker: name(&worker), gpu: None, sends_heartbeats: most % 2 == 0, at: now };
            let request = ClaimRequest { claim, max_jobs: most, max_bytes: bytes };
            format!("{:?}", store.take(EP, request).await)
        }
        Step::Beat(job, worker, named) => {
            change(&job, Box::new(move |record| record.heartbeat(&name(&worker), named, &rules, now)), None).await
        }
        Step::Forsaken(job, worker) => {
            change(&job, Box::new(move |record| record.abandon(&name(&worker), "gone", &rules, now)), None).await
        }
        Step::Part(job, worker) => {
            change(&job, Box::new(move |record| record.progress(&name(&worker), now)), body()).await
        }
        Step::Finish(job, worker, well) => {
            let event = move |record: &mut Record| {
                let error = (!well).then(|| "e".to_owned());
                record.finish(Finish { worker: &name(&worker), error, output: well }, now)
            };
            change(&job, Box::new(event), well.then(body).flatten()).await
        }
        Step::Cancel(job) => change(&job, Box::new(move |record| record.cancel(now)), None).await,
        Step::Retry(job) => change(&job, Box::new(move |record| record.retry(now)), None).await,
        Step::Told(job, well) => {
            let event = move |record: &mut Record| {
                let Some(hook) = &mut record.webhook else { return Transition::Unchanged };
                let retry = WebhookRetry::default();
                if !hook.begin_attempt(&retry, now) {
                    return Transition::Unchanged;
                }
                let went = if well { WebhookOutcome::Accepted } else { WebhookOutcome::Failed("it is away".into()) };
                hook.record_attempt(hook.message, &went, &retry, now);
                Transition::Changed
            };
            change(&job, Box::new(event), None).await
        }
        Step::Drain(job) => format!("{:?}", store.take_chunks(EP, &id(&job), 20).await),
        Step::Stops(worker) => format!("{:?}", store.take_stops(EP, &name(&worker)).await),
        Step::Tick => {
            let mut said = Vec::new();
            for (endpoint, id) in store.due(now, 3).await.unwrap() {
                let rules = rules.clone();
                let ticked =
                    store.change(&endpoint, &id, move |record: &mut Record| record.tick(&rules, now), Vec::new(), None);
                said.push(ticked.await);
            }
            format!("{said:?}")
        }
    };
    let mut held = Vec::new();
    let mut found = Vec::new();
    for worker in 0..3 {
        held.push(store.held_by(EP, &name(&worker)).await);
    }
    for job in 0..5 {
        let job = id(&job);
        found.push((store.read(EP, &job).await, store.payload(EP, &job, PayloadKind::Output).await));
    }
    let line = store.ids_in_state(EP, JobState::InQueue).await;
    let states = vec![JobState::InProgress, JobState::InQueue, JobState::Failed, JobState::Completed];
    let page = store.page(EP, PageQuery { states, offset: 1, limit: 2 }).await;
    let busy = store.busy_workers(EP, (0..3).map(|worker| name(&worker)).collect()).await;
    let next = store.next_submitted(EP).await;
    let counts = (store.counts(EP).await, store.next_due().await);
    format!("{said}\n{counts:?} {line:?} {held:?} {found:?} {page:?} {busy:?} {next:?}")
}

/// One is asked what the other is asked, and says the same.
async fn agree(memory: &MemoryStore, other: &impl Store, steps: Vec<(Step, u64)>) -> Result<(), TestCaseError> {
    let mut now = START;
    for (next, pause) in steps {
        now = now + Duration::from_millis(pause);
        let (wanted, found) = (step(memory, &next, now).await, step(other, &next, now).await);
        prop_assert_eq!(wanted, found, "after {:?}", next);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sqlite_does_what_memory_does(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let (memory, sqlite) = (MemoryStore::new(rules()), SqliteStore::open(&folder.path().join("queue.db"), rules(), None).unwrap());
        Builder::new_current_thread().build().unwrap().block_on(agree(&memory, &sqlite, steps))?;
    }
}

#[test]
fn redis_does_what_memory_does() {
    let (server, runtime) = (Server::start(&[]), Builder::new_current_thread().enable_all().build().unwrap());
    let redis = runtime.block_on(RedisStore::by(rules(), &server));
    let mut runner = TestRunner::new(ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(24) });
    let agreed = runner.run(&steps(), |steps| {
        runtime.block_on(redis.erase());
        runtime.block_on(agree(&MemoryStore::new(rules()), &redis, steps))
    });
    agreed.unwrap();
}
