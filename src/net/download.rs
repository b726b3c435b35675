//! Large files from hosts that the operator names: streamed, continued where an earlier try broke off, patient with what is slow and
//! not with what is silent.
//!
//! Redirects are followed by hand: the key goes to the origin that it is for and to no other, and https is never left for http.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::time::timeout;

use super::client::{again, target, whole};
use super::error::NoClient;
use super::error::{FetchError, Reason, authority};
use super::proxy::Proxies;
use super::roots::Roots;
use super::tls;

/// Redirects that are followed: hubs send from an old name to a new one and on to a store.
const MAX_DOWNLOAD_REDIRECTS: usize = 10;

/// For the next bytes; all of a file may take as long as it likes.
const SILENCE: Duration = Duration::from_mins(1);

/// Fetches from hosts that the operator trusts.
#[derive(Clone)]
pub struct DownloadClient {
    http: reqwest::Client,
    key: Option<(Url, HeaderValue)>,
    trusts: bool,
}

/// Where to go on with a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resume<'a> {
    /// Bytes that are there already.
    pub byte: u64,
    /// The tag that the host gave them; empty if it gave none.
    pub tag: &'a str,
}

/// A file that is being sent.
#[derive(Debug)]
pub struct Incoming {
    /// The first byte that comes; 0 if the host begins again.
    pub from: u64,
    /// Bytes of the whole file, where the host says so.
    pub total: Option<u64>,
    /// What the host calls this state of the file, if it can be relied on; else empty.
    pub tag: String,
    /// The tag under which the named host knows a file that lies elsewhere: for large files of a hub, the SHA-256.
    pub linked: Option<String>,
    named: Url,
    at: Url,
    response: Response,
}

/// A host said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who.
    pub host: String,
    /// Its status.
    pub status: StatusCode,
    /// The word in which hubs say why, such as `GatedRepo`; empty if there is none.
    pub code: String,
    /// When it wants to be asked again.
    pub again: Option<Duration>,
    /// Whether it was sent the key.
    pub knew_key: bool,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The host said no.
    #[error("{}: it answered {}", .0.host, .0.status)]
    Refused(Refusal),
    /// It did not come to an answer, or not to its end.
    #[error(transparent)]
    Failed(#[from] FetchError),
}

impl DownloadError {
    /// How long to leave the host alone before another try, if that may help.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            Self::Failed(error) => error.retry(),
            Self::Refused(refusal) => {
                let passing = refusal.status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&refusal.status);
                passing.then(|| refusal.again.unwrap_or_default())
            }
        }
    }
}

impl DownloadClient {
    /// A client that sends `key`, if there is one, as a bearer token to the origin of its URL.
    ///
    /// # Errors
    /// TLS could not be set up, or the key has characters that no header can have.
    pub fn new(key: Option<(&Url, &str)>) -> Result<Self, NoClient> {
        Self::through(key, &Proxies::default())
    }

    /// The same, and uses `proxies`.
    ///
    /// # Errors
    /// As for [`DownloadClient::new`].
    pub fn through(key: Option<(&Url, &str)>, proxies: &Proxies) -> Result<Self, NoClient> {
        let bearer = |(url, key): (&Url, &str)| {
            let value = HeaderValue::from_str(&format!("Bearer {key}"));
            let mut value = value.map_err(|_| NoClient::new("the token is no text for a header"))?;
            value.set_sensitive(true);
            Ok((url.clone(), value))
        };
        let roots = Roots::of_machine();
        let trusts = !roots.is_empty();
        let http = proxies.on(tls::client(roots)?)?.build().map_err(NoClient::new)?;
        Ok(Self { http, key: key.map(bearer).transpose()?, trusts })
    }

    /// Fetches what is small, such as the answer of an API: at most `most` bytes.
    ///
    /// # Errors
    /// It cannot be had, or has more bytes.
    pub async fn small(&self, url: &Url, most: u64) -> Result<Vec<u8>, DownloadError> {
        let incoming = self.open(url, Resume::default()).await?;
        let (named, at) = (incoming.named, incoming.at);
        let late = |_| Reason::Connection(format!("it took longer than {} s", SILENCE.as_secs()));
        let body = timeout(SILENCE, whole(incoming.response, most)).await.map_err(late).and_then(|body| body);
        Ok(body.map_err(|reason| FetchError::new(&named, &at, reason))?)
    }

    /// Asks for a file from `from` on. The host may begin at its beginning all the same.
    ///
    /// # Errors
    /// The host refuses it, does not answer, or sends another part than was asked for.
    pub async fn open(&self, named: &Url, from: Resume<'_>) -> Result<Incoming, DownloadError> {
        let mut url = named.clone();
        let mut linked = None;
        for _ in 0..=MAX_DOWNLOAD_REDIRECTS {
            let fail = |reason| FetchError::new(named, &url, reason);
            let response = self.ask(&url, from).await.map_err(fail)?;
            linked = linked.or_else(|| tag(response.headers(), "x-linked-etag"));
            let next = match target(&url, &response) {
                Some(next) => next.map_err(fail)?,
                None => return self.answer(named, url, response, linked),
            };
            if leaves_https(&url, &next) {
                return Err(fail(Reason::Url("it redirects from https to http".into())).into());
            }
            url = next;
        }
        Err(FetchError::new(named, named, Reason::Redirects(MAX_DOWNLOAD_REDIRECTS)).into())
    }

    async fn ask(&self, url: &Url, from: Resume<'_>) -> Result<Response, Reason> {
        match url.scheme() {
            "https" if !self.trusts => return Err(Reason::NoRoots),
            "http" | "https" => {}
            other => return Err(Reason::Scheme(other.to_owned())),
        }
        let mut request = self.http.get(url.clone());
        if let Some(key) = self.key_for(url) {
            request = request.header(AUTHORIZATION, key);
        }
        if from.byte > 0 {
            request = request.header(RANGE, format!("bytes={}-", from.byte));
            if !from.tag.is_empty() {
                request = request.header(IF_RANGE, from.tag);
            }
        }
        Ok(timeout(SILENCE, request.send()).await.map_err(silent)??)
    }

    fn key_for(&self, url: &Url) -> Option<HeaderValue> {
        self.key.as_ref().filter(|(owner, _)| owner.origin() == url.origin()).map(|(_, key)| key.clone())
    }

    fn answer(
        &self,
        named: &Url,
        at: Url,
        response: Response,
        linked: Option<String>,
    ) -> Result<Incoming, DownloadError> {
        let headers = response.headers();
        let (from, total) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = headers.get(CONTENT_RANGE).and_then(|range| content_range(range.to_str().ok()?));
                range.ok_or_else(|| FetchError::new(named, &at, Reason::Connection("it sent no such part".into())))?
            }
            StatusCode::OK => (0, response.content_length()),
            status => {
                let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
                return Err(DownloadError::Refused(Refusal {
                    host: authority(&at).unwrap_or_default(),
                    status,
                    code: code.chars().filter(char::is_ascii_alphanumeric).collect(),
                    again: again(&response),
                    knew_key: self.key_for(&at).is_some(),
                }));
            }
        };
        // A weak tag does not promise the same bytes.
        let tag = tag(headers, ETAG.as_str()).filter(|tag| tag.starts_with('"')).unwrap_or_default();
        Ok(Incoming { from, total, tag, linked, named: named.clone(), at, response })
    }
}

impl Incoming {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The connection breaks, or nothing comes for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DownloadError> {
        let chunk = timeout(SILENCE, self.response.chunk()).await.map_err(silent);
        let chunk = chunk.and_then(|chunk| Ok(chunk?));
        Ok(chunk.map_err(|reason| FetchError::new(&self.named, &self.at, reason))?)
    }
}

/// What was asked for in secret is not fetched in the open.
fn leaves_https(from: &Url, to: &Url) -> bool {
    from.scheme() == "https" && to.scheme() != "https"
}

fn silent(_: tokio::time::error::Elapsed) -> Reason {
    Reason::Connection(format!("nothing came for {} s", SILENCE.as_secs()))
}

fn tag(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|tag| tag.to_str().ok()).map(|tag| tag.trim().to_owned())
}

/// First byte and bytes of the whole from `bytes 5-9/10` or `bytes 5-9/*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((first, total))
}

impl fmt::Debug for DownloadClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        for wrong in ["", "bytes */10", "bytes 5-9", "items 5-9/10", "bytes x-9/10", "bytes 5-9/x"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn https_is_not_left() {
        let leaves = |from: &str, to: &str| leaves_https(&from.parse().unwrap(), &to.parse().unwrap());
        assert!(leaves("https://h/a", "http://h/a"));
        assert!(!leaves("https://h/a", "https://cdn/a") && !leaves("http://h/a", "https://h/a"));
        assert!(!leaves("http://h/a", "http://cdn/a"));
    }

    #[test]
    fn a_key_is_for_one_origin_and_shown_to_nobody() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let downloads = DownloadClient::new(Some((&url("https://hub.example/mirror"), "s3cret"))).unwrap();
        assert!(downloads.key_for(&url("https://hub.example/a/b")).is_some());
        for other in ["http://hub.example/a", "https://hub.example:8443/a", "https://cdn.hub.example/a"] {
            assert!(downloads.key_for(&url(other)).is_none(), "{other}");
        }
        assert!(!format!("{downloads:?}{:?}", downloads.key).contains("s3cret"));
    }
}
