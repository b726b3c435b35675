//! Sends to hosts that strangers name, under the guard.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::timeout;

use super::client::{Client, MAX_FETCH_REDIRECTS, target};
use super::error::{FetchError, Reason};

/// What is read of a refusal: enough for the word that names its reason.
const MAX_EXPLANATION_BYTES: usize = 4096;

/// For those words; the host that does not find them has answered all the same.
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(2);

/// What is sent.
#[derive(Clone)]
pub struct Message<'a> {
    /// Where to.
    pub url: &'a str,
    /// Beside those that HTTP asks for.
    pub headers: HeaderMap,
    /// Headers for the host that is named, and for no other that it redirects to.
    pub private: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// For one try, with redirects.
    pub time: Duration,
}

/// What a host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// How a refusal begins; of a success nothing is read.
    pub said: Vec<u8>,
}

impl Client {
    /// Sends `message` by POST, once. A redirect gets it by POST, too, but for 302 and 303, which everybody follows by GET: what they lead to is
    /// word of what was done (RFC 9110, 15.4; Fetch, 4.4).
    ///
    /// # Errors
    /// The host may not be called, or does not answer; a status that is no success is a reply.
    pub async fn post(&self, message: &Message<'_>) -> Result<Reply, FetchError> {
        self.send(Method::POST, message, MAX_FETCH_REDIRECTS).await
    }

    /// Sends `message` by PUT, once, and to no other host than it is for.
    ///
    /// # Errors
    /// As for [`Client::post`].
    pub async fn put(&self, message: &Message<'_>) -> Result<Reply, FetchError> {
        self.send(Method::PUT, message, 0).await
    }

    async fn send(&self, method: Method, message: &Message<'_>, redirects: usize) -> Result<Reply, FetchError> {
        let invalid = |cause| FetchError { host: None, redirected: None, reason: Reason::Url(format!("{cause}")) };
        let url: Url = message.url.parse().map_err(invalid)?;
        timeout(message.time, self.carry(method, &url, message, redirects))
            .await
            .unwrap_or_else(|_| Err(FetchError::new(&url, &url, Reason::Deadline(message.time))))
    }

    async fn carry(
        &self,
        mut method: Method,
        named: &Url,
        message: &Message<'_>,
        redirects: usize,
    ) -> Result<Reply, FetchError> {
        let mut url = named.clone();
        let mut private = Some(message.private.clone());
        for followed in 0.. {
            let fail = |reason| FetchError::new(named, &url, reason);
            self.admit(&url).map_err(fail)?;
            let request = self.http.request(method.clone(), url.clone());
            let request = if method == Method::GET {
                request
            } else {
                request.headers(message.headers.clone()).body(message.body.clone())
            };
            let sent = request.headers(private.clone().unwrap_or_default()).send().await;
            let response = sent.map_err(|cause| fail(cause.into()))?;
            let elsewhere = target(&url, &response).filter(|_| redirects > 0);
            let Some(next) = elsewhere else { return Ok(reply(response).await) };
            if matches!(response.status(), StatusCode::FOUND | StatusCode::SEE_OTHER) {
                method = Method::GET;
            }
            if followed == redirects {
                break;
            }
            let next = next.map_err(fail)?;
            if next.origin() != url.origin() {
                private = None;
            }
            url = next;
        }
        Err(FetchError::new(named, named, Reason::Redirects(redirects)))
    }
}

async fn reply(mut response: Response) -> Reply {
    let (status, mut said) = (response.status(), Vec::new());
    if !status.is_success() {
        let listen = async {
            while let Ok(Some(chunk)) = response.chunk().await
                && said.len() < MAX_EXPLANATION_BYTES
            {
                said.extend_from_slice(&chunk);
            }
        };
        // What was heard by then is what was said.
        let _ = timeout(EXPLANATION_TIMEOUT, listen).await;
    }
    said.truncate(MAX_EXPLANATION_BYTES);
    Reply { status, said }
}
