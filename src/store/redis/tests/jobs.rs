//! What several gateways do to the same jobs, and what is left of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::super::StoreEvent;
use super::super::super::contract::{EP, at, claim_request, end, ids, job, output, submit};
use super::super::super::redis_server::Server;
use super::super::*;

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
                let handed = store.take(EP, claim_request(&format!("w{number}"), 1 + number % 3, 1)).await.unwrap().0;
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
    stores[1].take(EP, claim_request("w", 1, 1)).await.unwrap();
    let mut changes = JoinSet::new();
    for (number, store) in stores.iter().cycle().take(60).cloned().enumerate() {
        let chunk = Some(Bytes::from(format!("{number:02}")));
        changes.spawn(async move {
            store.change(EP, "a", |record: &mut Record| record.part("w"), Vec::new(), chunk).await.unwrap();
        });
    }
    changes.join_all().await;
    let (chunks, next) = stores[0].take_chunks(EP, "a", 1000).await.unwrap();
    assert_eq!((chunks.into_iter().collect::<BTreeSet<_>>().len(), next), (60, None));
}

#[tokio::test]
async fn who_asks_again_because_the_answer_was_lost_is_heard_once() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    let (keys, new) = (EndpointKeys(EP), job("a", false, at(0)));
    let entry = store.entry(keys, &new).unwrap();
    for _ in 0..2 {
        assert_eq!(store.connection.run::<u8>(&entry).await.unwrap(), 0);
    }
    assert_eq!(store.submit(EP, new).await, Err(StoreError::Duplicate), "of somebody else");
    store.take(EP, claim_request("w", 1, 1)).await.unwrap();
    let seen = store.seen(keys, "a").await.unwrap().unwrap();
    let (mut after, chunk) = (seen.record.clone(), Bytes::from("1"));
    let transition = after.part("w");
    let effects = effects(EP, &seen.record, &after, &transition);
    let change = JobChange {
        after: &after,
        transition: &transition,
        effects: &effects,
        place: None,
        parts: &[],
        chunk: Some(&chunk),
    };
    let write = JobWrite::change(keys, &store.rules, &seen, &change).unwrap();
    for _ in 0..2 {
        assert!(store.connection.run::<bool>(&write.by(&store.write)).await.unwrap());
    }
    assert_eq!(store.take_chunks(EP, "a", 9).await.unwrap(), (vec![chunk], None));
}

#[tokio::test]
async fn a_line_of_jobs_that_have_expired_is_in_nobody_s_way() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    for number in 0..1100 {
        let mut short = job(&format!("j{number:04}"), false, at(0));
        short.record.expires = at(if number % 550 == 549 { 100 } else { 10 });
        store.submit(EP, short).await.unwrap();
    }
    assert_eq!(ids(&store.take(EP, claim_request("w", 3, 10)).await.unwrap().0), ["j0549", "j1099"]);
    assert_eq!(store.counts(EP).await.unwrap(), Counts { in_queue: 1098, in_progress: 2, ..Counts::default() });
}

#[tokio::test]
async fn news_reach_other_gateways() {
    let server = Server::start(&[]);
    let (one, other) = (RedisStore::on(&server).await, RedisStore::on(&server).await);
    let mut events = other.subscribe();
    submit(&one, &["a"]).await;
    let heard = timeout(Duration::from_secs(5), events.next()).await.unwrap();
    assert_eq!(heard, Some(StoreEvent::JobQueued(EP.into())));
    assert_eq!(ids(&other.take(EP, claim_request("w", 1, 1)).await.unwrap().0), ["a"]);
}

#[tokio::test]
async fn jobs_that_are_over_leave_nothing_behind() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    submit(&store, &["a", "b", "low-c", "d"]).await;
    store.take(EP, claim_request("w", 2, 1)).await.unwrap();
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
    assert_eq!(store.take_stops(EP, "w").await.unwrap(), ["b"], "it had not ended");
    assert_eq!((store.next_due().await.unwrap(), store.size().await), (None, 3), "counters, endpoints, format");
    assert_eq!(store.counts(EP).await.unwrap().completed, 1);
}
