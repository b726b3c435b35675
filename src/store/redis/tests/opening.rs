//! What a gateway finds when it begins: other versions, passwords, silence.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::super::super::contract::{EP, claim_request, end, output, submit};
use super::super::super::redis_server::Server;
use super::super::*;
use super::{folder, why};

#[tokio::test]
async fn jobs_of_the_version_before_are_taken_and_go_on() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    let _: () = store.connection.ask(pipe().set(keys::format(), 1).ignore()).await.unwrap();
    submit(&store, &["a"]).await;
    let taken = store.take(EP, claim_request("w", 1, 1)).await.unwrap().0;
    // As it was written then: a record that says so itself.
    let record = serde_json::to_string(&taken[0].record).unwrap();
    let mut ask = pipe();
    ask.hset(EndpointKeys(EP).job("a"), "r", record).ignore().hdel(EndpointKeys(EP).job("a"), CLAIM_FIELD).ignore();
    let _: () = store.connection.ask(&ask).await.unwrap();
    let store = RedisStore::on(&server).await;
    assert_eq!(store.read(EP, "a").await.unwrap().as_ref(), Some(&taken[0].record));
    store.change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    assert_eq!(store.counts(EP).await.unwrap().completed, 1);
    let (format,): (u32,) = store.connection.ask(pipe().get(keys::format())).await.unwrap();
    assert_eq!(format, STORE_VERSION, "one that knows no claims keeps away");
}

#[tokio::test]
async fn jobs_of_a_newer_latentd_are_left_alone() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    let _: () = store.connection.ask(pipe().set(keys::format(), 99).ignore()).await.unwrap();
    assert!(why(RedisStore::open(&server.url(), Rules::default()).await).contains("newer latentd"));
}

#[tokio::test]
async fn no_password_is_told() {
    let server = Server::start(&["--requirepass", "s3cret"]);
    let at = format!("127.0.0.1:{}", server.port());
    for url in [format!("redis://:s3cre@{at}"), format!("redis://{at}"), format!("redis://me:s3cret@{at}")] {
        let error = why(RedisStore::open(&url, Rules::default()).await);
        assert!(error.contains(&at) && !error.contains("s3cre"), "{error}");
    }
    let error = why(RedisStore::open("redis://:s3cret@[:x", Rules::default()).await);
    assert!(error.contains("redis://[user") && !error.contains("s3cret"), "{error}");
    let store = RedisStore::open(&format!("redis://:s3cret@{at}/1"), Rules::default()).await.unwrap();
    assert!(!format!("{store:?}").contains("s3cret"));
    submit(&store, &["a"]).await;
}

#[tokio::test]
async fn who_is_silent_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let opened = timeout(Duration::from_secs(8), RedisStore::open(&url, Rules::default())).await;
    assert!(!why(opened.unwrap()).is_empty());
}

#[tokio::test]
async fn a_user_who_may_not_ask_info_will_do_and_so_will_a_socket() {
    let server = Server::start(&["--unixsocket", "redis.sock"]);
    let store = RedisStore::on(&server).await;
    let (folder, mut user) = (folder(&store).await, pipe());
    user.cmd("ACL").arg(&["SETUSER", "me", "on", ">p@ss/w:rd", "~latentd:*", "&latentd:*", "+@all", "-@dangerous"]);
    store.connection.ask::<()>(user.ignore()).await.unwrap();
    let url = format!("valkey://me:p%40ss%2Fw%3Ard@127.0.0.1:{}", server.port());
    let store = RedisStore::open(&url, Rules::default()).await.unwrap();
    submit(&store, &["a", "b"]).await;
    store.ready().await.unwrap();
    store.sync_clock(None, UnixTime::EPOCH).await.unwrap();
    store.take(EP, claim_request("w", 1, 1)).await.unwrap();
    store.change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    let url = format!("redis+unix://{}?user=me&pass=p%40ss%2Fw%3Ard", folder.join("redis.sock").display());
    let store = RedisStore::open(&url, Rules::default()).await.unwrap();
    assert_eq!(store.counts(EP).await.unwrap().completed, 1);
    store.take(EP, claim_request("w", 1, 1)).await.unwrap();
    let mut user = pipe();
    user.cmd("ACL").arg(&["SETUSER", "me", "-eval", "-evalsha"]);
    RedisStore::on(&server).await.connection.ask::<()>(user.ignore()).await.unwrap();
    let error = why(store.ready().await);
    assert!(error.contains("NOPERM") || error.contains("no permissions"), "without scripts it is of no use: {error}");
}
