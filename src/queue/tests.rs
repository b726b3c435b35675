//! The laws, case by case and under any sequence of events.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::date::UnixTime;

const START: UnixTime = UnixTime::from_millis(1_000_000);

fn at(seconds: u64) -> UnixTime {
    START + Duration::from_secs(seconds)
}

fn job() -> Record {
    Record::new("j1", START)
}

fn held(worker: &str) -> Record {
    let mut job = job();
    assert_eq!(job.start(&Taking { gpu: Some("24".into()), ..taking(worker, at(1)) }), Turn::Changed);
    job
}

fn taking(worker: &str, at: UnixTime) -> Taking {
    Taking { worker: worker.into(), gpu: None, beats: true, at }
}

fn done(worker: &str) -> Finish<'_> {
    Finish { worker, error: None, output: true }
}

#[test]
fn a_job_goes_from_the_queue_to_its_end() {
    let mut job = held("w1");
    assert_eq!((job.state, job.holder(), job.delay()), (State::InProgress, Some("w1"), Some(Duration::from_secs(1))));
    assert_eq!((job.execution(), job.attempt.as_ref().and_then(|attempt| attempt.gpu.as_deref())), (None, Some("24")));
    assert_eq!(job.progress("w1", at(3)), Turn::Changed);
    assert_eq!((job.execution(), job.output), (Some(Duration::from_secs(2)), true));
    assert_eq!(job.finish(done("w1"), at(5)), Turn::Changed);
    assert_eq!((job.state, job.holder(), job.execution()), (State::Completed, None, Some(Duration::from_secs(4))));
    assert_eq!(job.progress("w1", at(6)), Turn::Nothing, "late progress");
    assert_eq!(job.finish(Finish { error: Some("late".into()), ..done("w1") }, at(6)), Turn::Nothing);
    assert_eq!(job.cancel(at(7)), Turn::Nothing);
    assert_eq!(job.retry(at(7)), Turn::Nothing, "only what failed is retried");
}

#[test]
fn a_failure_keeps_its_output_and_can_be_retried() {
    let mut job = held("w1");
    let finish = Finish { worker: "w1", error: Some("no memory".into()), output: true };
    assert_eq!(job.finish(finish, at(2)), Turn::Changed);
    assert_eq!((job.state, job.error.as_deref(), job.output), (State::Failed, Some("no memory"), true));
    assert_eq!(job.retry(at(3)), Turn::Changed);
    assert_eq!((job.state, job.error.as_deref(), job.output, job.ended), (State::InQueue, None, false, None));
    assert_eq!((job.past.len(), &*job.past[0].why), (1, "no memory"));
    assert_eq!(job.start(&taking("w2", at(4))), Turn::Changed);
    assert_eq!(job.attempt.as_ref().map(|attempt| attempt.number), Some(2));
}

#[test]
fn of_very_many_attempts_the_newest_are_remembered_and_all_are_counted() {
    let (mut job, error) = (job(), "e".repeat(5_000_000));
    for number in 1..=200 {
        // Now and then by a worker that had it before, whose attempt is the older one.
        let worker = if number % 7 == 0 { "w0".to_owned() } else { format!("w{number}") };
        assert_eq!(job.start(&taking(&format!("w{number}"), at(number))), Turn::Changed);
        let failed = Finish { error: Some(error.clone()), ..done(&worker) };
        assert_ne!(job.finish(failed, at(number)), Turn::Nothing);
        assert_eq!(job.retry(at(number)), Turn::Changed);
    }
    let numbers: std::collections::BTreeSet<u32> = job.past.iter().map(|past| past.number).collect();
    assert_eq!((numbers.len(), job.past.len()), (50, 50));
    assert_eq!(numbers.last(), Some(&job.attempts()));
    assert_eq!(job.forgotten + 50, job.attempts());
    assert!(serde_json::to_string(&job).unwrap().len() < 100_000, "it is written whenever something happens");
}

#[test]
fn what_never_arrived_waits_again_and_counts_as_no_retry() {
    let mut job = held("w1");
    assert_eq!(job.beat("w2", false, &Rules::default(), at(2)), Turn::Nothing, "another worker's heartbeat");
    assert_eq!(job.beat("w1", false, &Rules::default(), at(2)), Turn::Changed);
    assert_eq!(job.state, State::InProgress, "the first may have been on its way");
    assert_eq!(job.beat("w1", false, &Rules::default(), at(12)), Turn::Changed);
    assert_eq!((job.state, job.retries, job.past.len()), (State::InQueue, 0, 1));
    assert_eq!(job.start(&taking("w1", at(13))), Turn::Changed);
    assert_eq!(job.forsaken("w1", "the worker is gone", &Rules::default(), at(50)), Turn::Changed);
    assert_eq!((job.state, job.retries), (State::InQueue, 0));
}

#[test]
fn a_job_that_is_never_seen_to_arrive_is_lost_in_the_end() {
    let (rules, mut job) = (Rules::default(), job());
    for (attempt, retries) in [0, 0, 1].into_iter().enumerate() {
        assert_eq!(job.start(&taking("w1", at(1))), Turn::Changed);
        assert_eq!(job.forsaken("w1", "it has nothing in hand", &rules, at(2)), Turn::Changed);
        assert_eq!((job.state, job.retries, job.past.len()), (State::InQueue, retries, attempt + 1));
    }
    assert_eq!(job.start(&taking("w1", at(3))), Turn::Changed);
    assert_eq!(job.beat("w1", false, &rules, at(4)), Turn::Changed);
    assert_eq!(job.beat("w1", false, &rules, at(5)), Turn::Changed);
    assert_eq!((job.state, job.error.as_deref()), (State::Failed, Some("job timed out after 1 retries")));
}

#[test]
fn a_job_whose_worker_was_lost_before_it_named_it_waits_again() {
    let rules = Rules::default();
    let mut job = held("w1");
    assert_eq!((job.due(&rules), job.tick(&rules, at(40))), (at(41), Turn::Nothing));
    let mut unseen = job.clone();
    assert_eq!(unseen.tick(&rules, at(41)), Turn::Changed);
    assert_eq!((unseen.state, unseen.retries), (State::InQueue, 0), "it may never have arrived");

    assert_eq!(job.progress("w1", at(4)), Turn::Changed);
    // The one that has come under its name does not know of it.
    assert_eq!(job.beat("w1", false, &rules, at(20)), Turn::Nothing);
    assert_eq!((job.due(&rules), job.tick(&rules, at(43))), (at(44), Turn::Nothing));
    assert_eq!(job.tick(&rules, at(44)), Turn::Changed);
    assert_eq!((job.state, job.retries), (State::InQueue, 1));
}

#[test]
fn a_worker_without_heartbeats_may_be_silent_until_it_sends_one() {
    let (rules, mut job) = (Rules::default(), job());
    assert_eq!(job.start(&Taking { beats: false, ..taking("w1", at(1)) }), Turn::Changed);
    assert_eq!(job.progress("w1", at(2)), Turn::Changed);
    assert_eq!((job.due(&rules), job.tick(&rules, at(600))), (at(601), Turn::Nothing), "it works");
    assert_eq!(job.beat("w1", false, &rules, at(20)), Turn::Changed);
    assert_eq!(job.due(&rules), at(42));
}

#[test]
fn what_nobody_could_hear_is_held_against_no_worker() {
    let (mut job, rules) = (held("w1"), Rules { since: at(100), ..Rules::default() });
    assert_eq!(job.beat("w1", true, &rules, at(5)), Turn::Changed);
    assert_eq!(job.tick(&rules, at(101)), Turn::Changed);
    assert_eq!((job.state, job.due(&rules), job.tick(&rules, at(139))), (State::InProgress, at(140), Turn::Nothing));
    assert_eq!(job.tick(&rules, at(140)), Turn::Changed);
    assert_eq!((job.state, job.retries), (State::InQueue, 1));
}

#[test]
fn a_lost_job_is_tried_once_more_and_then_fails() {
    let rules = Rules::default();
    let mut job = held("w1");
    assert_eq!(job.beat("w1", true, &Rules::default(), at(10)), Turn::Changed);
    assert_eq!(job.beat("w1", false, &Rules::default(), at(20)), Turn::Nothing, "it is on its way back, or lost");
    assert_eq!((job.due(&rules), job.tick(&rules, at(49))), (at(50), Turn::Nothing));
    assert_eq!(job.tick(&rules, at(50)), Turn::Changed);
    assert_eq!((job.state, job.retries, job.delay()), (State::InQueue, 1, None));
    assert_eq!(job.start(&taking("w2", at(60))), Turn::Changed);
    assert_eq!(job.beat("w2", true, &Rules::default(), at(61)), Turn::Changed);
    assert_eq!(job.forsaken("w2", "the worker is gone", &rules, at(90)), Turn::Changed);
    assert_eq!((job.state, job.error.as_deref()), (State::Failed, Some("job timed out after 1 retries")));
}

#[test]
fn work_that_was_taken_for_lost_counts_if_it_is_first() {
    let rules = Rules::default();
    let mut job = held("w1");
    assert_eq!(job.part("w1"), Turn::Changed);
    assert_eq!(job.forsaken("w1", "gone", &rules, at(31)), Turn::Changed);
    let mut waiting = job.clone();
    assert_eq!(waiting.finish(done("w1"), at(35)), Turn::Changed);
    assert_eq!((waiting.state, waiting.execution()), (State::Completed, Some(Duration::from_secs(34))));
    assert_eq!(job.start(&taking("w2", at(32))), Turn::Changed);
    assert_eq!(job.finish(done("w1"), at(35)), Turn::Stop("w2".into()), "the other works in vain");
    assert_eq!(
        (job.state, job.attempt.map(|attempt| attempt.number), &*job.past[0].worker),
        (State::Completed, Some(1), "w2")
    );
}

#[test]
fn a_client_and_time_stop_what_a_worker_holds() {
    let rules = Rules::default();
    assert_eq!(held("w1").cancel(at(2)), Turn::Stop("w1".into()));
    assert_eq!(job().cancel(at(2)), Turn::Changed);
    let mut slow = held("w1");
    slow.patience = Duration::from_secs(5);
    assert_eq!((slow.due(&rules), slow.tick(&rules, at(5))), (at(6), Turn::Nothing));
    assert_eq!(slow.tick(&rules, at(6)), Turn::Stop("w1".into()));
    assert_eq!(slow.state, State::TimedOut);
    assert!(slow.error.as_deref().is_some_and(|error| error.contains("5000 ms")), "{:?}", slow.error);
    // Its worker may say so first; a result counts all the same.
    for (seconds, error, state) in [(5, true, State::Failed), (6, true, State::TimedOut), (6, false, State::Completed)]
    {
        let mut slow = held("w1");
        slow.patience = Duration::from_secs(5);
        let finish = Finish { error: error.then(|| "too slow".into()), ..done("w1") };
        assert_ne!(slow.finish(finish, at(seconds)), Turn::Nothing);
        assert_eq!(slow.state, state);
    }
}

#[test]
fn what_is_over_is_forgotten_once_its_hook_was_told() {
    let rules = Rules::default();
    let mut job = held("w1");
    job.hook = Some(Hook::new("https://a.example", Vec::new()));
    job.expires = at(20);
    assert_eq!(job.tick(&rules, at(20)), Turn::Stop("w1".into()));
    assert_eq!((job.state, job.gone, job.is_over()), (State::TimedOut, true, false));
    assert_eq!(job.due(&rules), at(20));
    let tells = rules.tells;
    for (seconds, went) in [(20, failed()), (30, failed()), (40, Tried::Taken)] {
        let hook = job.hook.as_mut().unwrap();
        let mut begins = |second| hook.begin(&tells, at(second));
        assert!(!begins(seconds - 1) && begins(seconds) && !begins(seconds));
        assert_eq!(hook.told(1, &went, &tells, at(seconds)), went == Tried::Taken);
    }
    assert!(job.is_over());
    let mut kept = held("w1");
    assert_eq!(kept.finish(done("w1"), at(2)), Turn::Changed);
    assert_eq!(kept.due(&rules), at(2) + kept.kept);
    assert_eq!((kept.tick(&rules, at(2) + kept.kept), kept.is_over()), (Turn::Changed, true));
}

#[test]
fn a_hook_is_tried_three_times_and_tells_each_end_anew() {
    let mut job = held("w1");
    job.hook = Some(Hook::new("https://a.example", Vec::new()));
    assert_eq!(job.finish(Finish { error: Some("e".into()), ..done("w1") }, at(2)), Turn::Changed);
    let tells = Tells::default();
    let hook = job.hook.as_mut().unwrap();
    assert!(hook.begin(&tells, at(2)));
    assert_eq!((hook.told(1, &failed(), &tells, at(3)), hook.due), (false, Some(at(13))));
    assert!(hook.begin(&tells, at(13)), "and its teller dies");
    assert!(!hook.begin(&tells, at(72)) && hook.begin(&tells, at(73)));
    assert!(hook.told(1, &failed(), &tells, at(74)), "given up");
    assert_eq!(job.retry(at(80)), Turn::Changed);
    assert_eq!(job.cancel(at(81)), Turn::Changed);
    let hook = job.hook.as_mut().unwrap();
    assert_eq!((hook.message, hook.due, hook.tries), (2, Some(at(81)), 0));
    assert!(hook.told(1, &Tried::Taken, &tells, at(82)), "news of the first message");
    assert_eq!(hook.due, Some(at(81)), "say nothing of the second");
    hook.put_off(&tells, at(90));
    assert_eq!((hook.due, hook.tries), (Some(at(100)), 0), "it did not count");
    assert!(hook.begin(&tells, at(100)));
    assert!(hook.told(2, &Tried::Refused("private".into()), &tells, at(101)), "no other try will help");
    let log: Vec<_> = hook.log.iter().map(|told| (told.message, told.at, told.why.as_deref())).collect();
    let first = [(1, at(3), Some("it is away")), (1, at(74), Some("it is away"))];
    assert_eq!(log, [&first[..], &[(1, at(82), None), (2, at(101), Some("private"))]].concat());
}

fn failed() -> Tried {
    Tried::Failed("it is away".into())
}

#[derive(Debug, Clone)]
enum Event {
    Start(u8),
    Beat(u8, bool),
    Forsaken(u8),
    Progress(u8),
    Finish(u8, bool),
    Cancel,
    Retry,
    Tick,
}

fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let worker = 0..3u8;
    let event = prop_oneof![
        3 => worker.clone().prop_map(Event::Start),
        3 => (worker.clone(), any::<bool>()).prop_map(|(worker, named)| Event::Beat(worker, named)),
        1 => worker.clone().prop_map(Event::Forsaken),
        1 => worker.clone().prop_map(Event::Progress),
        1 => (worker, any::<bool>()).prop_map(|(worker, well)| Event::Finish(worker, well)),
        1 => Just(Event::Cancel),
        1 => Just(Event::Retry),
        2 => Just(Event::Tick),
    ];
    prop::collection::vec((event, 0..30_000u64), 1..60)
}

fn apply(job: &mut Record, event: &Event, now: UnixTime) -> Turn {
    let rules = Rules::default();
    let name = |worker: &u8| format!("w{worker}");
    match event {
        Event::Start(worker) => job.start(&taking(&name(worker), now)),
        Event::Beat(worker, named) => job.beat(&name(worker), *named, &rules, now),
        Event::Forsaken(worker) => job.forsaken(&name(worker), "gone", &rules, now),
        Event::Progress(worker) => job.progress(&name(worker), now),
        Event::Finish(worker, well) => {
            job.finish(Finish { error: (!well).then(|| "e".into()), ..done(&name(worker)) }, now)
        }
        Event::Cancel => job.cancel(now),
        Event::Retry => job.retry(now),
        Event::Tick => job.tick(&rules, now),
    }
}

/// The ways of PROTOCOL 2.5, and those of a result that comes after its attempt was given up.
fn is_open(from: State, to: State) -> bool {
    use State::{Cancelled, Completed, Failed, InProgress, InQueue, TimedOut};
    matches!(
        (from, to),
        (InQueue, InProgress | Cancelled | TimedOut | Completed | Failed)
            | (InProgress, InQueue | Completed | Failed | Cancelled | TimedOut)
            | (Failed | TimedOut, InQueue)
    )
}

proptest! {
    #[test]
    fn whatever_happens_the_laws_hold(events in events(), patience in 5_000..120_000u64, ttl in 10_000..400_000u64) {
        let rules = Rules::default();
        let (mut job, mut now) = (job(), START);
        job.patience = Duration::from_millis(patience);
        job.expires = START + Duration::from_millis(ttl);
        job.hook = Some(Hook::new("https://a.example", Vec::new()));
        for (event, pause) in events {
            now = now + Duration::from_millis(pause);
            let before = job.clone();
            let turn = apply(&mut job, &event, now);
            prop_assert_eq!(turn == Turn::Nothing, before == job, "{:?} {:?}", event, turn);
            prop_assert!(before.state == job.state || is_open(before.state, job.state), "{} -> {}", before.state, job.state);
            prop_assert!(!before.gone || before == job, "what is gone stays as it is");
            prop_assert_eq!(job.state.is_end(), job.ended.is_some());
            prop_assert!(job.retries <= rules.retries);
            prop_assert!(job.state != State::InQueue || job.attempt.is_none() && !job.output);
            prop_assert!(job.attempts() >= before.attempts(), "an attempt is forgotten");
            let known = job.past.len() + usize::from(job.attempt.is_some()) + job.forgotten as usize;
            prop_assert_eq!(known, job.attempts() as usize, "each has a number of its own");
            let ended = job.state.is_end() && !before.state.is_end();
            prop_assert_eq!(ended, job.hook != before.hook, "each end is told once");
            if let Turn::Stop(worker) = &turn {
                prop_assert_eq!(before.holder(), Some(&**worker));
                prop_assert!(ended);
            }
            if !job.gone && job.hook.as_ref().is_none_or(|hook| hook.due.is_none()) {
                let due = job.due(&rules);
                let mut later = job.clone();
                let one = Duration::from_millis(1);
                let early = UnixTime::from_millis(due.as_millis() - 1);
                prop_assert_eq!(later.tick(&rules, early), Turn::Nothing, "nothing before it is due");
                prop_assert!(later.tick(&rules, early + one) != Turn::Nothing, "something once it is due");
            }
        }
    }
}
