//! A server that is killed, was away, or is full.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::super::StoreEvent;
use super::super::super::contract::{EP, at, claim_request, end, ids, job, output, submit};
use super::super::super::redis_server::Server;
use super::super::*;
use super::why;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_kill() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = Arc::new(RedisStore::on(&server).await);
    submit(&*store, &["a", "b"]).await;
    let taken = store.take(EP, claim_request("w", 2, 1)).await.unwrap().0;
    store.change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    let mut submits = JoinSet::new();
    for row in 0..4 {
        let store = store.clone();
        submits.spawn(async move {
            let mut answered = Vec::new();
            for number in 0.. {
                let id = format!("j{row}-{number}");
                if store.submit(EP, job(&id, false, at(3))).await.is_err() {
                    break;
                }
                answered.push(id);
            }
            answered
        });
    }
    while store.counts(EP).await.unwrap().in_queue < 200 {}
    server.kill();
    let answered: Vec<String> = submits.join_all().await.into_iter().flatten().collect();
    server.start_again();
    assert!(answered.len() >= 200);
    for id in &answered {
        assert!(store.read(EP, id).await.unwrap().is_some(), "{id} was answered");
    }
    let line: BTreeSet<String> = store.ids_in_state(EP, JobState::InQueue).await.unwrap().into_iter().collect();
    assert!(answered.iter().all(|id| line.contains(id)));
    assert_eq!(store.payload(EP, "a", PayloadKind::Output).await.unwrap().unwrap(), "[1]");
    assert_eq!(store.read(EP, "b").await.unwrap().as_ref(), Some(&taken[1].record));
    assert_eq!(store.held_by(EP, "w").await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_redis_that_was_away_is_used_again_and_who_waits_looks_again() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = RedisStore::on(&server).await;
    submit(&store, &["a"]).await;
    let mut events = store.subscribe();
    server.kill();
    let error = why(store.submit(EP, job("b", false, at(1))).await);
    assert!(error.starts_with(&format!("Redis at 127.0.0.1:{}/0: ", server.port())), "{error}");
    assert!(!why(store.take(EP, claim_request("w", 1, 1)).await).is_empty());
    server.start_again();
    assert_eq!(ids(&store.take(EP, claim_request("w", 1, 1)).await.unwrap().0), ["a"]);
    let heard = timeout(Duration::from_secs(5), events.next()).await.unwrap();
    assert_eq!(heard, Some(StoreEvent::Lagged));
    submit(&store, &["c"]).await;
    while events.next().await != Some(StoreEvent::JobQueued(EP.into())) {}
}

/// As when Redis starts again and whoever makes its users comes a moment later, or when it has no place for a connection for a while.
#[tokio::test]
async fn a_redis_that_refused_the_connection_for_a_while_is_used_again() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let root = RedisStore::on(&server).await;
    let make = async || {
        let mut user = pipe();
        user.cmd("ACL").arg(&["SETUSER", "me", "on", ">word", "~latentd:*", "&latentd:*", "+@all", "-@dangerous"]);
        root.connection.ask::<()>(user.ignore()).await.unwrap();
    };
    make().await;
    let url = format!("redis://me:word@127.0.0.1:{}", server.port());
    let store = RedisStore::open(&url, Rules::default()).await.unwrap();
    submit(&store, &["a"]).await;
    server.kill();
    server.start_again();
    for _ in 0..3 {
        let error = why(store.submit(EP, job("b", false, at(1))).await);
        assert!(error.contains("WRONGPASS") || error.contains("Password authentication failed"), "{error}");
        assert!(store.ready().await.is_err());
    }
    make().await;
    // A look for it has just failed.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store.submit(EP, job("b", false, at(1))).await.unwrap();
    store.ready().await.unwrap();
    assert_eq!(ids(&store.take(EP, claim_request("w", 9, 1)).await.unwrap().0), ["a", "b"]);
}

#[tokio::test]
async fn a_full_memory_refuses_jobs_and_keeps_results() {
    let server = Server::start(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let store = RedisStore::on(&server).await;
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w", 1, 1)).await.unwrap();
    let large = |id: &str| {
        let mut job = job(id, false, at(1));
        job.input = serde_json::value::to_raw_value(&"x".repeat(1 << 20)).unwrap();
        job
    };
    let mut number = 0;
    let error = loop {
        match store.submit(EP, large(&format!("l{number}"))).await {
            Ok(()) => number += 1,
            refused => break why(refused),
        }
    };
    assert!(number > 2 && error.contains("its memory is full"), "{number}: {error}");
    assert!(store.read(EP, &format!("l{number}")).await.unwrap().is_none());
    // What is in hand is finished, and what waits is taken.
    let result = Bytes::from("1".repeat(1 << 20));
    let parts = vec![(PayloadKind::Output, result.clone())];
    store.change(EP, "a", end("w", true, 2), parts, None).await.unwrap();
    assert_eq!(store.payload(EP, "a", PayloadKind::Output).await.unwrap(), Some(result));
    assert_eq!(ids(&store.take(EP, claim_request("w", 2, 2)).await.unwrap().0), ["b", "l0"]);
    assert!(!why(store.submit(EP, large("m")).await).is_empty());
    // What is over makes room.
    let later = at(25 * 3600);
    while let [(_, id), ..] = &store.due(later, 9).await.unwrap()[..] {
        let tick = move |record: &mut Record| record.tick(&Rules::default(), later);
        store.change(EP, id, tick, Vec::new(), None).await.unwrap();
    }
    store.submit(EP, large("m")).await.unwrap();
}

#[tokio::test]
async fn the_clock_of_redis_says_how_long_no_gateway_was_there() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    assert_eq!(store.sync_clock(Some(at(100)), at(5)).await, Ok(at(100)));
    let (by_redis,): (u64,) = store.connection.ask(pipe().hget(keys::time(), "at")).await.unwrap();
    // As if that had been half an hour ago; then, as if the clock had been set back since.
    for (ago, least, most) in [(1_800_000, 1900, 1960), (-1_800_000, 1900, 1960)] {
        let then = by_redis.checked_sub_signed(ago).unwrap();
        store.connection.ask::<()>(pipe().hset(keys::time(), "at", then).ignore()).await.unwrap();
        let begun = store.sync_clock(None, at(7)).await.unwrap();
        assert!(begun >= at(least) && begun < at(most), "{ago}: {begun:?}");
    }
}
