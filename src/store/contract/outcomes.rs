//! What comes of a job, and when it is forgotten.

use super::*;

async fn an_end_is_kept_with_its_output_and_the_first_counts(store: impl Store) {
    submit(&store, &["a"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    let (record, transition) = store.change(EP, "a", end("w1", true, 5), output("[1]"), None).await.unwrap().unwrap();
    assert_eq!((record.state, transition), (JobState::Completed, Transition::Changed));
    let (record, transition) = store.change(EP, "a", end("w2", false, 6), output("[2]"), None).await.unwrap().unwrap();
    assert_eq!((record.state, transition), (JobState::Completed, Transition::Unchanged));
    assert_eq!(store.payload(EP, "a", PayloadKind::Output).await.unwrap().unwrap(), "[1]");
    assert!(store.change(EP, "b", end("w1", true, 5), Vec::new(), None).await.unwrap().is_none());
    assert_eq!(store.counts(EP).await.unwrap(), Counts { completed: 1, ..Counts::default() });
    assert!(store.held_by(EP, "w1").await.unwrap().is_empty());
}

async fn a_retry_forgets_what_came_of_it_and_waits_at_the_end(store: impl Store) {
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    let chunk = Some(Bytes::from_static(b"1"));
    store.change(EP, "a", |record: &mut Record| record.part("w1"), Vec::new(), chunk).await.unwrap();
    store.change(EP, "a", end("w1", false, 5), output("[1]"), None).await.unwrap();
    assert!(store.payload(EP, "a", PayloadKind::Output).await.unwrap().is_some());
    store.change(EP, "a", |record: &mut Record| record.retry(at(6)), Vec::new(), None).await.unwrap();
    assert_eq!(store.payload(EP, "a", PayloadKind::Output).await.unwrap(), None);
    assert!(store.take_chunks(EP, "a", 10).await.unwrap().0.is_empty());
    assert_eq!(store.ids_in_state(EP, JobState::InQueue).await.unwrap(), ["b", "a"]);
    assert_eq!(store.counts(EP).await.unwrap(), Counts { in_queue: 2, failed: 1, ..Counts::default() });
    assert!(store.payload(EP, "a", PayloadKind::Input).await.unwrap().is_some());
}

async fn a_stream_is_drained_once_and_by_size(store: impl Store) {
    submit(&store, &["a"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    for text in ["11", "22", "333", "4"] {
        store.change(EP, "a", |record: &mut Record| record.part("w1"), Vec::new(), Some(text.into())).await.unwrap();
    }
    let late =
        store.change(EP, "a", |record: &mut Record| record.part("w2"), Vec::new(), Some("5".into())).await.unwrap();
    assert_eq!(late.unwrap().1, Transition::Unchanged);
    let drains = [
        ("a", 4, &["11", "22"][..], Some(3)),
        ("a", 2, &[], Some(3)),
        ("a", 3, &["333"], Some(1)),
        ("a", 9, &["4"], None),
        ("a", 9, &[], None),
        ("b", 9, &[], None),
    ];
    for (id, most, wanted, next) in drains {
        let drained = store.take_chunks(EP, id, most).await.unwrap();
        assert_eq!(drained, (wanted.iter().map(|chunk| Bytes::from(*chunk)).collect(), next), "{most} bytes of {id}");
    }
}

async fn what_is_due_is_found_and_what_is_over_is_erased(store: impl Store) {
    submit(&store, &["a", "b"]).await;
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), Some(at(31)));
    assert!(store.due(at(30), 9).await.unwrap().is_empty());
    assert_eq!(store.due(at(31), 9).await.unwrap(), [(EP.to_owned(), "a".to_owned())]);
    let tick = |seconds| move |record: &mut Record| record.tick(&Rules::default(), at(seconds));
    let (record, transition) = store.change(EP, "a", tick(31), Vec::new(), None).await.unwrap().unwrap();
    assert_eq!((record.state, transition), (JobState::TimedOut, Transition::Stop("w1".into())));
    let later = 31 + 30 * 60;
    assert_eq!(store.due(at(later), 9).await.unwrap().len(), 1);
    assert!(
        store.change(EP, "a", tick(later), Vec::new(), None).await.unwrap().is_some_and(|(record, _)| record.hidden)
    );
    assert_eq!(store.read(EP, "a").await.unwrap(), None);
    assert_eq!(store.payload(EP, "a", PayloadKind::Input).await.unwrap(), None);
    let day = 24 * 3600;
    assert_eq!((store.next_due().await.unwrap(), store.due(at(day), 1).await.unwrap().len()), (Some(at(day)), 1));
}

async fn news_come_after_what_they_tell_of(store: impl Store) {
    let mut events = store.subscribe();
    submit(&store, &["a"]).await;
    assert_eq!(events.next().await, Some(StoreEvent::JobQueued(EP.into())));
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    assert_eq!(events.next().await, Some(StoreEvent::JobChanged(EP.into(), "a".into())));
    store.change(EP, "a", |record: &mut Record| record.cancel(at(2)), Vec::new(), None).await.unwrap();
    assert_eq!(events.next().await, Some(StoreEvent::JobEnded(EP.into(), "a".into())));
    assert_eq!(events.next().await, Some(StoreEvent::WorkerStop(EP.into(), "w1".into())));
    assert_eq!(store.take_stops(EP, "w1").await.unwrap(), ["a"]);
}

contract! {
    an_end_is_kept_with_its_output_and_the_first_counts
    a_retry_forgets_what_came_of_it_and_waits_at_the_end
    a_stream_is_drained_once_and_by_size
    what_is_due_is_found_and_what_is_over_is_erased
    news_come_after_what_they_tell_of
}
