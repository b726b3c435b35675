//! The laws, case by case and under any sequence of events.

mod events;
mod jobs;
mod stored;
mod webhooks;
mod workers;

use std::time::Duration;

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
    assert_eq!(job.start(&Claim { gpu: Some("24".into()), ..taking(worker, at(1)) }), Transition::Changed);
    job
}

fn taking(worker: &str, at: UnixTime) -> Claim {
    Claim { worker: worker.into(), gpu: None, sends_heartbeats: true, at }
}

fn done(worker: &str) -> Finish<'_> {
    Finish { worker, error: None, output: true }
}
