//! The HTTP clients: a guarded one for addresses that strangers name, which calls public hosts alone and takes no more than it
//! was told to, a trusting one for hosts that the operator names, and one for large files from such hosts.

mod client;
mod download;
mod error;
mod guard;
mod message;
mod proxy;
mod retry;
mod roots;
mod shown;
mod template;
mod tls;
mod trusted;

pub use client::{Client, FetchLimits};
pub use download::{DownloadClient, DownloadError, Incoming, Refusal, Resume};
pub use error::{FetchError, NoClient, Reason};
pub use guard::{Guard, Refused};
pub use message::{Message, Reply};
pub use proxy::{Proxies, Proxy};
pub use reqwest::Url;
pub use retry::{Backoff, jitter};
pub use shown::shown;
pub use template::{InvalidUrl, Template, base};

pub use trusted::{Answer, Call, TrustedClient};

/// The host of a URL, with its port where it names one: what may be told of it.
pub fn host(url: &str) -> Option<String> {
    error::authority(&url.parse().ok()?)
}
