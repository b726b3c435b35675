//! Jobs that wait, and who gets them.

use super::*;

async fn jobs_are_handed_out_in_line(store: impl Store) {
    submit(&store, &["low-1", "a", "b", "c"]).await;
    assert_eq!(store.submit(EP, job("a", false, at(1))).await, Err(StoreError::Duplicate));
    assert!(store.take("another", claim_request("w", 9, 1)).await.unwrap().0.is_empty());
    let first = store.take(EP, claim_request("w1", 2, 1)).await.unwrap().0;
    assert_eq!(ids(&first), ["a", "b"]);
    assert_eq!(first[0].input, r#"{"n": "a", "big": 36893488147419103232}"#);
    assert_eq!(first[0].rest, r#"{"policy":{"lowPriority": false},"x":1}"#);
    assert_eq!(
        (first[0].record.holder(), store.held_by(EP, "w1").await.unwrap()),
        (Some("w1"), vec!["a".into(), "b".into()])
    );
    assert_eq!(store.read(EP, "a").await.unwrap().as_ref(), Some(&first[0].record));
    submit(&store, &["d"]).await;
    let lose = |record: &mut Record| record.abandon("w1", "gone", &Rules::default(), at(2));
    store.change(EP, "b", lose, Vec::new(), None).await.unwrap();
    assert_eq!(
        store.ids_in_state(EP, JobState::InQueue).await.unwrap(),
        ["b", "c", "d", "low-1"],
        "what was lost is first"
    );
    assert_eq!(ids(&store.take(EP, claim_request("w2", 9, 3)).await.unwrap().0), ["b", "c", "d", "low-1"]);
    assert_eq!(store.held_by(EP, "w1").await.unwrap(), ["a"]);
}

async fn jobs_are_handed_out_by_weight(store: impl Store) {
    let mut short = job("e", false, at(0));
    short.record.expires = at(1);
    store.submit(EP, short).await.unwrap();
    submit(&store, &["a", "b", "c", "d"]).await;
    let one = r#"{"n": "a", "big": 36893488147419103232}{"policy":{"lowPriority": false},"x":1}"#.len();
    let by_weight = |bytes| ClaimRequest { max_bytes: bytes, ..claim_request("w1", 9, 1) };
    let handed = store.take(EP, by_weight(2 * one)).await.unwrap().0;
    assert_eq!((ids(&handed), handed[0].bytes()), (vec!["a", "b"], one));
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap(), ["e", "c", "d"], "the others wait as before");
    assert_eq!(store.take(EP, by_weight(one - 1)).await.unwrap(), (Vec::new(), Some(one)), "the next weighs more");
    let (handed, large) = store.take(EP, by_weight(2 * one - 1)).await.unwrap();
    assert_eq!((ids(&handed), large), (vec!["c"], None), "the one behind is for the next take");
    assert_eq!(ids(&store.take(EP, by_weight(one)).await.unwrap().0), ["d"]);
    assert_eq!(store.take(EP, by_weight(0)).await.unwrap(), (Vec::new(), None), "none waits");
}

async fn what_has_expired_is_handed_to_nobody_and_is_in_nobody_s_way(store: impl Store) {
    let mut short = job("a", false, at(0));
    short.record.expires = at(10);
    store.submit(EP, short).await.unwrap();
    submit(&store, &["b"]).await;
    assert_eq!(ids(&store.take(EP, claim_request("w1", 1, 10)).await.unwrap().0), ["b"]);
}

async fn as_many_jobs_wait_as_may(store: impl Store) {
    let refused = Err(StoreError::QueueFull(6));
    submit(&store, &["a", "b", "low-c", "d", "e", "f"]).await;
    assert_eq!(store.submit(EP, job("g", false, at(1))).await, refused);
    assert_eq!((store.read(EP, "g").await, store.payload(EP, "g", PayloadKind::Input).await), (Ok(None), Ok(None)));
    assert_eq!(
        store.submit(EP, job("a", false, at(1))).await,
        Err(StoreError::Duplicate),
        "one that is there is no other"
    );
    store.submit("another", job("g", false, at(1))).await.unwrap();
    store.take(EP, claim_request("w1", 2, 1)).await.unwrap();
    submit(&store, &["g", "h"]).await;
    assert_eq!(store.submit(EP, job("i", false, at(1))).await, refused);
    let lose = |record: &mut Record| record.abandon("w1", "gone", &Rules::default(), at(2));
    store.change(EP, "a", lose, Vec::new(), None).await.unwrap();
    assert_eq!(store.counts(EP).await.unwrap().in_queue, 7, "who has waited before waits again");
    for (id, answer) in [("d", refused), ("e", Ok(()))] {
        store.change(EP, id, |record: &mut Record| record.cancel(at(3)), Vec::new(), None).await.unwrap();
        assert_eq!(store.submit(EP, job("i", false, at(3))).await, answer);
    }
}

async fn who_works_in_vain_is_told_once(store: impl Store) {
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w1", 2, 1)).await.unwrap();
    for id in ["b", "a"] {
        store.change(EP, id, |record: &mut Record| record.cancel(at(2)), Vec::new(), None).await.unwrap();
    }
    assert!(store.take_stops(EP, "w2").await.unwrap().is_empty());
    assert_eq!(store.take_stops(EP, "w1").await.unwrap(), ["b", "a"]);
    assert!(store.take_stops(EP, "w1").await.unwrap().is_empty());
}

contract! {
    jobs_are_handed_out_in_line
    jobs_are_handed_out_by_weight
    what_has_expired_is_handed_to_nobody_and_is_in_nobody_s_way
    as_many_jobs_wait_as_may
    who_works_in_vain_is_told_once
}
