//! What is Redis' own: several gateways, restarts, a memory that is full. What all stores do, `contract` has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::News;
use super::super::contract::{EP, at, end, ids, job, output, submit, taker};
use super::super::redis_server::Server;
use super::*;

impl RedisStore {
    /// On a server of a test's own.
    pub(in super::super) async fn on(server: &Server) -> Self {
        Self::open(&server.url(), Rules::default()).await.unwrap()
    }

    /// With rules of its own.
    pub(in super::super) async fn by(rules: Rules, server: &Server) -> Self {
        Self::open(&server.url(), rules).await.unwrap()
    }

    /// How many keys there are.
    async fn size(&self) -> usize {
        let (size,): (usize,) = self.link.ask(pipe().cmd("DBSIZE")).await.unwrap();
        size
    }

    /// Forgets everything.
    pub(in super::super) async fn erase(&self) {
        let _: () = self.link.ask(pipe().cmd("FLUSHALL").ignore()).await.unwrap();
    }
}

/// The error of a store that fails.
fn why<T: std::fmt::Debug>(done: Result<T, StoreError>) -> String {
    match done {
        Err(StoreError::Failed(why) | StoreError::Full(why)) => why,
        done => panic!("{done:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_take_at_once_hand_out_each_job_once_and_in_order() {
    let server = Server::start(&[]);
    let stores = [Arc::new(RedisStore::on(&server).await), Arc::new(RedisStore::on(&server).await)];
    let names: Vec<String> = (0..500).map(|number| format!("j{number:03}")).collect();
    for name in &names {
        submit(&*stores[0], &[name]).await;
    }
    let mut takers = JoinSet::new();
    for (number, store) in stores.iter().cycle().take(12).cloned().enumerate() {
        takers.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let handed = store.take(EP, taker(&format!("w{number}"), 1 + number % 3, 1)).await.unwrap();
                if handed.is_empty() {
                    return taken;
                }
                assert!(handed.iter().all(|handed| handed.record.holder() == Some(&format!("w{number}"))));
                taken.extend(ids(&handed).into_iter().map(str::to_owned));
            }
        });
    }
    let all = takers.join_all().await;
    assert!(all.iter().all(|taken| taken.is_sorted() && taken.len() > 10), "in order, and everybody has some");
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    all.sort();
    assert_eq!(all, names);
    assert_eq!(stores[1].counts(EP).await.unwrap(), Counts { in_progress: 500, ..Counts::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_at_once_none_is_lost() {
    let server = Server::start(&[]);
    let stores = [Arc::new(RedisStore::on(&server).await), Arc::new(RedisStore::on(&server).await)];
    submit(&*stores[0], &["a"]).await;
    stores[1].take(EP, taker("w", 1, 1)).await.unwrap();
    let mut changes = JoinSet::new();
    for (number, store) in stores.iter().cycle().take(60).cloned().enumerate() {
        let chunk = Some(Bytes::from(format!("{number:02}")));
        changes.spawn(async move {
            store.change(EP, "a", |record: &mut Record| record.part("w"), Vec::new(), chunk).await.unwrap();
        });
    }
    changes.join_all().await;
    let (chunks, more) = stores[0].drain(EP, "a", 1000).await.unwrap();
    assert_eq!((chunks.into_iter().collect::<BTreeSet<_>>().len(), more), (60, false));
}

#[tokio::test]
async fn who_asks_again_because_the_answer_was_lost_is_heard_once() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    let (keys, new) = (Keys(EP), job("a", false, at(0)));
    let write = [Write::submit(keys, &store.rules, &new, 1).unwrap()];
    for _ in 0..2 {
        let done: Vec<(usize, u64)> = store.link.run(&invocation(&store.submit, keys, 1, &write)).await.unwrap();
        assert_eq!(done.len(), 1);
    }
    assert_eq!(store.submit(EP, new).await, Err(StoreError::Taken), "of somebody else");
    store.take(EP, taker("w", 1, 1)).await.unwrap();
    let seen = store.seen(keys, "a").await.unwrap().unwrap();
    let (mut after, chunk) = (seen.record.clone(), Bytes::from("1"));
    let turn = after.part("w");
    let outcome = outcome(EP, &seen.record, &after, &turn);
    let change = Change { after: &after, turn: &turn, outcome: &outcome, place: None, parts: &[], chunk: Some(&chunk) };
    let write = [Write::change(keys, &store.rules, &seen, &change).unwrap()];
    for _ in 0..2 {
        let done: Vec<(usize, u64)> = store.link.run(&invocation(&store.write, keys, 1, &write)).await.unwrap();
        assert_eq!(done.len(), 1);
    }
    assert_eq!(store.drain(EP, "a", 9).await.unwrap(), (vec![chunk], false));
}

#[tokio::test]
async fn news_reach_other_gateways() {
    let server = Server::start(&[]);
    let (one, other) = (RedisStore::on(&server).await, RedisStore::on(&server).await);
    let mut news = other.news();
    submit(&one, &["a"]).await;
    let heard = timeout(Duration::from_secs(5), news.next()).await.unwrap();
    assert_eq!(heard, Some(News::Waiting(EP.into())));
    assert_eq!(ids(&other.take(EP, taker("w", 1, 1)).await.unwrap()), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_kill() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = Arc::new(RedisStore::on(&server).await);
    submit(&*store, &["a", "b"]).await;
    let taken = store.take(EP, taker("w", 2, 1)).await.unwrap();
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
    let line: BTreeSet<String> = store.all(EP, State::InQueue).await.unwrap().into_iter().collect();
    assert!(answered.iter().all(|id| line.contains(id)));
    assert_eq!(store.payload(EP, "a", Part::Output).await.unwrap().unwrap(), "[1]");
    assert_eq!(store.read(EP, "b").await.unwrap().as_ref(), Some(&taken[1].record));
    assert_eq!(store.held(EP, "w").await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_redis_that_was_away_is_used_again_and_who_waits_looks_again() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = RedisStore::on(&server).await;
    submit(&store, &["a"]).await;
    let mut news = store.news();
    server.kill();
    let error = why(store.submit(EP, job("b", false, at(1))).await);
    assert!(error.starts_with(&format!("Redis at 127.0.0.1:{}/0: ", server.port())), "{error}");
    assert!(!why(store.take(EP, taker("w", 1, 1)).await).is_empty());
    server.start_again();
    assert_eq!(ids(&store.take(EP, taker("w", 1, 1)).await.unwrap()), ["a"]);
    let heard = timeout(Duration::from_secs(5), news.next()).await.unwrap();
    assert_eq!(heard, Some(News::Much));
    submit(&store, &["c"]).await;
    while news.next().await != Some(News::Waiting(EP.into())) {}
}

#[tokio::test]
async fn a_full_memory_refuses_jobs_and_keeps_results() {
    let server = Server::start(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let store = RedisStore::on(&server).await;
    submit(&store, &["a", "b"]).await;
    store.take(EP, taker("w", 1, 1)).await.unwrap();
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
    let parts = vec![(Part::Output, result.clone())];
    store.change(EP, "a", end("w", true, 2), parts, None).await.unwrap();
    assert_eq!(store.payload(EP, "a", Part::Output).await.unwrap(), Some(result));
    assert_eq!(ids(&store.take(EP, taker("w", 2, 2)).await.unwrap()), ["b", "l0"]);
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
async fn jobs_that_are_over_leave_nothing_behind() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    submit(&store, &["a", "b", "low-c", "d"]).await;
    store.take(EP, taker("w", 2, 1)).await.unwrap();
    let part = |record: &mut Record| record.part("w");
    store.change(EP, "a", part, Vec::new(), Some("1".into())).await.unwrap();
    store.change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    store.change(EP, "low-c", |record: &mut Record| record.cancel(at(2)), Vec::new(), None).await.unwrap();
    assert!(store.size().await > 8);
    let later = at(24 * 3600);
    for (_, id) in store.due(later, 9).await.unwrap() {
        let tick = move |record: &mut Record| record.tick(&Rules::default(), later);
        store.change(EP, &id, tick, Vec::new(), None).await.unwrap();
    }
    assert_eq!(store.stops(EP, "w").await.unwrap(), ["b"], "it had not ended");
    assert_eq!((store.next_due().await.unwrap(), store.size().await), (None, 3), "counters, endpoints, format");
    assert_eq!(store.counts(EP).await.unwrap().completed, 1);
}

fn asking(gateway: &str, open: u64) -> Asking {
    let hour = Duration::from_hours(1);
    Asking { asked: [7; 32], gateway: gateway.into(), open, window: hour, rate: 3, at_once: 99, silent: hour }
}

#[tokio::test]
async fn requests_are_counted_over_all_gateways() {
    let server = Server::start(&[]);
    let stores = [RedisStore::on(&server).await, RedisStore::on(&server).await];
    let mut answers = Vec::new();
    for number in 0..5 {
        answers.push(stores[number % 2].admit(asking(["a", "b"][number % 2], 0)).await.unwrap());
    }
    assert_eq!(answers, [Admitted::Yes, Admitted::Yes, Admitted::Yes, Admitted::TooOften, Admitted::TooOften]);
    assert_eq!(stores[0].admit(Asking { asked: [8; 32], ..asking("a", 0) }).await, Ok(Admitted::Yes), "another client");
    // A window slides, and what is in none is forgotten.
    let short = Asking {
        asked: [9; 32],
        window: Duration::from_millis(50),
        silent: Duration::from_millis(50),
        ..asking("a", 0)
    };
    for _ in 0..2 {
        while stores[0].admit(short.clone()).await.unwrap() == Admitted::Yes {}
    }
    while stores[1].admit(short.clone()).await.unwrap() != Admitted::Yes {}
    while stores[0].size().await > 3 {}
}

#[tokio::test]
async fn what_is_open_counts_at_all_gateways_until_it_is_closed_or_its_gateway_is_dead() {
    let server = Server::start(&[]);
    let (one, two) = (RedisStore::on(&server).await, RedisStore::on(&server).await);
    let at_most = |most: u64, asking: Asking| Asking { rate: 999, at_once: most, ..asking };
    assert_eq!(one.admit(at_most(2, asking("a", 0))).await, Ok(Admitted::Yes));
    assert_eq!(two.admit(at_most(2, asking("b", 0))).await, Ok(Admitted::Yes));
    for (store, gateway) in [(&one, "a"), (&two, "b")] {
        assert_eq!(store.admit(at_most(2, asking(gateway, 1))).await, Ok(Admitted::TooMany), "{gateway}");
    }
    one.say_open("a", vec![([7; 32], 0), ([8; 32], 5)], Duration::from_hours(1)).await.unwrap();
    assert_eq!(two.admit(at_most(2, asking("b", 1))).await, Ok(Admitted::Yes));
    // It says no more, and what it has said holds no longer.
    two.say_open("b", vec![([7; 32], 2)], Duration::from_millis(50)).await.unwrap();
    while one.admit(at_most(2, asking("a", 0))).await.unwrap() == Admitted::TooMany {}
    assert_eq!(one.admit(at_most(2, asking("a", 1))).await, Ok(Admitted::Yes), "both places are free");
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
async fn jobs_of_a_newer_latentd_are_left_alone() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    let _: () = store.link.ask(pipe().set(keys::format(), 99).ignore()).await.unwrap();
    assert!(why(RedisStore::open(&server.url(), Rules::default()).await).contains("newer latentd"));
}
