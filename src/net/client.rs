//! Fetches files: every name and every redirect passes the guard where it is dialled, and time and bytes have an end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{Response, Url};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use super::error::NoClient;
use super::error::{FetchError, Reason};
use super::guard::Guard;
use super::proxy::Proxies;
use super::retry::{jitter, pause};
use super::roots::Roots;
use super::tls;

/// Redirects that are followed, as in the RunPod SDK.
pub(super) const MAX_FETCH_REDIRECTS: usize = 5;

/// What one fetch may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Time, with all tries and redirects.
    pub time: Duration,
}

/// Fetches files from hosts that the guard lets pass.
///
/// No proxy but for what the operator names, no cookies, no referrer and no compression, whatever the environment says. A user and a password in the URL
/// go to the host that it names, as in the RunPod SDK, and to no other that it redirects to.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) http: reqwest::Client,
    guard: Guard,
    trusts: bool,
}

impl Client {
    /// A client that asks the system for addresses.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(guard: Guard) -> Result<Self, NoClient> {
        Self::with_names(guard, Arc::new(System))
    }

    /// A client that asks `names` for addresses.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn with_names(guard: Guard, names: Arc<dyn Resolve>) -> Result<Self, NoClient> {
        Self::trusting(guard, names, Roots::of_machine(), &Proxies::default())
    }

    /// A client for hosts that the operator names: it calls any address, and uses `proxies`.
    ///
    /// # Errors
    /// TLS or a proxy cannot be set up.
    pub fn open(proxies: &Proxies) -> Result<Self, NoClient> {
        Self::trusting(Guard::open(), Arc::new(System), Roots::of_machine(), proxies)
    }

    fn trusting(guard: Guard, names: Arc<dyn Resolve>, roots: Roots, proxies: &Proxies) -> Result<Self, NoClient> {
        let trusts = !roots.is_empty();
        let http = proxies
            .on(tls::client(roots)?)?
            .dns_resolver(Arc::new(Checked { guard: guard.clone(), names }))
            // Strangers' hosts are seldom called twice, and nothing of one job is left for another.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(NoClient::new)?;
        Ok(Self { http, guard, trusts })
    }

    /// Fetches the file at `url`. Dropping the future ends the fetch.
    ///
    /// # Errors
    /// Its host may not be called, does not answer, or answers with no file within the limits; the reason says which.
    pub async fn fetch(&self, url: &str, limits: FetchLimits) -> Result<Vec<u8>, FetchError> {
        let url: Url = url.parse().map_err(|cause| FetchError {
            host: None,
            redirected: None,
            reason: Reason::Url(format!("{cause}")),
        })?;
        timeout(limits.time, self.persistently(&url, limits.bytes))
            .await
            .unwrap_or_else(|_| Err(FetchError::new(&url, &url, Reason::Deadline(limits.time))))
    }

    /// Tries again where that may help.
    async fn persistently(&self, url: &Url, most: u64) -> Result<Vec<u8>, FetchError> {
        let mut failures = 0;
        loop {
            let error = match self.follow(url, most).await {
                Ok(file) => return Ok(file),
                Err(error) => error,
            };
            failures += 1;
            match error.retry().and_then(|told| pause(failures, told, jitter())) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// One try, from `url` through its redirects to the file.
    async fn follow(&self, named: &Url, most: u64) -> Result<Vec<u8>, FetchError> {
        let mut url = named.clone();
        for _ in 0..=MAX_FETCH_REDIRECTS {
            let fail = |reason| FetchError::new(named, &url, reason);
            let response = self.get(&url).await.map_err(fail)?;
            let next = match target(&url, &response) {
                Some(next) => next.map_err(fail)?,
                None => return body(response, most).await.map_err(fail),
            };
            url = next;
        }
        Err(FetchError::new(named, named, Reason::Redirects(MAX_FETCH_REDIRECTS)))
    }

    async fn get(&self, url: &Url) -> Result<Response, Reason> {
        self.admit(url)?;
        Ok(self.http.get(url.clone()).send().await?)
    }

    /// Judges what the resolver will not see of a URL.
    pub(super) fn admit(&self, url: &Url) -> Result<(), Reason> {
        match url.scheme() {
            "https" if !self.trusts => return Err(Reason::NoRoots),
            "http" | "https" => {}
            other => return Err(Reason::Scheme(other.to_owned())),
        }
        // An address in the URL asks no resolver.
        if let Some(address) = url.host_str().and_then(literal) {
            self.guard.judge(address, &own_addresses().map_err(Reason::Own)?)?;
        }
        Ok(())
    }
}

/// Where a redirect leads; `None` for any other answer.
pub(super) fn target(from: &Url, response: &Response) -> Option<Result<Url, Reason>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let place = String::from_utf8_lossy(response.headers().get(LOCATION)?.as_bytes());
    let target = from.join(&place).map_err(|cause| Reason::Url(format!("it redirects to none, {cause}")));
    Some(target.map(|mut next| {
        if next.origin() != from.origin() {
            // Fails for URLs that have no host, which are not called.
            let _ = next.set_username("").and_then(|()| next.set_password(None));
        }
        next
    }))
}

/// The file, if there is one and it is not larger than `most` bytes.
async fn body(response: Response, most: u64) -> Result<Vec<u8>, Reason> {
    let status = response.status();
    if !status.is_success() {
        return Err(Reason::Status { status, again: again(&response) });
    }
    whole(response, most).await
}

/// When a host wants to be asked again, if it says so in seconds.
pub(super) fn again(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The body of an answer, if it is not larger than `most` bytes.
pub(super) async fn whole(mut response: Response, most: u64) -> Result<Vec<u8>, Reason> {
    // What is announced is refused before it is sent; what is sent is counted, whatever was announced.
    if response.content_length().is_some_and(|announced| announced > most) {
        return Err(Reason::TooLarge(most));
    }
    let mut file = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (file.len() + chunk.len()) as u64 > most {
            return Err(Reason::TooLarge(most));
        }
        file.extend_from_slice(&chunk);
    }
    Ok(file)
}

/// The address that a URL has for a host, if it is one.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn own_addresses() -> std::io::Result<Vec<IpAddr>> {
    Ok(if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect())
}

/// The system's resolver.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A resolver that keeps the addresses that may be called: what it answers is dialled, with no second question between.
struct Checked {
    guard: Guard,
    names: Arc<dyn Resolve>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, found) = (self.guard.clone(), self.names.resolve(name));
        Box::pin(async move {
            let own = own_addresses()?;
            let mut refused = None;
            let mut kept = Vec::new();
            for address in found.await? {
                match guard.judge(address.ip(), &own) {
                    Ok(()) => kept.push(address),
                    Err(kind) => refused = refused.or(Some(kind)),
                }
            }
            match refused {
                Some(kind) if kept.is_empty() => Err(kind.into()),
                _ => Ok(Box::new(kept.into_iter()) as Addrs),
            }
        })
    }
}
