//! The HTTP client for addresses that strangers name: it calls public hosts alone, and takes no more than it was told to.

mod client;
mod error;
mod guard;
mod message;
mod retry;

pub use client::{Client, Limits, NoClient};
pub use error::{FetchError, Reason};
pub use guard::{Guard, Refused};
pub use message::{Message, Reply};
pub use reqwest::Url;

/// The host of a URL, with its port where it names one: what may be told of it.
pub fn host(url: &str) -> Option<String> {
    error::authority(&url.parse().ok()?)
}
