//! Any sequence of events.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Start(u8),
    Beat(u8, bool),
    Forsaken(u8),
    Idle(u8),
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
        1 => worker.clone().prop_map(Event::Idle),
        1 => worker.clone().prop_map(Event::Progress),
        1 => (worker, any::<bool>()).prop_map(|(worker, well)| Event::Finish(worker, well)),
        1 => Just(Event::Cancel),
        1 => Just(Event::Retry),
        2 => Just(Event::Tick),
    ];
    prop::collection::vec((event, 0..30_000u64), 1..60)
}

fn apply(job: &mut Record, event: &Event, now: UnixTime) -> Transition {
    let rules = Rules::default();
    let name = |worker: &u8| format!("w{worker}");
    match event {
        Event::Start(worker) => job.start(&taking(&name(worker), now)),
        Event::Beat(worker, named) => job.heartbeat(&name(worker), *named, &rules, now),
        Event::Forsaken(worker) => job.abandon(&name(worker), "gone", &rules, now),
        Event::Idle(worker) => job.report_idle(&name(worker), "it has nothing", &rules, now),
        Event::Progress(worker) => job.progress(&name(worker), now),
        Event::Finish(worker, well) => {
            job.finish(Finish { error: (!well).then(|| "e".into()), ..done(&name(worker)) }, now)
        }
        Event::Cancel => job.cancel(now),
        Event::Retry => job.retry(now),
        Event::Tick => job.tick(&rules, now),
    }
}

/// How jobs move on the hosted platform, and by a result that comes after its attempt was given up.
fn is_open(from: JobState, to: JobState) -> bool {
    use JobState::{Cancelled, Completed, Failed, InProgress, InQueue, TimedOut};
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
        job.execution_timeout = Duration::from_millis(patience);
        job.expires = START + Duration::from_millis(ttl);
        job.webhook = Some(JobWebhook::new("https://a.example", Vec::new()));
        for (event, pause) in events {
            now = now + Duration::from_millis(pause);
            let before = job.clone();
            let transition = apply(&mut job, &event, now);
            prop_assert_eq!(transition == Transition::Unchanged, before == job, "{:?} {:?}", event, transition);
            prop_assert!(before.state == job.state || is_open(before.state, job.state), "{} -> {}", before.state, job.state);
            prop_assert!(!before.hidden || before == job, "what is gone stays as it is");
            prop_assert_eq!(job.state.is_end(), job.ended.is_some());
            prop_assert!(job.retries <= rules.retries);
            prop_assert!(job.state != JobState::InQueue || job.attempt.is_none() && !job.output);
            prop_assert!(job.attempts() >= before.attempts(), "an attempt is forgotten");
            let known = job.failed_attempts.len() + usize::from(job.attempt.is_some()) + job.forgotten_attempts as usize;
            prop_assert_eq!(known, job.attempts() as usize, "each has a number of its own");
            let ended = job.state.is_end() && !before.state.is_end();
            prop_assert_eq!(ended, job.webhook != before.webhook, "each end is told once");
            if let Transition::Stop(worker) = &transition {
                prop_assert_eq!(before.holder(), Some(&**worker));
                prop_assert!(ended);
            }
            if !job.hidden && job.webhook.as_ref().is_none_or(|hook| hook.due.is_none()) {
                let due = job.due(&rules);
                let mut later = job.clone();
                let one = Duration::from_millis(1);
                let early = UnixTime::from_millis(due.as_millis() - 1);
                prop_assert_eq!(later.tick(&rules, early), Transition::Unchanged, "nothing before it is due");
                prop_assert!(later.tick(&rules, early + one) != Transition::Unchanged, "something once it is due");
            }
        }
    }
}
