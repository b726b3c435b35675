//! Replies: JSON always, exactly 200 for success, `{"error": …}` for everything else.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::job::Complaints;
use crate::queue::{JobState, SubmissionError};
use crate::store::StoreError;

use super::log_throttle::LogThrottle;

/// While the store is away every request fails, and the log is to be read.
static STORE_FAILURES: LogThrottle = LogThrottle::new(Duration::from_secs(1));

/// A JSON text as a reply.
pub(super) struct RawJson<T = String>(pub(super) T);

impl<T: Into<Body>> IntoResponse for RawJson<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0.into()).into_response()
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Invalid(Complaints),
    #[error("{0}")]
    Conflict(&'static str),
    #[error("the key is missing or wrong: send `Authorization: Bearer <key>`")]
    Unauthorized,
    #[error("{0}")]
    ForeignOrigin(String),
    #[error("{0}")]
    UnsupportedMediaType(String),
    #[error("the body is encoded ({0}): send it as it is, without Content-Encoding or with identity")]
    ContentEncoding(String),
    #[error("the transfer coding ({0}) is not known here: send the body as it is, with Content-Length or chunked")]
    TransferEncoding(String),
    #[error("there is no endpoint {0:?} here")]
    NoEndpoint(String),
    #[error("there is no job {0:?}: it never was, or its result is no longer kept")]
    NoJob(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("too little of the body came for too long; nothing was changed")]
    TooSlow,
    #[error("{0}: ask again later, or more slowly")]
    TooManyRequests(String),
    #[error("there is no such route")]
    NoRoute,
    #[error("this route does not take this method")]
    NoMethod,
    #[error("the queue has no room at the moment; nothing was changed")]
    StoreFull,
    #[error("too much is being sent or read at the moment; nothing was changed")]
    Busy,
    #[error("as many connections are open as may be; nothing was changed")]
    Crowded,
    #[error("the queue cannot be reached at the moment; nothing was changed")]
    Store(StoreError),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace(_) => Self::StoreFull,
            StoreError::QueueFull(most) => Self::TooManyRequests(format!(
                "{most} jobs wait at this endpoint already, which are as many as may (gateway.max_waiting)"
            )),
            error => Self::Store(error),
        }
    }
}

impl From<SubmissionError> for ApiError {
    fn from(error: SubmissionError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ForeignOrigin(_) => StatusCode::FORBIDDEN,
            Self::UnsupportedMediaType(_) | Self::ContentEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoEndpoint(_) | Self::NoJob(_) | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TransferEncoding(_) => StatusCode::NOT_IMPLEMENTED,
            Self::StoreFull | Self::Busy | Self::Crowded | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl ApiError {
    /// What a client reads of it.
    fn body(&self) -> String {
        match self {
            Self::Invalid(complaints) => {
                let (errors, hints) = (complaints.texts(), complaints.hints());
                let mut body = json!({ "error": self.to_string(), "errors": errors });
                if !hints.is_empty() {
                    body["hints"] = hints.into();
                }
                body
            }
            _ => json!({ "error": self.to_string() }),
        }
        .to_string()
    }
}

impl ApiError {
    /// What a client reads of it whose reply has begun: 200 is said already, so that only the body tells, as a status object does. `state` is
    /// how the job stood before. One that is gone before it came to an end was not done within its ttl: nothing else takes it away.
    pub(super) fn late(&self, id: &str, state: JobState) -> String {
        let (state, why) = match self {
            Self::NoJob(_) if !state.is_end() => {
                (JobState::TimedOut, "job was not done within its ttl, and is no longer kept".to_owned())
            }
            _ => (state, self.to_string()),
        };
        json!({ "id": id, "status": state, "error": why }).to_string()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Store(error) = &self
            && STORE_FAILURES.passes()
        {
            tracing::error!(cause = %error, "a request failed at the store; others may have, too");
        }
        let mut reply = (self.status(), RawJson(self.body())).into_response();
        if matches!(self, Self::StoreFull | Self::Busy | Self::Crowded | Self::Store(_) | Self::TooManyRequests(_)) {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_for_now_knows_when_to_ask_again() {
        let busy = ApiError::Busy.into_response();
        assert_eq!((busy.status().as_u16(), busy.headers()[RETRY_AFTER].to_str().unwrap()), (503, "1"));
        for (error, status, says) in [
            (StoreError::NoSpace("the disk at /x".into()), 503, "the queue has no room"),
            (StoreError::Failed("10.0.0.1".into()), 503, "the queue cannot be reached"),
            (
                StoreError::QueueFull(7),
                429,
                "7 jobs wait at this endpoint already, which are as many as may (gateway.max_waiting)",
            ),
        ] {
            let fault = ApiError::from(error);
            assert!(fault.to_string().contains(says) && !fault.to_string().contains("10.0"), "{fault}");
            let reply = fault.into_response();
            assert_eq!((reply.status().as_u16(), reply.headers()[RETRY_AFTER].to_str().unwrap()), (status, "1"));
        }
    }
}
