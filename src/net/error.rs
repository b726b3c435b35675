//! Why a fetch failed, in words that name the host and never the URL, whose query may hold a signature.

use std::error::Error;
use std::fmt::{self, Display};
use std::time::Duration;

use reqwest::{StatusCode, Url};

use super::guard::Refused;

/// TLS or the client on it could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client: {0}")]
pub struct NoClient(String);

impl NoClient {
    pub(super) fn new(cause: impl Display) -> Self {
        Self(cause.to_string())
    }
}

/// A file that was not fetched.
#[derive(Debug)]
pub struct FetchError {
    /// The host that was named, if there was one.
    pub host: Option<String>,
    /// The host that it redirected to, if it failed there.
    pub redirected: Option<String>,
    /// What went wrong.
    pub reason: Reason,
}

/// What went wrong with a fetch.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// What was named is no URL of a host.
    #[error("the URL is not valid: {0}")]
    Url(String),
    /// Another scheme than http and https.
    #[error("{0}: is neither http nor https")]
    Scheme(String),
    /// The host has no address that may be called.
    #[error("its address is {0}, which is called only if net.allow_private lists it")]
    Refused(#[from] Refused),
    /// Our own addresses, which must not be called, are not known.
    #[error("this machine's own addresses cannot be read: {0}")]
    Own(std::io::Error),
    /// Nothing can be believed over TLS.
    #[error("this machine has no CA certificates to check https with: install ca-certificates")]
    NoRoots,
    /// The host could not be reached, or hung up.
    #[error("{0}")]
    Connection(String),
    /// The host answered, but not with a file.
    #[error("it answered {status}")]
    Status {
        /// What it answered.
        status: StatusCode,
        /// When it wants to be asked again.
        again: Option<Duration>,
    },
    /// Round and round.
    #[error("more than {0} redirects")]
    Redirects(usize),
    /// Too many bytes, announced or sent.
    #[error("the file has more than {0} bytes")]
    TooLarge(u64),
    /// Too much time, all tries together.
    #[error("it took longer than {} s", .0.as_secs_f64())]
    Deadline(Duration),
}

impl FetchError {
    /// A failure at `at`, on the way from `named`.
    pub(super) fn new(named: &Url, at: &Url, reason: Reason) -> Self {
        let host = authority(named);
        let redirected = authority(at).filter(|at| Some(at) != host.as_ref());
        Self { host, redirected, reason }
    }

    /// How long the host wants to be left alone, if another try may help.
    pub(super) fn retry(&self) -> Option<Duration> {
        match self.reason {
            Reason::Connection(_) => Some(Duration::ZERO),
            Reason::Status { status, again } if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Some(again.unwrap_or_default())
            }
            _ => None,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}: ")?;
        }
        if let Some(redirected) = &self.redirected {
            write!(f, "redirected to {redirected}: ")?;
        }
        self.reason.fmt(f)
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.source()
    }
}

impl From<reqwest::Error> for Reason {
    /// Finds out what lies at the bottom of `error`: the guard's refusal, or the system's words.
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut cause: &(dyn Error + 'static) = &error;
        loop {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return Self::Refused(*refused);
            }
            match cause.source() {
                Some(deeper) => cause = deeper,
                None => break,
            }
        }
        if error.is_builder() {
            return Self::Url(cause.to_string());
        }
        if cause.to_string().starts_with("invalid peer certificate") {
            let what = "this machine does not believe its certificate: have SSL_CERT_FILE name a PEM file with its CA's, or with the certificate itself";
            return Self::Connection(format!("{what} ({cause})"));
        }
        let what = if error.is_timeout() || error.is_connect() { "no connection" } else { "the connection broke" };
        Self::Connection(format!("{what}: {cause}"))
    }
}

/// Host, and the port where the URL names one; nothing that could be a secret.
pub(super) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn an_error_names_hosts_and_no_secrets() {
        let named = url("https://me:pa55@images.example.com/a.png?signature=s3cret#f");
        let gone = || Reason::Status { status: StatusCode::NOT_FOUND, again: None };
        let here = FetchError::new(&named, &named, gone());
        assert_eq!(here.to_string(), "images.example.com: it answered 404 Not Found");
        let there = FetchError::new(&named, &url("http://t0ken@[2001:db8::1]:8080/?t0ken"), gone());
        assert_eq!(
            there.to_string(),
            "images.example.com: redirected to [2001:db8::1]:8080: it answered 404 Not Found"
        );
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let named = url("http://x/");
        let status = |code: u16| {
            let (status, again) = (StatusCode::from_u16(code).unwrap(), Some(Duration::from_secs(2)));
            FetchError::new(&named, &named, Reason::Status { status, again }).retry()
        };
        for code in [429, 500, 502, 503, 504, 599] {
            assert_eq!(status(code), Some(Duration::from_secs(2)), "{code}");
        }
        for code in [204, 304, 400, 401, 403, 404, 410, 451] {
            assert_eq!(status(code), None, "{code}");
        }
        let retry = |reason| FetchError::new(&named, &named, reason).retry();
        assert_eq!(retry(Reason::Connection("reset".into())), Some(Duration::ZERO));
        assert_eq!(retry(Reason::TooLarge(1)), None);
        assert_eq!(retry(Reason::Redirects(5)), None);
    }
}
