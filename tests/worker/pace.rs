//! How often a queue is asked, on a clock that is paused.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latentd::deliver::spool::Spool;
use latentd::engine::fake::Fake;
use latentd::source::{JobSource, NextPoll, TakeError, Taken};
use latentd::stop::Stop;
use latentd::telemetry::Telemetry;
use latentd::worker::{WorkerEnd, WorkerOptions, work};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::worker::engine::{OPTIONS, parts, resources, sink};
use crate::worker::queue::Queue;

/// What a poll comes to, and after how long.
type Step = (u64, Result<(), NextPoll>);

/// A queue by script, which ends the worker after that.
struct Script {
    steps: Mutex<VecDeque<Step>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl JobSource for Script {
    async fn take(&self, _: usize, _: bool, _: &CancellationToken) -> Result<Taken, TakeError> {
        self.asked.lock().unwrap().push(Instant::now());
        let step = self.steps.lock().unwrap().pop_front().unwrap_or((0, Err(NextPoll::Stop)));
        sleep(Duration::from_millis(step.0)).await;
        step.1.map(|()| Taken::default()).map_err(|next| TakeError { why: "so it is".into(), next })
    }

    async fn heartbeat(&self, _: impl Fn() -> Vec<String> + Send + Sync) -> Infallible {
        pending().await
    }

    async fn watch_stops(&self, _: impl Fn(&str) + Send + Sync) -> Infallible {
        pending().await
    }
}

/// How a worker ends that goes through these steps, and when it polled and ended.
async fn worked(steps: Vec<Step>, options: WorkerOptions) -> (WorkerEnd, Vec<Instant>) {
    let queue = Queue::start().await;
    let (resources, asked) = (resources(Fake::default()).await, Arc::new(Mutex::new(Vec::new())));
    tokio::time::pause();
    let source = Script { steps: Mutex::new(steps.into()), asked: Arc::clone(&asked) };
    let (parts, ready) =
        (parts(sink(&queue), Spool::in_memory(1)), async { Ok::<_, Infallible>((resources, options)) });
    let Ok(end) = work(&source, parts, Telemetry::default(), ready, Stop::default()).await;
    let mut times = asked.lock().unwrap().clone();
    times.push(Instant::now());
    (end, times)
}

/// Milliseconds from the end of each step to the next poll. Each of two sleeps is rounded up to the next one.
async fn pauses(steps: Vec<Step>) -> Vec<u64> {
    let (end, asked) = worked(steps.clone(), OPTIONS).await;
    assert_eq!(end, WorkerEnd::NoQueue("so it is".into()));
    let gaps = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_millis() as u64);
    gaps.zip(steps).map(|(gap, (took, _))| gap - took).collect()
}

#[tokio::test]
async fn a_queue_that_holds_polls_is_asked_again_at_once() {
    let held = pauses(vec![(20_000, Ok(())); 5]).await;
    assert!(held.iter().all(|pause| *pause <= 2), "{held:?}");
}

#[tokio::test]
async fn a_queue_that_does_not_hold_them_is_asked_ever_less_often() {
    let pauses = pauses(vec![(0, Ok(())); 15]).await;
    assert!(pauses[0] <= 2 && (100..=102).contains(&pauses[1]), "{pauses:?}");
    assert!(pauses.is_sorted() && (1000..=1002).contains(&pauses[14]), "{pauses:?}");
}

#[tokio::test]
async fn errors_are_answered_with_patience() {
    let pauses = pauses(vec![(0, Err(NextPoll::Retry(Duration::ZERO))); 8]).await;
    for (pause, (least, most)) in pauses.iter().zip([(1000, 1002), (1000, 2002), (2000, 4002), (4000, 8002)]) {
        assert!((least..=most).contains(pause), "{pauses:?}");
    }
    assert!(pauses[4..].iter().all(|pause| (7500..=15_002).contains(pause)), "{pauses:?}");
}

#[tokio::test]
async fn one_good_answer_forgets_the_errors_before_it() {
    let error = || (0, Err(NextPoll::Retry(Duration::ZERO)));
    let pauses = pauses(vec![error(), error(), error(), error(), (5000, Ok(())), error()]).await;
    assert!(pauses[3] >= 4000 && pauses[5] <= 1002, "{pauses:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_asked_for_again_as_if_it_were_empty() {
    let pauses =
        pauses(vec![(0, Err(NextPoll::Nothing)); 4].into_iter().chain([(90_000, Err(NextPoll::Nothing))]).collect())
            .await;
    assert!(pauses[0] <= 2 && (300..=302).contains(&pauses[3]) && pauses[4] <= 2, "{pauses:?}");
}

#[tokio::test]
async fn a_queue_that_does_not_answer_in_time_is_the_end() {
    let options = WorkerOptions { start_deadline: Some(Duration::from_secs(30)), ..OPTIONS };
    let ever = 1_000_000;
    for (steps, said) in [
        (vec![(ever, Ok(()))], "the queue gave no answer, for the 30 s"),
        (vec![(20_000, Err(NextPoll::Nothing)), (ever, Ok(()))], "so it is, for the 30 s"),
        (vec![(0, Err(NextPoll::Nothing)); 100], "so it is, for the 30 s"),
        (vec![(29_000, Err(NextPoll::Retry(Duration::from_secs(15)))), (0, Ok(()))], "so it is, for the 30 s"),
    ] {
        let (end, times) = worked(steps, options).await;
        let WorkerEnd::NoQueue(why) = end else { panic!("{end:?}") };
        assert!(why.starts_with(said) && why.ends_with("of worker.start_deadline"), "{why}");
        let took = times[times.len() - 1] - times[0];
        assert!((30_000..30_100).contains(&took.as_millis()), "{took:?}");
        tokio::time::resume();
    }
    let (end, times) = worked(vec![(29_000, Ok(())), (ever, Ok(()))], options).await;
    assert_eq!(end, WorkerEnd::NoQueue("so it is".into()));
    assert!((times[times.len() - 1] - times[0]).as_millis() >= 1_029_000);
}

#[tokio::test]
async fn a_queue_says_when_it_wants_to_be_asked() {
    let wants = |seconds| (0, Err(NextPoll::Retry(Duration::from_secs(seconds))));
    let pauses = pauses(vec![wants(5), (5000, Ok(())), wants(3600), (5000, Ok(())), (0, Err(NextPoll::Again))]).await;
    assert!((5000..=5002).contains(&pauses[0]), "{pauses:?}");
    assert!((15_000..=15_002).contains(&pauses[2]), "what is beyond reason is not waited for: {pauses:?}");
    assert!(pauses[4] <= 2, "{pauses:?}");
}
