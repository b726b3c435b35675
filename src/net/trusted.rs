//! The HTTP client for hosts that the operator names, such as the queue: any address, connections kept, answers read whole.
//!
//! A POST is never turned into another method: only redirects that keep its body (307, 308) are followed, and any other is an answer.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url, redirect};
use tokio::time::{Instant, timeout, timeout_at};

use super::client::{again, whole};
use super::error::NoClient;
use super::error::{FetchError, Reason};
use super::proxy::Proxies;
use super::roots::Roots;
use super::tls;

/// Redirects that are followed. A redirect elsewhere does not take the key along.
const MAX_QUEUE_REDIRECTS: usize = 5;

/// For the rest of an answer that is not needed, and bytes of it: it is read only to keep the connection.
const DRAIN: Duration = Duration::from_secs(1);
const DRAINED: u64 = 64 << 10;

/// Calls hosts that the operator trusts.
#[derive(Clone)]
pub struct TrustedClient {
    gets: reqwest::Client,
    posts: reqwest::Client,
    headers: HeaderMap,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Where to.
    pub url: &'a Url,
    /// What to send by POST; `None` is a GET.
    pub body: Option<Bytes>,
    /// Beside those that every call has.
    pub headers: &'a [(&'a str, &'a str)],
    /// For all of it.
    pub time: Duration,
    /// Bytes that the answer may have; 0 if its body does not matter, so that it may have any, break off or never come.
    pub most: u64,
}

/// What a host answered, whatever the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The content type without its parameters, in lower case; empty if there was none.
    pub content_type: String,
    /// When it wants to be asked again.
    pub again: Option<Duration>,
    /// Every header.
    pub headers: HeaderMap,
    /// The body; empty if none was wanted.
    pub body: Vec<u8>,
}

impl TrustedClient {
    /// A client that sends `key`, if there is one, raw as `Authorization`.
    ///
    /// # Errors
    /// TLS could not be set up, or the key has characters that no header can have.
    pub fn new(key: Option<&str>) -> Result<Self, NoClient> {
        Self::through(key, &Proxies::default())
    }

    /// The same, and uses `proxies`.
    ///
    /// # Errors
    /// As for [`TrustedClient::new`].
    pub fn through(key: Option<&str>, proxies: &Proxies) -> Result<Self, NoClient> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut key = HeaderValue::from_str(key).map_err(|_| NoClient::new("the key is no text for a header"))?;
            key.set_sensitive(true);
            headers.insert(AUTHORIZATION, key);
        }
        let (gets, posts) = (redirect::Policy::limited(MAX_QUEUE_REDIRECTS), redirect::Policy::custom(with_body));
        Ok(Self { gets: client(gets, proxies)?, posts: client(posts, proxies)?, headers })
    }

    /// Makes a call. Dropping the future breaks it off.
    ///
    /// # Errors
    /// There was no whole answer, as far as it was wanted. Any answer is one.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, FetchError> {
        let (url, time, most, end) = (call.url, call.time, call.most, Instant::now() + call.time);
        let answer = async {
            let late = |_| Reason::Deadline(time);
            let (response, answer) = timeout_at(end, self.exchange(call)).await.map_err(late)??;
            if most == 0 {
                // The status said all.
                let _ = timeout(DRAIN, whole(response, DRAINED)).await;
                return Ok(answer);
            }
            let body = timeout_at(end, whole(response, most)).await.map_err(late)??;
            Ok(Answer { body, ..answer })
        };
        answer.await.map_err(|reason| FetchError::new(url, url, reason))
    }

    /// Makes a call as far as the headers of its answer.
    async fn exchange(&self, call: Call<'_>) -> Result<(Response, Answer), Reason> {
        let mut headers = self.headers.clone();
        for (name, value) in call.headers {
            // What no header can have is left out: it is in the URL, too.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        let request = match call.body {
            Some(body) => self.posts.post(call.url.clone()).body(body),
            None => self.gets.get(call.url.clone()),
        };
        let response = request.headers(headers).send().await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        let content_type = content_type.trim().to_ascii_lowercase();
        let (status, again, headers) = (response.status().as_u16(), again(&response), response.headers().clone());
        Ok((response, Answer { status, content_type, again, headers, body: Vec::new() }))
    }
}

fn client(redirects: redirect::Policy, proxies: &Proxies) -> Result<reqwest::Client, NoClient> {
    let builder = tls::client(Roots::of_machine())?.redirect(redirects);
    proxies.on(builder)?.build().map_err(NoClient::new)
}

/// Follows what keeps method and body. After the others what was sent would be a GET, whose 200 means nothing.
fn with_body(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match attempt.status().as_u16() {
        307 | 308 if attempt.previous().len() > MAX_QUEUE_REDIRECTS => attempt.error("too many redirects"),
        307 | 308 => attempt.follow(),
        _ => attempt.stop(),
    }
}

impl fmt::Debug for TrustedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedClient").finish_non_exhaustive()
    }
}
