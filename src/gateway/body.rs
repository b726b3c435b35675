//! Bodies, taken whole: for what is not small there has to be memory as it comes.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use futures_util::StreamExt;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use super::memory_budget::{MemoryBudget, Reservation, UNCOUNTED_BYTES};
use super::reply::ApiError;

/// What has to come within that time, in bytes, of a body that holds memory for which others wait.
const MIN_BODY_PROGRESS: (usize, Duration) = (64 << 10, Duration::from_secs(3));

/// A body that is to come, and how many bytes it says that it has.
pub(super) struct IncomingBody {
    body: Body,
    length: Option<usize>,
}

impl<S: Sync> FromRequest<S> for IncomingBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let said = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = request.into_body();
        let length = said.or_else(|| usize::try_from(body.size_hint().exact()?).ok());
        Ok(Self { body, length })
    }
}

/// A body that came, and the memory that it holds.
#[derive(Debug)]
pub(super) struct WholeBody {
    pub(super) bytes: Vec<u8>,
    pub(super) held: Reservation,
}

impl IncomingBody {
    /// The whole body, of at most so many bytes.
    pub(super) async fn whole(self, budget: &MemoryBudget, most: usize) -> Result<WholeBody, ApiError> {
        let mut rest = self.body.into_data_stream();
        let large = || ApiError::TooLarge(format!("the body is larger than {most} bytes"));
        // One that does not say how much it is may be all.
        let end = self.length.unwrap_or(most);
        if end > most {
            return refuse(rest, most, large()).await;
        }
        let (mut bytes, mut held, mut reserved) = (Vec::new(), Reservation::default(), UNCOUNTED_BYTES);
        let (mut check, mut before) = (interval(MIN_BODY_PROGRESS.1), 0);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let data = select! {
                biased;
                data = rest.next() => data,
                _ = check.tick() => {
                    if held.bytes() > 0 && bytes.len().saturating_sub(before) < MIN_BODY_PROGRESS.0 && budget.is_pressed() {
                        return Err(ApiError::Busy);
                    }
                    before = bytes.len();
                    continue;
                }
            };
            let Some(data) = data else { break };
            let data = data.map_err(|error| unread(&error))?;
            let length = bytes.len() + data.len();
            if length > most {
                return Err(large());
            }
            if length > reserved {
                match budget.grow(&mut held, length, end.max(length)).await {
                    Ok(bytes) => reserved = bytes,
                    Err(fault) => {
                        drop((bytes, held));
                        return refuse(rest, most, fault).await;
                    }
                }
                check.reset();
                before = length;
            }
            if length > bytes.capacity() {
                bytes.reserve_exact(reserved.min(end).max(length) - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        bytes.shrink_to_fit();
        held.shrink(bytes.len());
        Ok(WholeBody { bytes, held })
    }
}

/// Why a body did not come whole. One that was too slow may be sent again: workers give up on what is refused as wrong.
fn unread(error: &axum::Error) -> ApiError {
    let mut causes = successors(Some(error as &(dyn Error + 'static)), |error| (*error).source());
    let timed_out = |cause: &io::Error| cause.kind() == io::ErrorKind::TimedOut;
    if causes.any(|cause| cause.downcast_ref().is_some_and(timed_out)) {
        ApiError::TooSlow
    } else {
        ApiError::BadRequest(format!("the body did not arrive: {error}"))
    }
}

/// Lets the body come and forgets it, as much as there may be of it: most clients read no answer before they have sent all.
async fn refuse<T>(mut rest: BodyDataStream, most: usize, fault: ApiError) -> Result<T, ApiError> {
    let mut seen = 0;
    while let Some(Ok(data)) = rest.next().await {
        seen += data.len();
        if seen > most {
            break;
        }
    }
    Err(fault)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use bytes::Bytes;
    use futures_util::{FutureExt, stream};

    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    use super::super::memory_budget::MemoryBudgets;
    use super::super::peer::{self, ClientId};
    use super::*;

    const MAX: usize = 100_000;

    /// A body in parts, which says how long it is or does not.
    async fn sent(parts: Vec<usize>, says: Option<usize>) -> IncomingBody {
        let request = says.map_or_else(Request::builder, |length| Request::builder().header(CONTENT_LENGTH, length));
        let parts = parts.into_iter().map(|length| Ok::<_, Infallible>(Bytes::from(vec![b'x'; length])));
        IncomingBody::from_request(request.body(Body::from_stream(stream::iter(parts))).unwrap(), &()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_has_room_for_what_it_says_or_for_all_that_it_may_be_until_it_is_whole() {
        let budgets = MemoryBudgets::new(2 * MAX, &CancellationToken::new());
        let budget = &budgets.jobs;
        for (parts, says) in [(vec![40_000, 20_000], Some(60_000)), (vec![10_000; 6], None)] {
            let whole = sent(parts, says).await.whole(budget, MAX).await.unwrap();
            assert_eq!((whole.bytes.len(), budget.free()), (60_000, 2 * MAX - 60_000), "{says:?}");
        }
        assert_eq!(budget.free(), 2 * MAX, "given back");
        let endless = |says| async move {
            let parts = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; 20_000]))]).chain(stream::pending());
            let body = Body::from_stream(parts);
            IncomingBody { body, length: says }
        };
        for (says, held) in [(Some(60_000), 60_000), (None, MAX)] {
            let waits = endless(says).await;
            let mut waits = Box::pin(waits.whole(budget, MAX));
            assert!(waits.as_mut().now_or_never().is_none());
            assert_eq!(budget.free(), 2 * MAX - held);
        }
        assert_eq!(budget.free(), 2 * MAX, "given back");
        for (parts, says) in [(vec![MAX], Some(MAX + 1)), (vec![MAX, 1], None), (vec![MAX, 1], Some(9))] {
            let refused = sent(parts, says).await.whole(budget, MAX).await.unwrap_err();
            assert!(matches!(refused, ApiError::TooLarge(_)), "{refused}");
        }
    }

    const MIB: usize = 1 << 20;

    /// A body of which so much comes, as its receiver is ready for it, and then no more.
    fn stalls(comes: usize, says: usize) -> IncomingBody {
        let part = || Ok::<_, Infallible>(Bytes::from(vec![b'x'; 16 << 10]));
        let parts = stream::iter(std::iter::repeat_with(part).take(comes >> 14)).chain(stream::pending());
        IncomingBody { body: Body::from_stream(parts), length: Some(says) }
    }

    /// Ends as a body does that is wanted by such a client.
    fn read(
        body: IncomingBody,
        client: &str,
        budgets: &Arc<MemoryBudgets>,
    ) -> impl Future<Output = Result<usize, ApiError>> + Send + use<> {
        let (client, budgets) = (ClientId::named(client), budgets.clone());
        let whole = async move { Ok(body.whole(&budgets.results, 64 * MIB).await?.bytes.len()) };
        peer::on_behalf_of(client, whole)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_holds_what_has_come_of_it() {
        let budgets = Arc::new(MemoryBudgets::new(256 * MIB, &CancellationToken::new()));
        for (comes, holds) in [(0, 0), (UNCOUNTED_BYTES, 0), (2 * UNCOUNTED_BYTES, 96 << 10), (8 * MIB, 12 * MIB)] {
            let mut body = Box::pin(read(stalls(comes, 64 * MIB), "a", &budgets));
            assert!(body.as_mut().now_or_never().is_none());
            let held = 256 * MIB - budgets.results.free();
            assert!((comes.min(holds)..=holds).contains(&held), "{comes}: {held}");
        }
        assert_eq!(budgets.results.free(), 256 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn very_many_bodies_of_one_client_come_whole() {
        let budgets = Arc::new(MemoryBudgets::new(16 * MIB, &CancellationToken::new()));
        let mut reading = JoinSet::new();
        for _ in 0..60 {
            let parts = stream::iter([Ok::<_, Infallible>(()); 60]).then(async |_| {
                sleep(Duration::from_millis(10)).await;
                Ok::<_, Infallible>(Bytes::from(vec![b'x'; 50_000]))
            });
            let body = IncomingBody { body: Body::from_stream(parts), length: Some(3_000_000) };
            reading.spawn(read(body, "a", &budgets));
        }
        while let Some(read) = reading.join_next().await {
            assert_eq!(read.unwrap().unwrap(), 3_000_000);
        }
        assert_eq!(budgets.results.free(), 16 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stalls_keeps_its_memory_only_until_another_wants_it() {
        let budgets = Arc::new(MemoryBudgets::new(256 * MIB, &CancellationToken::new()));
        let mut stalled = JoinSet::new();
        for _ in 0..60 {
            stalled.spawn(read(stalls(8 * MIB, 64 * MIB), "evil", &budgets));
        }
        sleep(Duration::from_mins(1)).await;
        let honest = |client: &'static str, bytes: usize| read(stalls_never(bytes), client, &budgets);
        let began = Instant::now();
        assert_eq!(honest("good", 20 * MIB).now_or_never().unwrap().unwrap(), 20 * MIB, "another client does not wait");
        assert_eq!(honest("evil", 10 * MIB).await.unwrap(), 10 * MIB);
        assert!(began.elapsed() < Duration::from_secs(30), "nor does the same for long: {:?}", began.elapsed());
        stalled.shutdown().await;
        assert_eq!(budgets.results.free(), 256 * MIB);
    }

    fn stalls_never(bytes: usize) -> IncomingBody {
        let parts = stream::iter((0..bytes >> 14).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 16 << 10]))));
        IncomingBody { body: Body::from_stream(parts), length: Some(bytes) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_small_never_waits_and_what_is_large_is_refused_once_it_has_come() {
        let budgets = MemoryBudgets::new(MAX, &CancellationToken::new());
        let all = budgets.jobs.reserve(MAX).await.unwrap();
        for says in [None, Some(UNCOUNTED_BYTES)] {
            let small = sent(vec![UNCOUNTED_BYTES / 2; 2], says).await;
            assert_eq!(small.whole(&budgets.jobs, MAX).now_or_never().unwrap().unwrap().bytes.len(), UNCOUNTED_BYTES);
            let large = sent(vec![UNCOUNTED_BYTES; 3], says.map(|_| 3 * UNCOUNTED_BYTES)).await;
            assert!(matches!(large.whole(&budgets.jobs, MAX).await, Err(ApiError::Busy)));
        }
        assert!(budgets.results.reserve(MAX).now_or_never().is_some(), "workers have room of their own");
        drop(all);
    }
}
