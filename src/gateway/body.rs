//! Bodies, taken whole: for what is not small there has to be room first.

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use futures_util::StreamExt;

use super::memory_budget::{MemoryBudget, Reservation, UNCOUNTED_BYTES};
use super::reply::ApiError;

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

/// A body that came, and the room that it has.
#[derive(Debug)]
pub(super) struct WholeBody {
    pub(super) bytes: Vec<u8>,
    pub(super) held: Reservation,
}

impl IncomingBody {
    /// The whole body, of at most so many bytes.
    pub(super) async fn whole(self, room: &MemoryBudget, most: usize) -> Result<WholeBody, ApiError> {
        let mut rest = self.body.into_data_stream();
        let large = || ApiError::TooLarge(format!("the body is larger than {most} bytes"));
        let (mut bytes, mut held) = (Vec::new(), Reservation::default());
        let mut has = UNCOUNTED_BYTES;
        if let Some(length) = self.length {
            if length > most {
                return refuse(rest, most, large()).await;
            }
            match room.reserve(length).await {
                Ok(room) => held = room,
                Err(fault) => return refuse(rest, most, fault).await,
            }
            has = length.max(UNCOUNTED_BYTES);
            bytes.reserve_exact(length);
        }
        while let Some(data) = rest.next().await {
            let data = data.map_err(|error| ApiError::BadRequest(format!("the body did not arrive: {error}")))?;
            let length = bytes.len() + data.len();
            if length > most {
                return Err(large());
            }
            if length > has {
                // It does not say how much it is, so it may be all.
                match room.reserve(most).await {
                    Ok(room) => held = room,
                    Err(fault) => return refuse(rest, most, fault).await,
                }
                has = most;
            }
            bytes.extend_from_slice(&data);
        }
        held.shrink(bytes.len());
        Ok(WholeBody { bytes, held })
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

    use bytes::Bytes;
    use futures_util::{FutureExt, stream};

    use super::super::memory_budget::MemoryBudgets;
    use super::*;

    const MAX: usize = 100_000;

    /// A body in parts, which says how long it is or does not.
    async fn sent(parts: Vec<usize>, says: Option<usize>) -> IncomingBody {
        let request = says.map_or_else(Request::builder, |length| Request::builder().header(CONTENT_LENGTH, length));
        let parts = parts.into_iter().map(|length| Ok::<_, Infallible>(Bytes::from(vec![b'x'; length])));
        IncomingBody::from_request(request.body(Body::from_stream(stream::iter(parts))).unwrap(), &()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_room_for_what_it_says_or_for_all_that_it_may_be_until_it_is_whole() {
        let rooms = MemoryBudgets::new(2 * MAX);
        let room = &rooms.jobs;
        for (parts, says) in [(vec![40_000, 20_000], Some(60_000)), (vec![10_000; 6], None)] {
            let whole = sent(parts, says).await.whole(room, MAX).await.unwrap();
            assert_eq!((whole.bytes.len(), room.free()), (60_000, 2 * MAX - 60_000), "{says:?}");
        }
        assert_eq!(room.free(), 2 * MAX, "given back");
        let endless = |says| async move {
            let parts = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; 20_000]))]).chain(stream::pending());
            let body = Body::from_stream(parts);
            IncomingBody { body, length: says }
        };
        for (says, held) in [(Some(60_000), 60_000), (None, MAX)] {
            let waits = endless(says).await;
            let mut waits = Box::pin(waits.whole(room, MAX));
            assert!(waits.as_mut().now_or_never().is_none());
            assert_eq!(room.free(), 2 * MAX - held);
        }
        assert_eq!(room.free(), 2 * MAX, "given back");
        for (parts, says) in [(vec![MAX], Some(MAX + 1)), (vec![MAX, 1], None), (vec![MAX, 1], Some(9))] {
            let refused = sent(parts, says).await.whole(room, MAX).await.unwrap_err();
            assert!(matches!(refused, ApiError::TooLarge(_)), "{refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_small_never_waits_and_what_is_large_is_refused_once_it_has_come() {
        let rooms = MemoryBudgets::new(MAX);
        let all = rooms.jobs.reserve(MAX).await.unwrap();
        for says in [None, Some(UNCOUNTED_BYTES)] {
            let small = sent(vec![UNCOUNTED_BYTES / 2; 2], says).await;
            assert_eq!(small.whole(&rooms.jobs, MAX).now_or_never().unwrap().unwrap().bytes.len(), UNCOUNTED_BYTES);
            let large = sent(vec![UNCOUNTED_BYTES; 3], says.map(|_| 3 * UNCOUNTED_BYTES)).await;
            assert!(matches!(large.whole(&rooms.jobs, MAX).await, Err(ApiError::Busy)));
        }
        assert!(rooms.results.reserve(MAX).now_or_never().is_some(), "workers have room of their own");
        drop(all);
    }
}
