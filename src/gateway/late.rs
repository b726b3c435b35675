//! Replies that are long in coming. A proxy cuts off what is silent (nginx after 60 s, haproxy often after 50), so that a space goes out every
//! 15 s: JSON may begin with any number of them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, once, unfold};
use tokio::time::timeout;

use crate::queue::State;
use crate::store::Store;

use super::reply::{Fault, Json};
use super::{Endpoint, Gateway};

/// Between signs that the connection lives.
pub(super) const ALIVE: Duration = Duration::from_secs(15);

/// Keeps nginx from holding a reply back until it is whole.
pub(super) const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

const SPACE: Bytes = Bytes::from_static(b" ");

type Part = Result<Bytes, Infallible>;

impl<S: Store> Gateway<S> {
    /// The answer of a long poll on a job. What comes of it within 15 s keeps its HTTP status; after that, its
    /// head goes out with the first space.
    pub(super) async fn long_poll(
        self: Arc<Self>,
        endpoint: Endpoint,
        id: String,
        answer: impl Future<Output = Result<Bytes, Fault>> + Send + 'static,
    ) -> Result<Response, Fault> {
        let mut answer = Box::pin(answer);
        if let Ok(soon) = timeout(ALIVE, &mut answer).await {
            return soon.map(|object| Json(object).into_response());
        }
        let state = self.visible(&endpoint, &id).await?.state;
        let space = once(async { Ok(SPACE) });
        Ok(unbuffered(space.chain(body(answer, id, state))))
    }
}

/// A reply whose head goes out now, and whose body is spaces until its answer is there. 200 is said, so that a fault is told by the body alone;
/// `state` is how the job stood before.
pub(super) fn reply(
    answer: impl Future<Output = Result<Bytes, Fault>> + Send + 'static,
    id: String,
    state: State,
) -> Response {
    unbuffered(body(answer, id, state))
}

fn unbuffered(body: impl Stream<Item = Part> + Send + 'static) -> Response {
    ([UNBUFFERED], Json(Body::from_stream(body))).into_response()
}

fn body(
    answer: impl Future<Output = Result<Bytes, Fault>> + Send + 'static,
    id: String,
    state: State,
) -> impl Stream<Item = Part> + Send + 'static {
    let object = async move { answer.await.unwrap_or_else(|fault| fault.late(&id, state).into()) };
    let object: Pin<Box<dyn Future<Output = Bytes> + Send>> = Box::pin(object);
    unfold(Some(object), async |object| {
        let mut object = object?;
        Some(match timeout(ALIVE, &mut object).await {
            Ok(object) => (Ok(object), None),
            Err(_) => (Ok(SPACE), Some(object)),
        })
    })
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_space_goes_out_every_15_seconds_before_the_answer() {
        for (seconds, spaces) in [(0, ""), (14, ""), (16, " "), (44, "  "), (301, "                    ")] {
            let answer = async move {
                sleep(Duration::from_secs(seconds)).await;
                Ok("{}".into())
            };
            let reply = reply(answer, "x".into(), State::InQueue);
            assert_eq!(reply.headers()["x-accel-buffering"], "no");
            assert_eq!(to_bytes(reply.into_body(), 100).await.unwrap(), format!("{spaces}{{}}"), "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_wrong_after_the_head_is_told_with_id_and_status() {
        let reply = reply(async { Err(Fault::NoRoom) }, "x".into(), State::InProgress);
        let body: serde_json::Value =
            serde_json::from_slice(&to_bytes(reply.into_body(), 1000).await.unwrap()).unwrap();
        assert_eq!((&body["id"], &body["status"]), (&"x".into(), &"IN_PROGRESS".into()));
        assert_eq!(body["error"], Fault::NoRoom.to_string());
    }
}
