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

use crate::queue::JobState;
use crate::store::Store;

use super::reply::{ApiError, RawJson};
use super::{Endpoint, Gateway};

/// Between signs that the connection lives.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Keeps nginx from holding a reply back until it is whole.
pub(super) const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

const SPACE: Bytes = Bytes::from_static(b" ");

type BodyPart = Result<Bytes, Infallible>;

impl<S: Store> Gateway<S> {
    /// The answer of a long poll on a job. What comes of it within 15 s keeps its HTTP status; after that, its
    /// head goes out with the first space.
    pub(super) async fn long_poll(
        self: Arc<Self>,
        endpoint: Endpoint,
        id: String,
        answer: impl Future<Output = Result<Bytes, ApiError>> + Send + 'static,
    ) -> Result<Response, ApiError> {
        let mut answer = Box::pin(answer);
        if let Ok(soon) = timeout(KEEP_ALIVE_INTERVAL, &mut answer).await {
            return soon.map(|object| RawJson(object).into_response());
        }
        let state = self.visible(&endpoint, &id).await?.state;
        let space = once(async { Ok(SPACE) });
        Ok(unbuffered(space.chain(body(answer, id, state))))
    }
}

/// A reply whose head goes out now, and whose body is spaces until its answer is there. 200 is said, so that a fault is told by the body alone;
/// `state` is how the job stood before.
pub(super) fn reply(
    answer: impl Future<Output = Result<Bytes, ApiError>> + Send + 'static,
    id: String,
    state: JobState,
) -> Response {
    unbuffered(body(answer, id, state))
}

fn unbuffered(body: impl Stream<Item = BodyPart> + Send + 'static) -> Response {
    ([UNBUFFERED], RawJson(Body::from_stream(body))).into_response()
}

fn body(
    answer: impl Future<Output = Result<Bytes, ApiError>> + Send + 'static,
    id: String,
    state: JobState,
) -> impl Stream<Item = BodyPart> + Send + 'static {
    let object = async move { answer.await.unwrap_or_else(|fault| fault.late(&id, state).into()) };
    let object: Pin<Box<dyn Future<Output = Bytes> + Send>> = Box::pin(object);
    unfold(Some(object), async |object| {
        let mut object = object?;
        Some(match timeout(KEEP_ALIVE_INTERVAL, &mut object).await {
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
            let reply = reply(answer, "x".into(), JobState::InQueue);
            assert_eq!(reply.headers()["x-accel-buffering"], "no");
            assert_eq!(to_bytes(reply.into_body(), 100).await.unwrap(), format!("{spaces}{{}}"), "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_wrong_after_the_head_is_told_with_id_and_status() {
        let reply = reply(async { Err(ApiError::StoreFull) }, "x".into(), JobState::InProgress);
        let body: serde_json::Value =
            serde_json::from_slice(&to_bytes(reply.into_body(), 1000).await.unwrap()).unwrap();
        assert_eq!((&body["id"], &body["status"]), (&"x".into(), &"IN_PROGRESS".into()));
        assert_eq!(body["error"], ApiError::StoreFull.to_string());
    }
}
