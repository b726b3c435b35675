//! Workers that are lost with a job, or never had it.

use super::*;

#[test]
fn what_never_arrived_waits_again_and_counts_as_no_retry() {
    let mut job = held("w1");
    assert_eq!(
        job.heartbeat("w2", false, &Rules::default(), at(2)),
        Transition::Unchanged,
        "another worker's heartbeat"
    );
    assert_eq!(job.heartbeat("w1", false, &Rules::default(), at(2)), Transition::Changed);
    assert_eq!(job.state, JobState::InProgress, "the first may have been on its way");
    assert_eq!(job.heartbeat("w1", false, &Rules::default(), at(12)), Transition::Changed);
    assert_eq!((job.state, job.retries, job.failed_attempts.len()), (JobState::InQueue, 0, 1));
    assert_eq!(job.start(&taking("w1", at(13))), Transition::Changed);
    assert_eq!(job.abandon("w1", "the worker is gone", &Rules::default(), at(50)), Transition::Changed);
    assert_eq!((job.state, job.retries), (JobState::InQueue, 0));
}

/// Of many workers under one id, each sends heartbeats that name its own jobs alone.
#[test]
fn a_job_may_go_unnamed_until_its_worker_has_had_time_to_name_it() {
    let mut job = held("w1");
    assert_eq!(job.heartbeat("w1", false, &Rules::default(), at(2)), Transition::Changed);
    for second in 3..12 {
        assert_eq!(job.heartbeat("w1", false, &Rules::default(), at(second)), Transition::Unchanged);
    }
    assert_eq!(job.heartbeat("w1", true, &Rules::default(), at(11)), Transition::Changed);
    assert_eq!(job.heartbeat("w1", false, &Rules::default(), at(13)), Transition::Unchanged);
    assert_eq!((job.state, job.failed_attempts.len()), (JobState::InProgress, 0));
}

#[test]
fn a_worker_that_says_it_has_nothing_is_believed_when_no_heartbeat_says_otherwise() {
    let rules = Rules::default();
    let deny = |job: &mut Record, second| job.report_idle("w1", "it has nothing", &rules, at(second));
    let mut unnamed = held("w1");
    assert_eq!(deny(&mut unnamed, 2), Transition::Changed, "noted");
    assert_eq!(deny(&mut unnamed, 20), Transition::Unchanged);
    assert_eq!(
        (unnamed.state, unnamed.report_idle("w2", "it", &rules, at(21))),
        (JobState::InProgress, Transition::Unchanged)
    );
    assert_eq!(deny(&mut unnamed, 21), Transition::Changed);
    assert_eq!((unnamed.state, unnamed.retries), (JobState::InQueue, 0), "it may never have arrived");

    let mut job = held("w1");
    assert_eq!(job.heartbeat("w1", true, &rules, at(9)), Transition::Changed);
    assert_eq!(deny(&mut job, 10), Transition::Changed);
    let attempt = |job: &Record| job.attempt.clone().unwrap();
    assert_eq!((attempt(&job).idle_doubted_until(&rules), attempt(&job).contradicts_idle_report()), (at(29), false));
    let mut other = job.clone();
    assert_eq!(deny(&mut job, 29), Transition::Changed);
    assert_eq!((job.state, job.retries), (JobState::InQueue, 1));
    assert_eq!(other.heartbeat("w1", true, &rules, at(11)), Transition::Changed);
    assert!(!attempt(&other).contradicts_idle_report(), "it may have been on its way");
    assert_eq!(other.heartbeat("w1", true, &rules, at(19)), Transition::Changed);
    assert!(attempt(&other).contradicts_idle_report(), "those are two");
    assert_eq!((deny(&mut other, 29), other.state), (Transition::Unchanged, JobState::InProgress));
}

#[test]
fn a_job_that_is_never_seen_to_arrive_is_lost_in_the_end() {
    let (rules, mut job) = (Rules::default(), job());
    for (attempt, retries) in [0, 0, 1].into_iter().enumerate() {
        assert_eq!(job.start(&taking("w1", at(1))), Transition::Changed);
        assert_eq!(job.abandon("w1", "it has nothing in hand", &rules, at(2)), Transition::Changed);
        assert_eq!((job.state, job.retries, job.failed_attempts.len()), (JobState::InQueue, retries, attempt + 1));
    }
    assert_eq!(job.start(&taking("w1", at(3))), Transition::Changed);
    assert_eq!(job.heartbeat("w1", false, &rules, at(4)), Transition::Changed);
    assert_eq!(job.heartbeat("w1", false, &rules, at(14)), Transition::Changed);
    assert_eq!((job.state, job.error.as_deref()), (JobState::Failed, Some("job timed out after 1 retries")));
}

#[test]
fn a_job_whose_worker_was_lost_before_it_named_it_waits_again() {
    let rules = Rules::default();
    let mut job = held("w1");
    assert_eq!((job.due(&rules), job.tick(&rules, at(40))), (at(41), Transition::Unchanged));
    let mut unseen = job.clone();
    assert_eq!(unseen.tick(&rules, at(41)), Transition::Changed);
    assert_eq!((unseen.state, unseen.retries), (JobState::InQueue, 0), "it may never have arrived");

    assert_eq!(job.progress("w1", at(4)), Transition::Changed);
    // The one that has come under its name does not know of it.
    assert_eq!(job.heartbeat("w1", false, &rules, at(20)), Transition::Unchanged);
    assert_eq!((job.due(&rules), job.tick(&rules, at(43))), (at(44), Transition::Unchanged));
    assert_eq!(job.tick(&rules, at(44)), Transition::Changed);
    assert_eq!((job.state, job.retries), (JobState::InQueue, 1));
}

#[test]
fn a_worker_without_heartbeats_may_be_silent_until_it_sends_one() {
    let (rules, mut job) = (Rules::default(), job());
    assert_eq!(job.start(&Claim { sends_heartbeats: false, ..taking("w1", at(1)) }), Transition::Changed);
    assert_eq!(job.progress("w1", at(2)), Transition::Changed);
    assert_eq!((job.due(&rules), job.tick(&rules, at(600))), (at(601), Transition::Unchanged), "it works");
    assert_eq!(job.heartbeat("w1", false, &rules, at(20)), Transition::Changed);
    assert_eq!(job.due(&rules), at(42));
}

#[test]
fn what_nobody_could_hear_is_held_against_no_worker() {
    let (mut job, rules) = (held("w1"), Rules { listening_since: at(100), ..Rules::default() });
    assert_eq!(job.heartbeat("w1", true, &rules, at(5)), Transition::Changed);
    assert_eq!(job.tick(&rules, at(101)), Transition::Changed);
    assert_eq!(
        (job.state, job.due(&rules), job.tick(&rules, at(139))),
        (JobState::InProgress, at(140), Transition::Unchanged)
    );
    assert_eq!(job.tick(&rules, at(140)), Transition::Changed);
    assert_eq!((job.state, job.retries), (JobState::InQueue, 1));
}

#[test]
fn a_lost_job_is_tried_once_more_and_then_fails() {
    let rules = Rules::default();
    let mut job = held("w1");
    assert_eq!(job.heartbeat("w1", true, &Rules::default(), at(10)), Transition::Changed);
    assert_eq!(
        job.heartbeat("w1", false, &Rules::default(), at(20)),
        Transition::Unchanged,
        "it is on its way back, or lost"
    );
    assert_eq!((job.due(&rules), job.tick(&rules, at(49))), (at(50), Transition::Unchanged));
    assert_eq!(job.tick(&rules, at(50)), Transition::Changed);
    assert_eq!((job.state, job.retries, job.delay()), (JobState::InQueue, 1, None));
    assert_eq!(job.start(&taking("w2", at(60))), Transition::Changed);
    assert_eq!(job.heartbeat("w2", true, &Rules::default(), at(61)), Transition::Changed);
    assert_eq!(job.abandon("w2", "the worker is gone", &rules, at(90)), Transition::Changed);
    assert_eq!((job.state, job.error.as_deref()), (JobState::Failed, Some("job timed out after 1 retries")));
}

#[test]
fn work_that_was_taken_for_lost_counts_if_it_is_first() {
    let rules = Rules::default();
    let mut job = held("w1");
    assert_eq!(job.part("w1"), Transition::Changed);
    assert_eq!(job.abandon("w1", "gone", &rules, at(31)), Transition::Changed);
    let mut waiting = job.clone();
    assert_eq!(waiting.finish(done("w1"), at(35)), Transition::Changed);
    assert_eq!((waiting.state, waiting.execution()), (JobState::Completed, Some(Duration::from_secs(34))));
    assert_eq!(job.start(&taking("w2", at(32))), Transition::Changed);
    assert_eq!(job.finish(done("w1"), at(35)), Transition::Stop("w2".into()), "the other works in vain");
    assert_eq!(
        (job.state, job.attempt.map(|attempt| attempt.number), &*job.failed_attempts[0].worker),
        (JobState::Completed, Some(1), "w2")
    );
}
