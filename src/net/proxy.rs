//! The proxies on the way to hosts that the operator names. To what jobs name there is none: a proxy would look up names by itself, and
//! the guard would not see which addresses are called.

use std::fmt;

use reqwest::{ClientBuilder, NoProxy, Url};

use super::error::NoClient;
use super::shown;

/// Hosts that no proxy could call for us: a gateway in this process, say, or a Redis beside it.
const OWN: &str = "localhost,127.0.0.0/8,::1";

/// A proxy that speaks HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy(Url);

impl Proxy {
    /// Reads its URL; without a scheme it is one of http, as other tools take it.
    pub fn parse(text: &str) -> Option<Self> {
        let url = if text.contains("://") { text.parse() } else { format!("http://{text}").parse() };
        url.ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host()).map(Self)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(self.0.as_str()), f)
    }
}

/// Which hosts are called through which proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For http.
    pub http: Option<Proxy>,
    /// For https.
    pub https: Option<Proxy>,
    /// Hosts that are called without: names, which stand for those below them, too, addresses and ranges, separated by commas; `*` for all.
    pub none: Option<String>,
}

impl Proxies {
    /// A client that uses them.
    pub(super) fn on(&self, builder: ClientBuilder) -> Result<ClientBuilder, NoClient> {
        let none = NoProxy::from_string(&format!("{OWN},{}", self.none.as_deref().unwrap_or_default()));
        let http = self.http.iter().map(|proxy| reqwest::Proxy::http(proxy.0.clone()));
        let https = self.https.iter().map(|proxy| reqwest::Proxy::https(proxy.0.clone()));
        http.chain(https)
            .try_fold(builder, |builder, proxy| Ok(builder.proxy(proxy.map_err(NoClient::new)?.no_proxy(none.clone()))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{Call, Client, DownloadClient, Resume, TrustedClient};
    use super::*;

    #[test]
    fn a_proxy_is_named_as_for_other_tools() {
        let read = |text: &str| Proxy::parse(text).map(|proxy| proxy.0.to_string());
        assert_eq!(read("proxy.example:3128").as_deref(), Some("http://proxy.example:3128/"));
        assert_eq!(read("https://u:p@10.0.0.1").as_deref(), Some("https://u:p@10.0.0.1/"));
        for wrong in ["", "http://", "socks5://proxy.example", "a b"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(!format!("{:?}", Proxy::parse("http://me:pa55@h")).contains("pa55"));
    }

    /// Answers everything with 403, and tells the first lines of requests.
    async fn proxy() -> (Proxies, impl AsyncFn() -> String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy::parse(&address.to_string());
        let heard = async move || {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
            String::from_utf8(head).unwrap().lines().next().unwrap().to_owned()
        };
        let none = Some("direct.example,10.0.0.0/8".to_owned());
        (Proxies { http: proxy.clone(), https: proxy, none }, heard)
    }

    #[tokio::test]
    async fn what_the_operator_names_is_called_through_its_proxy() {
        let (proxies, heard) = proxy().await;
        let url = |text: &str| text.parse::<Url>().unwrap();
        let trusted = TrustedClient::through(None, &proxies).unwrap();
        let call = async |url: &Url| {
            trusted.call(Call { url, body: None, headers: &[], time: Duration::from_secs(9), most: 9 }).await
        };
        let queue = url("http://queue.example/a");
        let (answer, line) = tokio::join!(call(&queue), heard());
        assert_eq!((answer.unwrap().status, line.as_str()), (403, "GET http://queue.example/a HTTP/1.1"));
        let queue = url("https://queue.example/a");
        let (answer, line) = tokio::join!(call(&queue), heard());
        assert_eq!((answer.is_err(), line.as_str()), (true, "CONNECT queue.example:443 HTTP/1.1"));
        let (downloads, hub) = (DownloadClient::through(None, &proxies).unwrap(), url("http://hub.example/b"));
        let (answer, line) = tokio::join!(downloads.open(&hub, Resume::default()), heard());
        assert_eq!((answer.is_err(), line.as_str()), (true, "GET http://hub.example/b HTTP/1.1"));
    }

    #[tokio::test]
    async fn what_needs_none_is_called_without() {
        let (proxies, heard) = proxy().await;
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here: Url = format!("http://{}/", host.local_addr().unwrap()).parse().unwrap();
        let trusted = TrustedClient::through(None, &proxies).unwrap();
        let call = |url| Call { url, body: None, headers: &[], time: Duration::from_secs(9), most: 9 };
        let outside: Url = "http://direct.example:1/".parse().unwrap();
        tokio::select! {
            line = heard() => panic!("{line}"),
            (answer, _) = async {
                let called = async {
                    let (stream, _) = host.accept().await.unwrap();
                    drop(stream);
                };
                (tokio::join!(trusted.call(call(&here)), called).0, trusted.call(call(&outside)).await)
            } => assert!(answer.is_err()),
        }
        let named = Client::new(super::super::Guard::default()).unwrap();
        let limits = super::super::FetchLimits { bytes: 9, time: Duration::from_secs(1) };
        assert!(
            named.fetch("http://127.0.0.1:1/", limits).await.unwrap_err().to_string().contains("a loopback address")
        );
    }
}
