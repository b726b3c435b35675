//! How often a client may ask, as the hosted platform limits it: by key, endpoint and operation.

use std::collections::{BTreeSet, HashMap};
use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::date::UnixTime;
use crate::store::{Admission, RateCheck};

use super::reply::ApiError;

/// How long a store that did not answer is not asked again.
const RETRY_STORE_AFTER: Duration = Duration::from_secs(1);

/// What requests are counted over.
const RATE_WINDOW: Duration = Duration::from_secs(10);

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
#[derive(Debug, Clone)]
pub(super) struct ClientLimits(Arc<LimitState>);

#[derive(Debug)]
struct LimitState {
    meters: Mutex<Meters>,
    /// There are, if other gateways count, too.
    others: Option<OtherGateways>,
    /// What others know this gateway by.
    name: String,
}

/// What others are to be told.
#[derive(Debug, Default)]
struct OtherGateways {
    /// Of whom a request was closed.
    closed: Mutex<BTreeSet<ClientKey>>,
    changed: Notify,
    /// Until when no other gateway is asked.
    alone: Mutex<Option<Instant>>,
}

/// Who asks what, as a digest: so many bytes, whoever asks.
pub(super) type ClientKey = [u8; 32];

/// Requests by halves of the window: those of the half before count for as much of it as is still in the window.
#[derive(Debug, Default)]
struct Meter {
    window: u64,
    before: u64,
    now: u64,
    open: u64,
}

/// Meters of clients. Those that count nothing are thrown away when there are twice as many as were left the last time, and more than this.
const MIN_METERS: usize = 4096;

#[derive(Debug, Default)]
struct Meters {
    by_client: HashMap<ClientKey, Meter>,
    /// How many were left.
    left: usize,
}

impl ClientLimits {
    /// Those of one gateway, which may have others beside it.
    pub(super) fn new(shared: bool) -> Self {
        let (meters, name) = (Mutex::default(), Uuid::new_v4().simple().to_string());
        Self(Arc::new(LimitState { meters, others: shared.then(OtherGateways::default), name }))
    }

    /// Lets a request pass that is within its allowance, and holds a place for it.
    pub(super) fn admit(&self, asked: ClientKey, operation: &str, now: UnixTime) -> Result<RequestPermit, ApiError> {
        let allowance = allowance(operation);
        let mut meters = self.meters();
        let window = now.as_millis() / RATE_WINDOW.as_millis() as u64;
        meters.forget_idle(window);
        let meter = meters.by_client.entry(asked).or_default();
        meter.turn_to(window);
        if meter.rate(now) >= allowance.rate {
            return Err(allowance.too_often(operation));
        }
        if meter.open >= allowance.at_once {
            return Err(allowance.too_many(operation));
        }
        meter.now += 1;
        meter.open += 1;
        Ok(RequestPermit { limits: self.clone(), asked, before: meter.open - 1 })
    }

    /// What others know this gateway by.
    pub(super) fn gateway(&self) -> &str {
        &self.0.name
    }

    /// Whether no other gateway is asked for now.
    pub(super) fn is_alone(&self) -> bool {
        let until = |others: &OtherGateways| *locked(&others.alone);
        self.0.others.as_ref().is_none_or(|others| until(others).is_some_and(|until| Instant::now() < until))
    }

    /// Asks no other gateway for a moment.
    pub(super) fn go_on_alone(&self) {
        if let Some(others) = &self.0.others {
            *locked(&others.alone) = Some(Instant::now() + RETRY_STORE_AFTER);
        }
    }

    /// Waits until others are to be told that requests were closed.
    pub(super) async fn closed(&self) {
        match &self.0.others {
            Some(others) => others.changed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Of whom requests were closed, and how many are open now.
    pub(super) fn take_closed(&self) -> Vec<(ClientKey, u64)> {
        let closed = self.0.others.as_ref().map(|others| take(&mut *locked(&others.closed))).unwrap_or_default();
        let meters = self.meters();
        closed.into_iter().map(|asked| (asked, meters.by_client.get(&asked).map_or(0, |meter| meter.open))).collect()
    }

    /// Of whom requests are open, and how many.
    pub(super) fn all_open(&self) -> Vec<(ClientKey, u64)> {
        let meters = self.meters();
        meters.by_client.iter().filter(|(_, meter)| meter.open > 0).map(|(asked, meter)| (*asked, meter.open)).collect()
    }

    fn meters(&self) -> MutexGuard<'_, Meters> {
        locked(&self.0.meters)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Allowance {
    fn too_often(self, operation: &str) -> ApiError {
        ApiError::TooManyRequests(format!(
            "more than {} requests to {operation} in {} s",
            self.rate,
            RATE_WINDOW.as_secs()
        ))
    }

    fn too_many(self, operation: &str) -> ApiError {
        ApiError::TooManyRequests(format!("more than {} requests to {operation} at once", self.at_once))
    }
}

impl Meters {
    fn forget_idle(&mut self, window: u64) {
        if self.by_client.len() >= MIN_METERS.max(2 * self.left) {
            self.by_client.retain(|_, meter| meter.open > 0 || meter.window + 1 >= window);
            self.left = self.by_client.len();
        }
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
        let whole = RATE_WINDOW.as_millis() as u64;
        self.now + self.before * (whole - now.as_millis() % whole) / whole
    }
}

/// A request's place among those that are open. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct RequestPermit {
    limits: ClientLimits,
    asked: ClientKey,
    /// Requests that were open when it came.
    before: u64,
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if let Some(meter) = self.limits.meters().by_client.get_mut(&self.asked) {
            meter.open = meter.open.saturating_sub(1);
        }
        if let Some(others) = &self.limits.0.others {
            locked(&others.closed).insert(self.asked);
            others.changed.notify_one();
        }
    }
}

impl RequestPermit {
    /// The request as others are asked of it.
    pub(super) fn asking(&self, operation: &str, silent: Duration) -> RateCheck {
        let Allowance { rate, at_once } = allowance(operation);
        let gateway = self.limits.gateway().to_owned();
        RateCheck { asked: self.asked, gateway, open: self.before, window: RATE_WINDOW, rate, at_once, silent }
    }

    /// Gives the place back of a request that others do not let pass: it was none.
    pub(super) fn refused(self, operation: &str, why: Admission) -> ApiError {
        if let Some(meter) = self.limits.meters().by_client.get_mut(&self.asked) {
            meter.now = meter.now.saturating_sub(1);
        }
        match why {
            Admission::TooMany => allowance(operation).too_many(operation),
            Admission::Yes | Admission::TooOften => allowance(operation).too_often(operation),
        }
    }

    /// The reply, with the end of whose body the place is given back; at once, if all of the body is there.
    pub(super) fn release_with_body(self, reply: Response) -> Response {
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

    const WHO: ClientKey = [1; 32];

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_millis(1_000_000_000 + millis)
    }

    #[test]
    fn a_window_slides() {
        let limits = ClientLimits::new(false);
        let purge = |millis| limits.admit(WHO, "purge-queue", at(millis)).is_ok();
        assert!(purge(9_000) && purge(9_500) && !purge(9_900));
        assert!(!purge(10_000), "two in the last ten seconds");
        assert!(purge(16_000), "now they count for less than two");
        assert!(limits.admit([2; 32], "purge-queue", at(9_900)).is_ok(), "somebody else");
        assert!(purge(60_000) && purge(60_000) && !purge(60_000), "all are long ago");
    }

    #[test]
    fn very_many_clients_are_looked_through_seldom_and_forgotten_in_the_end() {
        let limits = ClientLimits::new(false);
        let ask = |number: u32, millis| {
            let mut who = WHO;
            who[..4].copy_from_slice(&number.to_le_bytes());
            drop(limits.admit(who, "status", at(millis)).unwrap());
        };
        let mut looks = 0;
        for number in 0..40_000 {
            let before = limits.meters().left;
            ask(number, 0);
            looks += u32::from(limits.meters().left != before);
        }
        assert_eq!(looks, 4, "at 4, 8, 16 and 32 thousand");
        for number in 40_000..70_000 {
            ask(number, 60_000);
        }
        assert!(limits.meters().by_client.len() <= 30_000);
    }

    #[test]
    fn what_is_open_counts_until_it_is_answered() {
        let limits = ClientLimits::new(false);
        let ask = || limits.admit(WHO, "requests", at(0));
        let (one, two) = (ask().unwrap(), ask().unwrap());
        assert!(matches!(ask(), Err(ApiError::TooManyRequests(why)) if why.contains("at once")));
        drop(one);
        let three = ask().unwrap();
        let late = Response::new(Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()));
        let late = three.release_with_body(late);
        assert!(ask().is_err(), "its body is still to come");
        drop(late);
        drop((two, ask().unwrap().release_with_body(Response::new(Body::from("all of it")))));
        assert_eq!(limits.meters().by_client[&WHO].open, 0);
    }

    #[test]
    fn others_are_told_of_what_was_closed_and_are_not_asked_while_they_are_away() {
        let alone = ClientLimits::new(false);
        drop(alone.admit(WHO, "run", at(0)).unwrap());
        assert!(alone.is_alone() && alone.take_closed().is_empty());
        let limits = ClientLimits::new(true);
        let (one, two) = (limits.admit(WHO, "requests", at(0)).unwrap(), limits.admit(WHO, "requests", at(0)).unwrap());
        let asking = two.asking("requests", Duration::from_secs(1));
        assert_eq!((asking.open, asking.rate, asking.at_once, asking.asked), (1, 10, 2, WHO));
        assert_eq!((limits.take_closed(), limits.all_open()), (vec![], vec![(WHO, 2)]));
        drop(one);
        assert_eq!((limits.take_closed(), limits.take_closed()), (vec![(WHO, 1)], vec![]));
        assert!(
            matches!(two.refused("requests", Admission::TooOften), ApiError::TooManyRequests(why) if why.contains("in 10 s"))
        );
        assert_eq!(
            (limits.take_closed(), limits.meters().by_client[&WHO].now),
            (vec![(WHO, 0)], 1),
            "the refused one was none"
        );
        assert!(!limits.is_alone());
        limits.go_on_alone();
        assert!(limits.is_alone());
    }
}
