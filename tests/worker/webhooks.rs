//! Webhooks to receivers that misbehave, through restarts, on a paused clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use latentd::clock::{FakeClock, UnixTime};
use latentd::config::SigningKey;
use latentd::deliver::outbox::{Outbox, RetryPolicy, WebhookClient, WebhookDeliveries};
use latentd::deliver::spool::Spool;
use latentd::deliver::webhook::{Signer, WebhookRequest};
use latentd::job::Webhook;
use latentd::net::{Client, Guard};
use latentd::telemetry::Metrics;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::worker::log::Log;
use crate::worker::server::{Answer, Server, moved, status};

const BODY: &[u8] = br#"{"id": "j", "status": "COMPLETED"}"#;

const NOW: UnixTime = UnixTime::from_millis(1_795_000_000_500);

fn hook(url: &str, headers: &[(&str, &str)]) -> WebhookRequest {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    WebhookRequest::new("j", "COMPLETED", &Webhook { url: url.into(), headers, left_out: 0 })
}

fn client(allowed: &str, now: UnixTime) -> WebhookClient {
    let allowed = allowed.split(' ').filter(|range| !range.is_empty()).map(|range| range.parse().unwrap()).collect();
    WebhookClient {
        client: Client::new(Guard::new(allowed)).unwrap(),
        signer: SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").map(Signer::new),
        retry: RetryPolicy { most: 3, pause: Duration::from_secs(10), time: Duration::from_secs(30) },
        clock: Arc::new(FakeClock::at(now)),
        metrics: Metrics::default(),
    }
}

fn open_at(root: &Path, allowed: &str, now: UnixTime) -> (Spool, Outbox, WebhookDeliveries) {
    let spool = Spool::open(root, 1 << 20).unwrap();
    let (outbox, deliveries) = Outbox::open(&spool, client(allowed, now));
    (spool, outbox, deliveries)
}

fn open(root: &Path) -> (Spool, Outbox, WebhookDeliveries) {
    open_at(root, "127.0.0.1/32", NOW)
}

async fn send(outbox: &Outbox, hook: WebhookRequest) {
    outbox.send(outbox.keep(hook, Duration::ZERO, Bytes::from_static(BODY)).await).await;
}

fn entries(root: &Path) -> usize {
    std::fs::read_dir(root.join("0/webhooks")).unwrap().count()
}

/// Accepts one webhook, sends all there are, and returns how long that took.
async fn deliver(root: &Path, hook: WebhookRequest) -> Duration {
    let (_spool, outbox, deliveries) = open(root);
    let start = Instant::now();
    send(&outbox, hook).await;
    drop(outbox);
    deliveries.run(CancellationToken::new()).await;
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_told_once_with_its_headers_and_a_signature() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| status("204 No Content")).await;
    let hook = hook(&server.url("/hook?token=x"), &[("Authorization", "Bearer k"), ("Host", "elsewhere")]);
    deliver(root.path(), hook.clone()).await;
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.body.as_slice()), ("POST", "/hook?token=x", BODY));
    let host = server.address.to_string();
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer k"),
        ("host", &host),
        ("webhook-id", hook.id()),
        ("webhook-timestamp", "1795000000"),
        ("user-agent", concat!("latentd/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    let signature = asked.header("webhook-signature");
    assert!(signature.starts_with("v1,") && signature.len() == 47, "{signature}");
    assert_eq!(entries(root.path()), 0);
}

/// `id` becomes the `requestId` of a log for machines, which names the job.
#[tokio::test(start_paused = true)]
async fn lines_name_the_job_as_id_and_the_event_as_webhook() {
    let ((log, guard), root) = (Log::of_this_thread(), tempfile::tempdir().unwrap());
    let server = Server::start(|number, _| status(["500 Oh", "200 OK"][number])).await;
    let hook = hook(&server.url("/"), &[("Host", "elsewhere")]);
    let event = hook.id().to_owned();
    deliver(root.path(), hook).await;
    drop(guard);
    let lines = log.lines();
    let ours = |line: &&Value| line["target"].as_str().unwrap().contains("::deliver::");
    let fields: Vec<&Value> = lines.iter().filter(ours).map(|line| &line["fields"]).collect();
    assert!(fields.iter().all(|fields| fields["id"] == "j"), "{fields:?}");
    assert_eq!(fields.iter().filter(|fields| fields["webhook"] == *event).count(), 2, "{fields:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_after_the_first_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| status("500 Internal Server Error")).await;
    let (client, spool) = (client("127.0.0.1/32", NOW), Spool::open(root.path(), 1 << 20).unwrap());
    let metrics = client.metrics.clone();
    let (outbox, deliveries) = Outbox::open(&spool, client);
    send(&outbox, hook(&server.url("/"), &[])).await;
    drop(outbox);
    deliveries.run(CancellationToken::new()).await;
    let text = metrics.text();
    assert!(text.contains("latentd_delivery_retries_total{to=\"webhook\"} 2\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn three_attempts_are_ten_seconds_apart_and_have_one_id() {
    for (answers, attempts, seconds) in [
        (["500 Internal Server Error", "200 OK", ""], 2, 10),
        (["429 Too Many Requests", "404 Not Found", "201 Created"], 3, 20),
        (["400 Bad Request", "410 Gone", "503 Service Unavailable"], 3, 20),
        (["303 See Other", "hangs up", "200 OK"], 3, 20),
    ] {
        let root = tempfile::tempdir().unwrap();
        let server = Server::start(move |number, _| match answers[number] {
            "hangs up" => Answer::HangUp,
            line => status(line),
        })
        .await;
        let took = deliver(root.path(), hook(&server.url("/"), &[])).await;
        let asked = server.asked();
        assert_eq!((asked.len(), took.as_secs()), (attempts, seconds), "{answers:?}");
        assert!(asked.iter().all(|request| request.header("webhook-id") == asked[0].header("webhook-id")));
        assert_eq!(entries(root.path()), 0, "done or given up");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_silent_has_thirty_seconds() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(|number, _| if number < 2 { Answer::Silence } else { status("200 OK") }).await;
    let took = deliver(root.path(), hook(&server.url("/"), &[])).await;
    assert_eq!((server.asked().len(), took.as_secs()), (3, 80));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_sent_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let server =
        Server::start(|number, _| status(if number == 0 { "500 Internal Server Error" } else { "200 OK" })).await;
    let hook = hook(&server.url("/"), &[("X-Own", "kept")]);
    let (spool, outbox, deliveries) = open(root.path());
    send(&outbox, hook.clone()).await;
    // Within the pause after the first attempt.
    let stopped = tokio::time::timeout(Duration::from_secs(5), deliveries.run(CancellationToken::new())).await;
    assert!(stopped.is_err());
    assert_eq!((server.asked().len(), entries(root.path())), (1, 1));
    // Nothing sends now, and still it is not lost.
    send(&outbox, self::hook(&server.url("/second"), &[])).await;
    drop((spool, outbox));

    let (_spool, outbox, deliveries) = open(root.path());
    drop(outbox);
    deliveries.run(CancellationToken::new()).await;
    let asked = server.asked();
    assert_eq!((asked.len(), entries(root.path())), (3, 0));
    let again = asked[1..].iter().find(|request| request.target == "/").unwrap();
    assert_eq!((again.header("webhook-id"), again.header("x-own"), again.body.as_slice()), (hook.id(), "kept", BODY));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_not_sent() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| status("200 OK")).await;
    let (spool, outbox, deliveries) = open(root.path());
    drop(deliveries);
    send(&outbox, hook(&server.url("/"), &[])).await;
    drop((spool, outbox));
    let (_spool, outbox, deliveries) = open_at(root.path(), "127.0.0.1/32", NOW + Duration::from_hours(24));
    drop(outbox);
    deliveries.run(CancellationToken::new()).await;
    assert_eq!((server.asked().len(), entries(root.path())), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn private_addresses_are_not_called_and_not_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let secret = Server::start(|_, _| status("200 OK")).await;
    let port = secret.address.port();
    let target = format!("http://127.0.0.2:{port}/");
    let public = Server::start(move |_, _| moved("307", &target)).await;
    for url in [public.url("/"), "not a url".into(), "file:///etc/passwd".into(), format!("http://[::1]:{port}/")] {
        let took = deliver(root.path(), hook(&url, &[])).await;
        assert_eq!((took, entries(root.path())), (Duration::ZERO, 0), "{url}");
    }
    assert_eq!((public.asked().len(), secret.asked().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_redirect_keeps_the_body_and_does_not_take_own_headers_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let there = Server::start(|_, _| status("200 OK")).await;
    let target = there.url("/there");
    let here =
        Server::start(move |number, _| if number == 0 { moved("301", "/near") } else { moved("308", &target) }).await;
    deliver(root.path(), hook(&here.url("/"), &[("Authorization", "Bearer k")])).await;
    let (here, there) = (here.asked(), there.asked());
    assert_eq!((here[1].target.as_str(), here[1].header("authorization")), ("/near", "Bearer k"));
    assert_eq!((there[0].method.as_str(), there[0].body.as_slice()), ("POST", BODY));
    assert_eq!((there[0].header("authorization"), there[0].header("content-type")), ("", "application/json"));
    assert_eq!(there[0].header("webhook-signature"), here[0].header("webhook-signature"));
}

/// As Google Apps Script does: the script has run, and what it leads to takes GET alone.
#[tokio::test(start_paused = true)]
async fn a_redirect_to_the_answer_is_followed_by_get_and_the_webhook_is_told_once() {
    for code in ["302", "303"] {
        let root = tempfile::tempdir().unwrap();
        let server = Server::start(move |number, request| match (number, request.method.as_str()) {
            (0, _) => moved(code, "/answer"),
            (_, "GET") => status("200 OK"),
            _ => status("405 Method Not Allowed"),
        })
        .await;
        deliver(root.path(), hook(&server.url("/"), &[("Authorization", "Bearer k")])).await;
        let asked = server.asked();
        let brief: Vec<_> = asked.iter().map(|asked| (asked.method.as_str(), asked.body.len())).collect();
        assert_eq!(brief, [("POST", BODY.len()), ("GET", 0)], "{code}");
        assert_eq!((asked[1].header("authorization"), asked[1].header("content-type")), ("Bearer k", ""));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_does_not_hold_up_others_however_much_it_is_to_be_told() {
    let root = tempfile::tempdir().unwrap();
    let slow = Server::start(|_, _| Answer::Silence).await;
    let server = Server::start(|_, _| status("200 OK")).await;
    let (_spool, outbox, deliveries) = open(root.path());
    let start = Instant::now();
    for _ in 0..40 {
        send(&outbox, hook(&slow.url("/slow"), &[])).await;
    }
    send(&outbox, hook(&server.url("/quick"), &[])).await;
    let quick = async {
        while server.asked().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        drop(outbox);
    };
    tokio::join!(deliveries.run(CancellationToken::new()), quick);
    assert_eq!(entries(root.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn when_it_is_enough_what_was_handed_over_is_sent() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(|number, _| status(if number == 0 { "500 Oh" } else { "200 OK" })).await;
    let (_spool, outbox, deliveries) = open(root.path());
    let (first, late) = (hook(&server.url("/first"), &[]), hook(&server.url("/late"), &[]));
    send(&outbox, first).await;
    let enough = CancellationToken::new();
    enough.cancel();
    deliveries.run(enough).await;
    assert_eq!((server.asked().len(), entries(root.path())), (2, 0));
    send(&outbox, late).await;
    assert_eq!((server.asked().len(), entries(root.path())), (2, 1), "it is for the next process");
}
