//! Browsers carry requests of pages written elsewhere. A gateway without keys answers whoever reaches it, and a page can reach what
//! listens on its reader's own machine; so until there are keys, which no foreign page has, it looks at what browsers say of a request.
//!
//! A page under a name that resolves to this machine is of our own origin to its browser: only `Host` tells (DNS rebinding). Any other foreign
//! page is told by `Sec-Fetch-Site`, which browsers send to HTTPS and loopback, else by `Origin` (Fetch and Fetch Metadata standards). Which
//! of them may ask all the same, `gateway.cors` lists.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{AsHeaderName, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::reply::ApiError;

/// Where a browser's request comes from, beside where it goes to (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What our own page sends along. A foreign one cannot without a preflight, which is granted to listed origins alone.
const PAGE_HEADER: &str = "x-latentd-page";

/// What an HTML form can send, and so a foreign page without a preflight.
const FORM_TYPES: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

/// Which browsers' requests are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrowserPolicy {
    /// Names that the gateway is reached by beside those of this machine, in small letters and without a port.
    pub hosts: Vec<String>,
    /// Origins whose pages may ask, as browsers write them.
    pub origins: Vec<String>,
}

/// What is not UTF-8 is no browser's.
fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

impl BrowserPolicy {
    /// The origin of a request, if it is one that is listed.
    pub(super) fn granted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN).filter(|_| !self.origins.is_empty())?;
        self.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    pub(super) fn judge(&self, request: &Request, api: bool, granted: bool) -> Result<(), ApiError> {
        let headers = request.headers();
        let named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or("?"));
        for host in named.chain(request.uri().authority().map(Authority::as_str)) {
            if !self.is_ours(host) {
                return Err(ApiError::ForeignOrigin(format!(
                    "{host:?} is no name of this gateway's: without keys it answers to addresses, to localhost and to names that gateway.hosts \
                     (LATENTD_GATEWAY__HOSTS) lists"
                )));
            }
        }
        if !api {
            return Ok(());
        }
        let (site, origin) = (text(headers, SEC_FETCH_SITE), text(headers, ORIGIN));
        if site.is_none() && origin.is_none() {
            // No browser's: nothing but `Host` is to be looked at.
            return Ok(());
        }
        if !granted && let Some(who) = self.foreign(headers, site, origin) {
            return Err(ApiError::ForeignOrigin(format!(
                "a page of another origin asks ({who}): without keys only those may that gateway.cors (LATENTD_GATEWAY__CORS) lists"
            )));
        }
        let kind = text(headers, CONTENT_TYPE).and_then(|kind| kind.split(';').next()).map(str::trim);
        match kind.filter(|_| request.method() == Method::POST) {
            Some(kind) if FORM_TYPES.iter().any(|form| form.eq_ignore_ascii_case(kind)) => {
                Err(ApiError::UnsupportedMediaType(format!(
                    "from a browser this route takes application/json, and not {kind}: send it as `Content-Type`"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Which foreign page a request is from, in its browser's words; `None` if from none.
    fn foreign(&self, headers: &HeaderMap, site: Option<&str>, origin: Option<&str>) -> Option<String> {
        match (site, origin) {
            (Some("same-origin" | "none"), _) | (None, None) => None,
            (Some(site), None) => Some(format!("Sec-Fetch-Site: {site}")),
            (None, Some(origin)) if headers.contains_key(PAGE_HEADER) || self.is_own(headers, origin) => None,
            (_, Some(origin)) => Some(format!("Origin: {origin}")),
        }
    }

    /// Whether an origin is where the gateway itself is reached. Behind a proxy `Host` may be the proxy's word for us.
    fn is_own(&self, headers: &HeaderMap, origin: &str) -> bool {
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        let same = text(headers, HOST).is_some_and(|host| host.eq_ignore_ascii_case(authority));
        same || self.is_listed(&name(authority))
    }

    fn is_listed(&self, name: &str) -> bool {
        self.hosts.iter().any(|listed| listed == name)
    }

    /// Whether `Host` names this machine in a way that no stranger's DNS can: by an address, by a name that is always loopback
    /// (RFC 6761), or by one that is listed.
    fn is_ours(&self, host: &str) -> bool {
        let name = name(host);
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.is_listed(&name)
    }
}

/// The name or address of a host without its port, in small letters.
fn name(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn ask(method: &str, headers: &[(&str, &str)]) -> Request {
        let request = Request::builder().method(method).uri("/v2/e/run");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Body::empty()).unwrap()
    }

    fn browsers() -> BrowserPolicy {
        BrowserPolicy { hosts: vec!["gpu.lan".into()], origins: vec!["https://app.example".into()] }
    }

    #[test]
    fn only_names_that_no_stranger_can_have_are_ours() {
        for (host, ours) in [
            ("127.0.0.1:8000", true),
            ("10.1.2.3", true),
            ("[::1]:8000", true),
            ("[::1]", true),
            ("LocalHost:8000", true),
            ("a.localhost.", true),
            ("GPU.lan:443", true),
            ("evil.example:8000", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("notlocalhost", false),
            ("x.gpu.lan", false),
            ("", false),
            (":8000", false),
            ("evil.example:", false),
        ] {
            let judged = browsers().judge(&ask("GET", &[("host", host)]), false, false);
            assert_eq!(judged.is_ok(), ours, "{host}");
        }
        let absolute = Request::get("http://evil.example/v2/e/run").body(Body::empty()).unwrap();
        assert!(browsers().judge(&absolute, true, false).unwrap_err().to_string().contains("gateway.hosts"));
        assert!(
            browsers().judge(&ask("GET", &[]), true, false).is_ok(),
            "HTTP/1.0 names none, nor do browsers speak it"
        );
    }

    #[test]
    fn a_foreign_page_is_told_by_what_its_browser_says() {
        let origin = |origin| ("origin", origin);
        let site = |site| ("sec-fetch-site", site);
        for (headers, passes) in [
            (&[][..], true),
            (&[site("same-origin"), origin("https://gpu.example")], true),
            (&[site("none")], true),
            (&[site("same-site"), origin("http://127.0.0.1:3000")], false),
            (&[site("cross-site")], false),
            // It alone decides.
            (&[site("cross-site"), origin("http://127.0.0.1:8000")], false),
            (&[site("cross-site"), origin("http://gpu.lan"), (PAGE_HEADER, "1")], false),
            (&[origin("http://127.0.0.1:8000")], true),
            (&[origin("http://127.0.0.1:3000")], false),
            (&[origin("http://gpu.lan:81")], true),
            (&[origin("http://10.0.0.7"), (PAGE_HEADER, "1")], true),
            (&[origin("http://10.0.0.7")], false),
            (&[origin("null")], false),
        ] {
            let request = ask("POST", &[&[("host", "127.0.0.1:8000")], headers].concat());
            assert_eq!(browsers().judge(&request, true, false).is_ok(), passes, "{headers:?}");
            assert!(browsers().judge(&request, false, false).is_ok(), "anybody may link to a page");
            assert!(browsers().judge(&request, true, true).is_ok(), "listed");
        }
    }

    #[test]
    fn what_a_form_can_send_is_no_json_if_a_browser_sends_it() {
        for (headers, passes) in [
            (&[("content-type", "text/plain;charset=UTF-8")][..], true),
            (&[("content-type", "application/json"), ("sec-fetch-site", "same-origin")], true),
            (&[("content-type", "Text/Plain; charset=UTF-8"), ("sec-fetch-site", "same-origin")], false),
            (&[("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "none")], false),
            (&[("content-type", "multipart/form-data; boundary=x"), ("sec-fetch-site", "none")], false),
        ] {
            assert_eq!(browsers().judge(&ask("POST", headers), true, false).is_ok(), passes, "{headers:?}");
        }
    }
}
