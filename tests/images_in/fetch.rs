//! The guarded client against hosts that misbehave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latentd::net::{Client, FetchError, FetchLimits, Guard, Reason};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::images_in::server::{Answer, Server, Then, moved, ok, status};

const LIMITS: FetchLimits = FetchLimits { bytes: 1000, time: Duration::from_secs(30) };

/// A client that may call these.
pub(crate) fn client(allowed: &str) -> Client {
    Client::new(guard(allowed)).unwrap()
}

fn guard(allowed: &str) -> Guard {
    Guard::new(allowed.split(' ').filter(|range| !range.is_empty()).map(|range| range.parse().unwrap()).collect())
}

async fn fetch(url: &str) -> Result<Vec<u8>, FetchError> {
    client("127.0.0.1/32").fetch(url, LIMITS).await
}

/// What a fetch fails of, without the host.
async fn why(url: &str) -> String {
    fetch(url).await.unwrap_err().reason.to_string()
}

#[tokio::test]
async fn a_file_comes_as_it_is_and_the_request_tells_nothing() {
    let server = Server::start(|_, _| ok(b"file")).await;
    assert_eq!(fetch(&server.url("/a%20b?x=1#part")).await.unwrap(), b"file");
    let asked = server.asked();
    let mut lines: Vec<&str> = asked[0].trim_end().lines().collect();
    lines.sort_unstable();
    let agent = concat!("user-agent: latentd/", env!("CARGO_PKG_VERSION"));
    assert_eq!(lines, ["GET /a%20b?x=1 HTTP/1.1", "accept: */*", &format!("host: {}", server.address), agent]);
}

#[tokio::test]
async fn addresses_that_are_not_public_are_not_called() {
    let server = Server::start(|_, _| ok(b"secret")).await;
    let port = server.address.port();
    let strict = client("");
    for (host, kind) in [
        ("127.0.0.1", "a loopback address"),
        ("2130706433", "a loopback address"),
        ("0x7f.1", "a loopback address"),
        ("127.1", "a loopback address"),
        ("0.0.0.0", "an unspecified address"),
        ("[::1]", "a loopback address"),
        ("[::ffff:127.0.0.1]", "a loopback address"),
        ("localhost", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("[fe80::1]", "a link-local address"),
        ("[64:ff9b::7f00:1]", "a NAT64 address"),
    ] {
        let error = strict.fetch(&format!("http://me:pa55@{host}:{port}/?s3cret"), LIMITS).await.unwrap_err();
        assert!(matches!(error.reason, Reason::Refused(_)), "{host}: {error}");
        let said = error.to_string();
        assert!(said.contains(&format!("its address is {kind}, which")), "{host}: {said}");
        assert!(!said.contains("pa55") && !said.contains("s3cret"), "{said}");
    }
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn this_machine_s_own_addresses_are_not_called() {
    let own = if_addrs::get_if_addrs().unwrap().into_iter().map(|interface| interface.ip());
    for address in own.filter(std::net::IpAddr::is_ipv4) {
        let error = client("").fetch(&format!("http://{address}:9/"), LIMITS).await.unwrap_err();
        assert!(matches!(error.reason, Reason::Refused(_)), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_url_of_a_host_is_refused() {
    for (url, expected) in [
        ("", "the URL is not valid: relative URL without a base"),
        ("http://", "the URL is not valid: empty host"),
        ("http://127.0.0.1:99999/", "the URL is not valid: invalid port number"),
        ("ftp://127.0.0.1/x", "ftp: is neither http nor https"),
        ("file:///etc/passwd", "file: is neither http nor https"),
        ("data:text/plain,x", "data: is neither http nor https"),
        ("gopher://127.0.0.1:70/", "gopher: is neither http nor https"),
    ] {
        assert_eq!(why(url).await, expected, "{url}");
    }
}

#[tokio::test]
async fn redirects_are_followed_and_judged_like_the_first() {
    let server = Server::start(|number, path| match path {
        "/relative" => moved("there"),
        "/there" => ok(b"file"),
        "/five" if number < 5 => moved("/five"),
        "/five" => ok(b"at last"),
        "/loop" => moved("/loop"),
        "/nowhere" => status("302 Found"),
        "/unreadable" => moved("http://[::1"),
        other => moved(&other[1..]),
    })
    .await;
    let url = |path: &str| server.url(path);
    assert_eq!(fetch(&url("/five")).await.unwrap(), b"at last");
    assert_eq!(fetch(&url("/relative")).await.unwrap(), b"file");
    assert_eq!(why(&url("/loop")).await, "more than 5 redirects");
    assert_eq!(why(&url("/nowhere")).await, "it answered 302 Found");
    assert!(why(&url("/unreadable")).await.starts_with("the URL is not valid: it redirects to none, "));
    let before = server.asked().len();
    for (to, expected) in [
        ("file:///etc/passwd", "file: is neither http nor https"),
        ("http://127.0.0.2/x", "its address is a loopback address"),
        ("http://169.254.169.254/latest/meta-data", "its address is a link-local address"),
        ("http://[::1]/x", "its address is a loopback address"),
        ("//10.0.0.1/x", "its address is a private address"),
        ("https://[::ffff:10.0.0.1]/x", "its address is a private address"),
    ] {
        let error = fetch(&url(&format!("/{to}"))).await.unwrap_err();
        assert!(error.reason.to_string().starts_with(expected), "{to}: {error}");
    }
    assert_eq!(server.asked().len() - before, 6, "a refusal is not tried again");
    let error = fetch(&url("/http://169.254.169.254:8/?token")).await.unwrap_err().to_string();
    let hosts = format!("{}: redirected to 169.254.169.254:8: its address is a link-local address, ", server.address);
    assert!(error.starts_with(&hosts), "{error}");
}

#[tokio::test]
async fn credentials_go_to_the_named_host_alone() {
    let other = Server::start(|_, _| ok(b"file")).await;
    let there = other.url("/end").replace("//", "//a:b@");
    let server = Server::start(move |number, _| if number == 0 { moved("/again") } else { moved(&there) }).await;
    let named = server.url("/start").replace("//", "//me:pa55@");
    assert_eq!(fetch(&named).await.unwrap(), b"file");
    let has = |request: &String| request.contains("authorization: Basic bWU6cGE1NQ==");
    assert_eq!(server.asked().iter().map(has).collect::<Vec<_>>(), [true, true]);
    let end = &other.asked()[0];
    assert!(!end.contains("authorization") && !end.contains("referer"), "{end}");
}

#[tokio::test]
async fn what_may_pass_is_tried_three_times_and_nothing_else_is() {
    for (line, tries) in
        [("503 Service Unavailable", 3), ("429 Too Many Requests", 3), ("404 Not Found", 1), ("403 Forbidden", 1)]
    {
        let server = Server::start(move |_, _| status(line)).await;
        assert_eq!(why(&server.url("/")).await, format!("it answered {line}"));
        assert_eq!(server.asked().len(), tries, "{line}");
    }
    let server = Server::start(|number, _| if number == 0 { status("500 Oops") } else { ok(b"file") }).await;
    assert_eq!(fetch(&server.url("/")).await.unwrap(), b"file");
    let server = Server::start(|number, _| if number == 0 { (Vec::new(), Then::Close) } else { ok(b"file") }).await;
    assert_eq!(fetch(&server.url("/")).await.unwrap(), b"file", "it hung up on the first");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_in_the_system_s_words() {
    let gone = Server::start(|_, _| ok(b"")).await.address;
    let error = fetch(&format!("http://{gone}/?s3cret")).await.unwrap_err().to_string();
    assert_eq!(error, format!("{gone}: no connection: Connection refused (os error 111)"));
    let error = fetch("http://no-such-host.invalid/?s3cret").await.unwrap_err().to_string();
    assert!(error.starts_with("no-such-host.invalid: no connection: ") && !error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_not_taken() {
    let raw = |head: &str| -> Answer { (format!("HTTP/1.1 200 OK\r\n{head}\r\n").into(), Then::Endless) };
    let endless = "the file has more than 1000 bytes";
    for (head, expected) in [
        ("", endless),
        ("Content-Length: 1001\r\n", endless),
        ("Content-Length: 9223372036854775807\r\n", endless),
        ("Transfer-Encoding: chunked\r\n\r\n400\r\n", endless),
    ] {
        let answer = raw(head);
        let server = Server::start(move |_, _| answer.clone()).await;
        assert_eq!(why(&server.url("/")).await, expected, "{head:?}");
        assert_eq!(server.asked().len(), 1);
    }
    let server = Server::start(|_, _| ok(&[7; 1000])).await;
    assert_eq!(fetch(&server.url("/")).await.unwrap(), [7; 1000]);
    // More than announced is not read.
    let server = Server::start(move |_, _| raw("Content-Length: 5\r\n")).await;
    assert_eq!(fetch(&server.url("/")).await.unwrap(), b"xxxxx");
}

#[tokio::test]
async fn a_file_that_breaks_off_is_not_taken_for_whole() {
    let cut = || (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec(), Then::Close);
    let server = Server::start(move |_, _| cut()).await;
    assert!(why(&server.url("/")).await.starts_with("the connection broke: "));
    assert_eq!(server.asked().len(), 3);
    let server = Server::start(|_, _| (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Then::Close)).await;
    let said = why(&server.url("/")).await;
    assert!(said.starts_with("the connection broke: "), "{said}");
}

async fn is_too_slow(head: &'static str, then: Then) {
    let server = Server::start(move |_, _| (head.into(), then)).await;
    assert_eq!(why(&server.url("/")).await, "it took longer than 30 s");
}

#[tokio::test]
async fn a_host_that_says_nothing_does_not_hold_a_job() {
    is_too_slow("", Then::Silence).await;
}

#[tokio::test]
async fn a_host_that_drips_headers_does_not_hold_a_job() {
    is_too_slow("HTTP/1.1 200 OK\r\nX: ", Then::Drip).await;
}

#[tokio::test]
async fn a_host_that_drips_a_file_does_not_hold_a_job() {
    is_too_slow("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", Then::Drip).await;
}

/// Answers every name with the next list of addresses, and the last one from then on.
struct Names {
    lists: Mutex<Vec<Vec<SocketAddr>>>,
}

impl Names {
    fn new(lists: &[&[&str]]) -> Arc<Self> {
        let list = |list: &&[&str]| list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        Arc::new(Self { lists: Mutex::new(lists.iter().map(list).collect()) })
    }
}

impl Resolve for Names {
    fn resolve(&self, _: Name) -> Resolving {
        let mut lists = self.lists.lock().unwrap();
        let list = if lists.len() > 1 { lists.remove(0) } else { lists[0].clone() };
        Box::pin(async move { Ok(Box::new(list.into_iter()) as Addrs) })
    }
}

async fn fetch_by(names: &Arc<Names>, allowed: &str, url: &str) -> Result<Vec<u8>, FetchError> {
    Client::with_names(guard(allowed), Arc::clone(names) as Arc<dyn Resolve>).unwrap().fetch(url, LIMITS).await
}

#[tokio::test]
async fn a_name_that_changes_its_answer_gains_nothing() {
    let server = Server::start(|_, path| if path == "/" { ok(b"file") } else { moved("/") }).await;
    let port = server.address.port();
    let inside = Server::at(&format!("127.0.0.2:{port}"), |_, _| ok(b"secret")).await;
    // Each dial asks once and calls what was answered; the second answer is judged like the first.
    let names = Names::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let error =
        fetch_by(&names, "127.0.0.1/32", &format!("http://changing.example:{port}/redirect")).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Refused(_)), "{error}");
    assert_eq!(server.asked().len(), 1);
    // An answer that is partly allowed is called there alone.
    let names = Names::new(&[&["127.0.0.2", "10.0.0.1", "::1", "127.0.0.1"]]);
    assert_eq!(fetch_by(&names, "127.0.0.1/32", &format!("http://mixed.example:{port}/")).await.unwrap(), b"file");
    assert_eq!(inside.asked(), [""; 0]);
}

#[tokio::test]
async fn the_next_address_is_called_when_one_does_not_answer() {
    let server = Server::start(|_, _| ok(b"file")).await;
    let names = Names::new(&[&["127.0.0.3", "127.0.0.4", "127.0.0.1"]]);
    let url = format!("http://several.example:{}/", server.address.port());
    assert_eq!(fetch_by(&names, "127.0.0.0/8", &url).await.unwrap(), b"file");
}
