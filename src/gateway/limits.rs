//! How often a client may ask, as the hosted platform limits it (PROTOCOL 2.9): by key, endpoint and operation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use futures_util::StreamExt;

use crate::date::UnixTime;

use super::reply::Fault;

/// What requests are counted over.
const WINDOW: Duration = Duration::from_secs(10);

/// What one client may ask of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allowance {
    /// Requests in ten seconds.
    rate: u64,
    /// Requests at the same time, long polls among them.
    at_once: u64,
}

/// The platform's own table. It says nothing of `health` and `retry`; what it says of `purge-queue` is a rate alone.
fn allowance(operation: &str) -> Allowance {
    let (rate, at_once) = match operation {
        "run" => (1000, 200),
        "cancel" | "retry" => (100, 20),
        "purge-queue" => (2, u64::MAX),
        "requests" => (10, 2),
        _ => (2000, 400),
    };
    Allowance { rate, at_once }
}

/// Counts what clients ask.
#[derive(Debug, Default)]
pub(super) struct Limits(Arc<Mutex<HashMap<Asked, Meter>>>);

/// Who asks what, as a digest: so many bytes, whoever asks.
type Asked = [u8; 32];

/// Requests by halves of the window: those of the half before count for as much of it as is still in the window.
#[derive(Debug, Default)]
struct Meter {
    window: u64,
    before: u64,
    now: u64,
    open: u64,
}

/// Meters that count nothing are thrown away when there are so many.
const UNUSED: usize = 4096;

impl Limits {
    /// Lets a request pass that is within its allowance, and holds a place for it.
    pub(super) fn admit(&self, asked: Asked, operation: &str, now: UnixTime) -> Result<Place, Fault> {
        let allowance = allowance(operation);
        let mut meters = self.meters();
        let window = now.as_millis() / WINDOW.as_millis() as u64;
        if meters.len() >= UNUSED && !meters.contains_key(&asked) {
            meters.retain(|_, meter| meter.open > 0 || meter.window + 1 >= window);
        }
        let meter = meters.entry(asked).or_default();
        meter.turn_to(window);
        if meter.rate(now) >= allowance.rate {
            return Err(Fault::TooMany(format!(
                "more than {} requests to {operation} in {} s",
                allowance.rate,
                WINDOW.as_secs()
            )));
        }
        if meter.open >= allowance.at_once {
            return Err(Fault::TooMany(format!("more than {} requests to {operation} at once", allowance.at_once)));
        }
        meter.now += 1;
        meter.open += 1;
        Ok(Place { limits: self.0.clone(), asked })
    }

    fn meters(&self) -> MutexGuard<'_, HashMap<Asked, Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    fn turn_to(&mut self, window: u64) {
        if window != self.window {
            self.before = if window == self.window + 1 { self.now } else { 0 };
            (self.window, self.now) = (window, 0);
        }
    }

    /// Requests of the last window, as if those of the half before had come evenly.
    fn rate(&self, now: UnixTime) -> u64 {
        let whole = WINDOW.as_millis() as u64;
        self.now + self.before * (whole - now.as_millis() % whole) / whole
    }
}

/// A request's place among those that are open. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    limits: Arc<Mutex<HashMap<Asked, Meter>>>,
    asked: Asked,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut meters = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get_mut(&self.asked) {
            meter.open = meter.open.saturating_sub(1);
        }
    }
}

impl Place {
    /// The reply, with which the place is given back: a body that is still to come holds it.
    pub(super) fn held_by(self, reply: Response) -> Response {
        if reply.body().size_hint().exact().is_some() {
            return reply;
        }
        reply.map(|body| {
            let place = self;
            Body::from_stream(body.into_data_stream().map(move |data| {
                let _held = &place;
                data
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Asked = [1; 32];

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_millis(1_000_000_000 + millis)
    }

    #[test]
    fn a_window_slides() {
        let limits = Limits::default();
        let purge = |millis| limits.admit(WHO, "purge-queue", at(millis)).is_ok();
        assert!(purge(9_000) && purge(9_500) && !purge(9_900));
        assert!(!purge(10_000), "two in the last ten seconds");
        assert!(purge(16_000), "now they count for less than two");
        assert!(limits.admit([2; 32], "purge-queue", at(9_900)).is_ok(), "somebody else");
        assert!(purge(60_000) && purge(60_000) && !purge(60_000), "all are long ago");
    }

    #[test]
    fn what_is_open_counts_until_it_is_answered() {
        let limits = Limits::default();
        let ask = || limits.admit(WHO, "requests", at(0));
        let (one, two) = (ask().unwrap(), ask().unwrap());
        assert!(matches!(ask(), Err(Fault::TooMany(why)) if why.contains("at once")));
        drop(one);
        let three = ask().unwrap();
        let late = Response::new(Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()));
        let late = three.held_by(late);
        assert!(ask().is_err(), "its body is still to come");
        drop(late);
        drop((two, ask().unwrap().held_by(Response::new(Body::from("all of it")))));
        assert_eq!(limits.meters()[&WHO].open, 0);
    }
}
