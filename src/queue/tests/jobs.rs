//! A job's way to its end, case by case.

use super::*;

#[test]
fn a_job_goes_from_the_queue_to_its_end() {
    let mut job = held("w1");
    assert_eq!(
        (job.state, job.holder(), job.delay()),
        (JobState::InProgress, Some("w1"), Some(Duration::from_secs(1)))
    );
    assert_eq!((job.execution(), job.attempt.as_ref().and_then(|attempt| attempt.gpu.as_deref())), (None, Some("24")));
    assert_eq!(job.progress("w1", at(3)), Transition::Changed);
    assert_eq!((job.execution(), job.output), (Some(Duration::from_secs(2)), true));
    assert_eq!(job.finish(done("w1"), at(5)), Transition::Changed);
    assert_eq!((job.state, job.holder(), job.execution()), (JobState::Completed, None, Some(Duration::from_secs(4))));
    assert_eq!(job.progress("w1", at(6)), Transition::Unchanged, "late progress");
    assert_eq!(job.finish(Finish { error: Some("late".into()), ..done("w1") }, at(6)), Transition::Unchanged);
    assert_eq!(job.cancel(at(7)), Transition::Unchanged);
    assert_eq!(job.retry(at(7)), Transition::Unchanged, "only what failed is retried");
}

#[test]
fn a_failure_keeps_its_output_and_can_be_retried() {
    let mut job = held("w1");
    let finish = Finish { worker: "w1", error: Some("no memory".into()), output: true };
    assert_eq!(job.finish(finish, at(2)), Transition::Changed);
    assert_eq!((job.state, job.error.as_deref(), job.output), (JobState::Failed, Some("no memory"), true));
    assert_eq!(job.retry(at(3)), Transition::Changed);
    assert_eq!((job.state, job.error.as_deref(), job.output, job.ended), (JobState::InQueue, None, false, None));
    assert_eq!((job.failed_attempts.len(), &*job.failed_attempts[0].reason), (1, "no memory"));
    assert_eq!(job.start(&taking("w2", at(4))), Transition::Changed);
    assert_eq!(job.attempt.as_ref().map(|attempt| attempt.number), Some(2));
}

#[test]
fn of_very_many_attempts_the_newest_are_remembered_and_all_are_counted() {
    let (mut job, error) = (job(), "e".repeat(5_000_000));
    for number in 1..=200 {
        // Now and then by a worker that had it before, whose attempt is the older one.
        let worker = if number % 7 == 0 { "w0".to_owned() } else { format!("w{number}") };
        assert_eq!(job.start(&taking(&format!("w{number}"), at(number))), Transition::Changed);
        let failed = Finish { error: Some(error.clone()), ..done(&worker) };
        assert_ne!(job.finish(failed, at(number)), Transition::Unchanged);
        assert_eq!(job.retry(at(number)), Transition::Changed);
    }
    let numbers: std::collections::BTreeSet<u32> = job.failed_attempts.iter().map(|past| past.number).collect();
    assert_eq!((numbers.len(), job.failed_attempts.len()), (50, 50));
    assert_eq!(numbers.last(), Some(&job.attempts()));
    assert_eq!(job.forgotten_attempts + 50, job.attempts());
    assert!(serde_json::to_string(&job).unwrap().len() < 100_000, "it is written whenever something happens");
}

#[test]
fn a_client_and_time_stop_what_a_worker_holds() {
    let rules = Rules::default();
    assert_eq!(held("w1").cancel(at(2)), Transition::Stop("w1".into()));
    assert_eq!(job().cancel(at(2)), Transition::Changed);
    let mut slow = held("w1");
    slow.execution_timeout = Duration::from_secs(5);
    assert_eq!((slow.due(&rules), slow.tick(&rules, at(5))), (at(6), Transition::Unchanged));
    assert_eq!(slow.tick(&rules, at(6)), Transition::Stop("w1".into()));
    assert_eq!(slow.state, JobState::TimedOut);
    assert!(slow.error.as_deref().is_some_and(|error| error.contains("5000 ms")), "{:?}", slow.error);
    // Its worker may say so first; a result counts all the same.
    for (seconds, error, state) in
        [(5, true, JobState::Failed), (6, true, JobState::TimedOut), (6, false, JobState::Completed)]
    {
        let mut slow = held("w1");
        slow.execution_timeout = Duration::from_secs(5);
        let finish = Finish { error: error.then(|| "too slow".into()), ..done("w1") };
        assert_ne!(slow.finish(finish, at(seconds)), Transition::Unchanged);
        assert_eq!(slow.state, state);
    }
}
