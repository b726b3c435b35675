//! Bodies, taken whole: for what is not small there has to be room first.

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use futures_util::StreamExt;

use super::reply::Fault;
use super::room::{Held, Room, SMALL};

/// A body that is to come, and how many bytes it says that it has.
pub(super) struct Sent {
    body: Body,
    length: Option<usize>,
}

impl<S: Sync> FromRequest<S> for Sent {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Result<Self, Fault> {
        let said = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = request.into_body();
        let length = said.or_else(|| usize::try_from(body.size_hint().exact()?).ok());
        Ok(Self { body, length })
    }
}

/// A body that came, and the room that it has.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pub(super) held: Held,
}

impl Sent {
    /// The whole body, of at most so many bytes.
    pub(super) async fn whole(self, room: &Room, most: usize) -> Result<Whole, Fault> {
        let mut rest = self.body.into_data_stream();
        let large = || Fault::TooLarge(format!("the body is larger than {most} bytes"));
        let (mut bytes, mut held) = (Vec::new(), Held::default());
        let mut has = SMALL;
        if let Some(length) = self.length {
            if length > most {
                return refuse(rest, most, large()).await;
            }
            match room.hold(length).await {
                Ok(room) => held = room,
                Err(fault) => return refuse(rest, most, fault).await,
            }
            has = length.max(SMALL);
            bytes.reserve_exact(length);
        }
        while let Some(data) = rest.next().await {
            let data = data.map_err(|error| Fault::Bad(format!("the body did not arrive: {error}")))?;
            let length = bytes.len() + data.len();
            if length > most {
                return Err(large());
            }
            if length > has {
                // It does not say how much it is, so it may be all.
                match room.hold(most).await {
                    Ok(room) => held = room,
                    Err(fault) => return refuse(rest, most, fault).await,
                }
                has = most;
            }
            bytes.extend_from_slice(&data);
        }
        held.shrink(bytes.len());
        Ok(Whole { bytes, held })
    }
}

/// Lets the body come and forgets it, as much as there may be of it: most clients read no answer before they have sent all.
async fn refuse<T>(mut rest: BodyDataStream, most: usize, fault: Fault) -> Result<T, Fault> {
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

    use super::super::room::Rooms;
    use super::*;

    const MOST: usize = 100_000;

    /// A body in parts, which says how long it is or does not.
    async fn sent(parts: Vec<usize>, says: Option<usize>) -> Sent {
        let request = says.map_or_else(Request::builder, |length| Request::builder().header(CONTENT_LENGTH, length));
        let parts = parts.into_iter().map(|length| Ok::<_, Infallible>(Bytes::from(vec![b'x'; length])));
        Sent::from_request(request.body(Body::from_stream(stream::iter(parts))).unwrap(), &()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_room_for_what_it_says_or_for_all_that_it_may_be_until_it_is_whole() {
        let rooms = Rooms::new(2 * MOST);
        let room = &rooms.jobs;
        for (parts, says) in [(vec![40_000, 20_000], Some(60_000)), (vec![10_000; 6], None)] {
            let whole = sent(parts, says).await.whole(room, MOST).await.unwrap();
            assert_eq!((whole.bytes.len(), room.free()), (60_000, 2 * MOST - 60_000), "{says:?}");
        }
        assert_eq!(room.free(), 2 * MOST, "given back");
        let endless = |says| async move {
            let parts = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; 20_000]))]).chain(stream::pending());
            let body = Body::from_stream(parts);
            Sent { body, length: says }
        };
        for (says, held) in [(Some(60_000), 60_000), (None, MOST)] {
            let waits = endless(says).await;
            let mut waits = Box::pin(waits.whole(room, MOST));
            assert!(waits.as_mut().now_or_never().is_none());
            assert_eq!(room.free(), 2 * MOST - held);
        }
        assert_eq!(room.free(), 2 * MOST, "given back");
        for (parts, says) in [(vec![MOST], Some(MOST + 1)), (vec![MOST, 1], None), (vec![MOST, 1], Some(9))] {
            let refused = sent(parts, says).await.whole(room, MOST).await.unwrap_err();
            assert!(matches!(refused, Fault::TooLarge(_)), "{refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_small_never_waits_and_what_is_large_is_refused_once_it_has_come() {
        let rooms = Rooms::new(MOST);
        let all = rooms.jobs.hold(MOST).await.unwrap();
        for says in [None, Some(SMALL)] {
            let small = sent(vec![SMALL / 2; 2], says).await;
            assert_eq!(small.whole(&rooms.jobs, MOST).now_or_never().unwrap().unwrap().bytes.len(), SMALL);
            let large = sent(vec![SMALL; 3], says.map(|_| 3 * SMALL)).await;
            assert!(matches!(large.whole(&rooms.jobs, MOST).await, Err(Fault::Busy)));
        }
        assert!(rooms.results.hold(MOST).now_or_never().is_some(), "workers have room of their own");
        drop(all);
    }
}
