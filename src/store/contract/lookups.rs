//! What is found: payloads, pages of jobs, keys, the time.

use super::*;

async fn what_is_wanted_of_a_job_is_found_in_that_order(store: impl Store) {
    submit(&store, &["a"]).await;
    let wanted = |record: &Record| match record.state {
        JobState::Completed => vec![PayloadKind::Warnings, PayloadKind::Output, PayloadKind::Input],
        _ => Vec::new(),
    };
    let (record, parts) = store.find(EP, "a", wanted, 0).await.unwrap().unwrap();
    assert_eq!((record.state, parts), (JobState::InQueue, LoadedPayloads::Read(Vec::new())));
    store.take(EP, claim_request("w1", 1, 1)).await.unwrap();
    store.change(EP, "a", end("w1", true, 5), output("[1]"), None).await.unwrap();
    let input = store.payload(EP, "a", PayloadKind::Input).await.unwrap();
    let bytes = 3 + input.as_ref().unwrap().len();
    let known = store.read(EP, "a").await.unwrap().unwrap();
    for _ in 0..2 {
        // Whether or not the record is known from a look before.
        let large = store.find(EP, "a", wanted, bytes - 1).await.unwrap().unwrap();
        assert_eq!(large, (known.clone().into(), LoadedPayloads::Large(bytes)));
    }
    let found = store.find(EP, "a", wanted, bytes).await.unwrap().unwrap();
    assert_eq!(found, (known.into(), LoadedPayloads::Read(vec![None, Some("[1]".into()), input])));
    assert_eq!(
        store.find(EP, "a", wanted, 2).await.unwrap().unwrap().1,
        LoadedPayloads::Large(bytes),
        "now that it is known"
    );
    assert_eq!(store.find(EP, "b", wanted, 9).await.unwrap(), None);
}

async fn jobs_are_listed_a_page_at_a_time(store: impl Store) {
    assert_eq!(store.next_submitted(EP).await.unwrap(), None);
    submit(&store, &["low-a", "b", "c"]).await;
    store.submit(EP, job("d", false, at(7))).await.unwrap();
    assert_eq!(store.next_submitted(EP).await.unwrap(), Some(at(0)));
    assert_eq!(ids(&store.take(EP, claim_request("w1", 2, 8)).await.unwrap().0), ["b", "c"]);
    assert_eq!(store.next_submitted(EP).await.unwrap(), Some(at(7)), "of low priority is last");
    store.change(EP, "c", end("w1", true, 9), output("[1]"), None).await.unwrap();
    let page = async |states: &[JobState], offset, limit| {
        let query = PageQuery { states: states.to_vec(), offset, limit };
        let JobPage { jobs, total } = store.page(EP, query).await.unwrap();
        (jobs.into_iter().map(|record| record.id).collect::<Vec<_>>(), total)
    };
    let all = [JobState::InProgress, JobState::InQueue, JobState::Completed];
    let listed = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(page(&all, 0, 9).await, (listed(&["b", "d", "low-a", "c"]), 4));
    assert_eq!(page(&all, 1, 2).await, (listed(&["d", "low-a"]), 4));
    assert_eq!(page(&all, 2, 9).await, (listed(&["low-a", "c"]), 4));
    assert_eq!(page(&all, 4, 9).await, (listed(&[]), 4));
    assert_eq!(page(&[JobState::Failed], 0, 9).await, (listed(&[]), 0));
    let query = PageQuery { states: all.to_vec(), offset: 0, limit: 1 };
    assert_eq!(store.page(EP, query).await.unwrap().jobs, [store.read(EP, "b").await.unwrap().unwrap()]);
    let workers = || listed(&["w1", "w2"]);
    assert_eq!(store.busy_workers(EP, workers()).await.unwrap(), ["w1".to_owned()].into());
    assert!(store.busy_workers("other", workers()).await.unwrap().is_empty());
    assert!(store.busy_workers(EP, Vec::new()).await.unwrap().is_empty());
}

async fn keys_have_names_of_their_own(store: impl Store) {
    let key = |name: &str, worker: bool| {
        let (name, endpoint) = (name.to_owned(), worker.then(|| "e".to_owned()));
        KeyRecord { name, worker, endpoint, digest: "ab".into(), created: at(1) }
    };
    assert_eq!(store.keys().await.unwrap(), []);
    for (name, worker) in [("b", true), ("a", false)] {
        store.add_key(key(name, worker)).await.unwrap();
    }
    assert_eq!(store.add_key(key("a", true)).await, Err(StoreError::Duplicate));
    assert_eq!(store.keys().await.unwrap(), [key("a", false), key("b", true)]);
    assert_eq!((store.remove_key("a").await, store.remove_key("a").await), (Ok(true), Ok(false)));
    assert_eq!(store.keys().await.unwrap(), [key("b", true)]);
}

async fn the_time_of_the_queue_goes_on_whatever_the_clock_says(store: impl Store) {
    let keep = async |on: Option<u64>, wall: u64| store.sync_clock(on.map(at), at(wall)).await.unwrap();
    assert_eq!(keep(None, 100).await, at(100), "nothing is kept");
    assert_eq!(keep(Some(160), 9_160).await, at(160));
    assert_eq!(keep(Some(170), 5).await, at(170));
    assert_eq!(keep(Some(90), 5).await, at(170), "another was further");
    let begun = keep(None, 5).await;
    assert!(begun >= at(170) && begun < at(230), "{begun:?}");
}

contract! {
    what_is_wanted_of_a_job_is_found_in_that_order
    jobs_are_listed_a_page_at_a_time
    keys_have_names_of_their_own
    the_time_of_the_queue_goes_on_whatever_the_clock_says
}
