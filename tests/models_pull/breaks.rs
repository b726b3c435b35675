//! Connections that break, hosts that forget, files that are not what they should be: what came is used if it can be, and never else.

use std::fs;
use std::path::{Path, PathBuf};

use latentd::models::{Order, PullError, Seen};

use crate::models_pull::hub::{
    UNET, assert_whole, behaved, broken, count, file, part, pull_order, pull_small, sha256, weights,
};
use crate::models_pull::server::{Answer, Request, Server, Then, announced, moved, said};

/// Where the bytes of the UNet are on their way.
fn unet_part(models: &Path) -> PathBuf {
    models.join(".pull-small").join(format!("{UNET}.part"))
}

/// What an earlier process left of the UNet.
fn leave(models: &Path, bytes: &[u8], identity: &str, tag: &str) {
    let part = unet_part(models);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, bytes).unwrap();
    fs::write(part.with_extension("from"), format!("{identity}\n{tag}\n")).unwrap();
}

fn identity() -> String {
    format!("sha256:{}", sha256(&file(UNET)))
}

/// A hub that behaves but for the UNet, whose request number n is answered with `answer(n, request)`.
async fn hub_but(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Server {
    let answer = move |number, request: &Request| {
        if is_unet(request) { answer(number, request) } else { behaved(request) }
    };
    Server::start(answer).await
}

fn is_unet(request: &Request) -> bool {
    request.target.ends_with(UNET)
}

fn again(seen: &[Seen]) -> Vec<&str> {
    let causes = seen.iter().filter_map(|seen| if let Seen::Again(cause) = seen { Some(cause.as_str()) } else { None });
    causes.collect()
}

#[tokio::test]
async fn a_file_goes_on_where_its_connection_was_cut() {
    let server = hub_but(|number, request| match number {
        0..3 => broken(&file(UNET), "t", request.from(), 20_000 * (number + 1)),
        _ => behaved(request),
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    outcome.ended.unwrap();
    assert_whole(models.path(), "small");
    let asked = server.asked_for(UNET);
    let ranges: Vec<(&str, &str)> =
        asked.iter().map(|asked| (asked.header("range"), asked.header("if-range"))).collect();
    let tag = "\"t\"";
    assert_eq!(ranges[..3], [("", ""), ("bytes=20000-", tag), ("bytes=40000-", tag)]);
    // The fourth answer has another tag, so that it is not taken for the rest; the fifth is the whole file.
    assert_eq!(ranges[3..], [("bytes=60000-", tag), ("", "")]);
    assert_eq!(again(&outcome.seen).len(), 4);
}

#[tokio::test]
async fn a_host_without_ranges_begins_from_nothing() {
    let server = hub_but(|number, _| match number {
        0 => announced("200 OK", "", file(UNET).len(), &file(UNET)[..70_000], Then::Close),
        _ => said("200 OK", "", &file(UNET)),
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert_eq!(server.asked_for(UNET)[1].header("range"), "bytes=70000-");
}

#[tokio::test]
async fn what_another_process_left_is_gone_on_with() {
    let (server, models) = (Server::start(|_, request| behaved(request)).await, tempfile::tempdir().unwrap());
    leave(models.path(), &file(UNET)[..90_000], &identity(), &format!("\"{UNET}\""));
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    let asked = server.asked_for(UNET);
    assert_eq!((asked.len(), asked[0].header("range")), (1, "bytes=90000-"));
}

#[tokio::test]
async fn what_was_left_whole_is_not_fetched_again() {
    let (server, models) = (Server::start(|_, request| behaved(request)).await, tempfile::tempdir().unwrap());
    leave(models.path(), &file(UNET), &identity(), "");
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert_eq!(server.asked_for(UNET), []);
}

#[tokio::test]
async fn what_was_left_of_another_file_is_not_used() {
    let (server, models) = (Server::start(|_, request| behaved(request)).await, tempfile::tempdir().unwrap());
    leave(models.path(), &vec![7; 90_000], "sha256:of another revision", "\"t\"");
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert_eq!(server.asked_for(UNET)[0].header("range"), "");
}

#[tokio::test]
async fn what_is_longer_than_the_file_is_removed() {
    let (server, models) = (Server::start(|_, request| behaved(request)).await, tempfile::tempdir().unwrap());
    leave(models.path(), &vec![7; 200_000], &identity(), "");
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(matches!(outcome.ended, Err(PullError::Size { .. })), "{:?}", outcome.ended);
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
}

#[tokio::test]
async fn a_part_that_the_host_does_not_have_is_fetched_again() {
    let server = hub_but(|number, request| match number {
        0 => said("416 Range Not Satisfiable", "", b""),
        _ => behaved(request),
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    leave(models.path(), &file(UNET)[..90_000], &identity(), "");
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
}

#[tokio::test]
async fn a_pull_that_was_cut_short_keeps_what_came() {
    let server = hub_but(|_, request| broken(&file(UNET), "t", request.from(), 60_000));
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(outcome.fault().contains(UNET) && outcome.fault().contains("5 tries in a row"), "{}", outcome.fault());
    assert_eq!(server.asked_for(UNET).len(), 6, "one brought something, five nothing more");
    assert_eq!(fs::metadata(unet_part(models.path())).unwrap().len(), 60_000);
    let names: Vec<_> = fs::read_dir(models.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".pull-small"], "nothing that could be taken for a model");
    let better = hub_but(|_, request| part(&file(UNET), "t", request.from()));
    let better = better.await;
    pull_small(&better.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    let asked: Vec<String> = better.asked().into_iter().map(|request| request.header("range").to_owned()).collect();
    assert_eq!(asked.iter().filter(|range| !range.is_empty()).count(), 1);
    assert!(asked.contains(&"bytes=60000-".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn a_future_that_is_dropped_keeps_what_came() {
    let server = hub_but(|number, request| match number {
        0 => announced("200 OK", "", file(UNET).len(), &file(UNET)[..50_000], Then::Silence),
        _ => behaved(request),
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let endpoint = server.url("");
    let there = async {
        while fs::metadata(unet_part(models.path())).map_or(0, |file| file.len()) < 50_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = pull_small(&endpoint, models.path()) => panic!("{:?}", outcome.ended),
        () = there => {}
    }
    tokio::time::resume();
    pull_small(&endpoint, models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert_eq!(server.asked_for(UNET)[1].header("range"), "bytes=50000-");
}

#[tokio::test]
async fn silence_has_an_end_and_slowness_has_none() {
    let slow = 80;
    let server = Server::start(move |number, request| {
        let bytes = file(UNET);
        let (fast, rest) = bytes.split_at(bytes.len() - slow);
        match (is_unet(request), number) {
            (true, 0) => announced("200 OK", "", bytes.len(), &fast[..30_000], Then::Silence),
            (true, _) => announced("200 OK", "", bytes.len(), fast, Then::Drip(rest.to_vec())),
            _ => behaved(request),
        }
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    outcome.ended.unwrap();
    assert_whole(models.path(), "small");
    let causes = again(&outcome.seen);
    assert!(causes.len() == 1 && causes[0].contains("nothing came for 60 s"), "{causes:?}");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_published_is_removed() {
    let server = hub_but(|_, request| part(&weights(100_000, 9), "t", request.from()));
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(matches!(outcome.ended, Err(PullError::Hash { .. })), "{:?}", outcome.ended);
    let said = outcome.fault();
    assert!(said.contains(UNET) && said.contains(&sha256(&file(UNET))) && said.contains("removed"), "{said}");
    assert!(!unet_part(models.path()).exists());
    let better = Server::start(|_, request| behaved(request)).await;
    pull_small(&better.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
}

#[tokio::test]
async fn a_file_of_another_size_is_refused_before_it_is_read() {
    for bytes in [weights(99_999, 2), weights(100_001, 2)] {
        let answer = bytes.clone();
        let server = hub_but(move |_, request| part(&answer, "t", request.from()));
        let (server, models) = (server.await, tempfile::tempdir().unwrap());
        let outcome = pull_small(&server.url(""), models.path()).await;
        let said = outcome.fault();
        assert!(matches!(outcome.ended, Err(PullError::Size { .. })), "{said}");
        assert!(said.contains(&bytes.len().to_string()) && said.contains(&file(UNET).len().to_string()), "{said}");
        assert!(!unet_part(models.path()).exists());
    }
}

#[tokio::test]
async fn a_file_without_an_end_is_ended() {
    let server = hub_but(|_, _| {
        ([&b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"[..], &vec![1; 200_000]].concat(), Then::Close)
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(matches!(outcome.ended, Err(PullError::Size { .. })), "{:?}", outcome.ended);
}

#[tokio::test]
async fn a_disk_that_is_full_is_told_and_nothing_is_lost() {
    let (server, models) = (Server::start(|_, request| behaved(request)).await, tempfile::tempdir().unwrap());
    let part = unet_part(models.path());
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    // Every write to this device fails as one to a full disk does.
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(matches!(outcome.ended, Err(PullError::Full { .. })), "{:?}", outcome.ended);
    assert!(
        outcome.fault().contains("the disk is full") && outcome.fault().contains("are free there"),
        "{}",
        outcome.fault()
    );
    fs::remove_file(&part).unwrap();
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert_eq!(server.asked_for("unet/config.json").len(), 1, "what had come was kept");
}

#[tokio::test]
async fn a_disk_without_room_is_told_before_anything_is_fetched() {
    let server = Server::start(|_, request| {
        let mut listing = crate::models_pull::hub::listing(&crate::models_pull::hub::files());
        for sibling in listing["siblings"].as_array_mut().unwrap() {
            if sibling["rfilename"] == UNET {
                sibling["lfs"]["size"] = (1_u64 << 60).into();
            }
        }
        if request.target.starts_with("/api/") {
            said("200 OK", "", listing.to_string().as_bytes())
        } else {
            behaved(request)
        }
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    let said = outcome.fault();
    assert!(said.contains("1073741824.0 GiB are needed") && said.contains("are free"), "{said}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_larger_than_any_of_its_kind_is_not_fetched() {
    let server = Server::start(|_, request| {
        let mut listing = crate::models_pull::hub::listing(&crate::models_pull::hub::files());
        for sibling in listing["siblings"].as_array_mut().unwrap() {
            if sibling["rfilename"] == "unet/config.json" {
                sibling["size"] = ((64 << 20) + 1).into();
            }
        }
        if request.target.starts_with("/api/") {
            said("200 OK", "", listing.to_string().as_bytes())
        } else {
            behaved(request)
        }
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(matches!(outcome.ended, Err(PullError::Implausible { .. })), "{:?}", outcome.ended);
    assert_eq!(server.asked_for("unet/config.json").len(), 0);
}

#[tokio::test]
async fn a_url_is_gone_on_with_by_its_host_s_tag() {
    let bytes = weights(50_000, 4);
    let answer = bytes.clone();
    let server = Server::start(move |number, request| match number {
        // The first is asked how large it is.
        0 => part(&answer, "v1", 0),
        1 => broken(&answer, "v1", request.from(), 20_000),
        _ => part(&answer, "v1", request.from()),
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let order = Order { what: server.url("/a.safetensors"), ..Order::default() };
    pull_order(&server.url(""), models.path(), None, order).await.ended.unwrap();
    assert_eq!(fs::read(models.path().join("a/a.safetensors")).unwrap(), bytes);
    let last = server.asked().pop().unwrap();
    assert_eq!((last.header("range"), last.header("if-range")), ("bytes=20000-", "\"v1\""));
}

#[tokio::test]
async fn a_hub_in_trouble_is_asked_again() {
    let server = Server::start(|number, request| {
        let api = request.target.starts_with("/api/");
        if number < if api { 2 } else { 1 } { said("503 Service Unavailable", "", b"") } else { behaved(request) }
    });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert_eq!(server.asked_for("?blobs=true").len(), 3);
}

#[tokio::test]
async fn redirects_have_an_end() {
    let server = Server::start(|_, request| if is_unet(request) { moved(&request.target) } else { behaved(request) });
    let (server, models) = (server.await, tempfile::tempdir().unwrap());
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(outcome.fault().contains("more than 10 redirects"), "{}", outcome.fault());
    assert_eq!(server.asked_for(UNET).len(), 11);
    assert!(count(models.path()) > 0);
}
