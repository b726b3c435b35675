//! A clock that is set, by hand, by a time server or because the machine slept: no deadline of a job moves.

use super::*;

const HOUR: i64 = 3600;

/// Three jobs: ended, running by `w1`, waiting.
async fn three(house: &TestGateway) -> [String; 3] {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(house.run(r#"{"input":{"prompt":"p"}}"#).await);
    }
    for id in &ids[..2] {
        assert_eq!(&house.take("w1").await, id);
    }
    assert_eq!(house.post(&format!("/job-done/w1/{}", ids[0]), r#"{"output":1}"#).await.0, 200);
    beat(house, &ids[1]).await;
    ids.try_into().unwrap()
}

async fn beat(house: &TestGateway, id: &str) {
    assert_eq!(house.get(&format!("/ping/w1?job_id={id}&runpod_version=1.12.0")).await.0, 200);
}

async fn stand(house: &TestGateway, ids: &[String; 3]) -> Vec<Value> {
    let mut stand = Vec::new();
    for id in ids {
        stand.push(house.field(id, "status").await);
    }
    stand
}

fn set(house: &TestGateway, by: i64) {
    let now = house.clock.now().as_millis();
    house.clock.set(UnixTime::from_millis(now.checked_add_signed(by * 1000).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_loses_no_job_and_keeps_no_silent_worker() {
    for by in [300, 2 * HOUR, 25 * HOUR, -2 * HOUR] {
        let house = TestGateway::new();
        let ids = three(&house).await;
        let before = house.clock.now().as_millis();
        set(&house, by);
        house.pass(5).await;
        assert_eq!(stand(&house, &ids).await, ["COMPLETED", "IN_PROGRESS", "IN_QUEUE"], "{by} s");
        assert_eq!(house.field(&ids[1], "retries").await, Value::Null);
        // Dates are those of the clock.
        let (_, history) = house.get(&format!("/history/{}", ids[1])).await;
        let history: Value = serde_json::from_str(&history).unwrap();
        for date in [&history["submitted"], &history["attempts"][0]["began"]] {
            assert_eq!(date.as_u64(), before.checked_add_signed(by * 1000), "{by} s: {history}");
        }
        // Its worker has been silent since the clock was set.
        house.pass(36).await;
        assert_eq!(stand(&house, &ids).await, ["COMPLETED", "IN_QUEUE", "IN_QUEUE"], "{by} s");
        house.pass(30 * 60).await;
        assert_eq!(house.get(&format!("/status/{}", ids[0])).await.0, 404, "{by} s: results are kept no longer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_begins_after_its_clock_was_set_goes_on_where_the_other_was() {
    for by in [300, 25 * HOUR, -2 * HOUR] {
        let house = TestGateway::new();
        let ids = three(&house).await;
        set(&house, by);
        house.pass(1).await;
        let next = house.restarted().await;
        next.pass(5).await;
        beat(&next, &ids[1]).await;
        assert_eq!(stand(&next, &ids).await, ["COMPLETED", "IN_PROGRESS", "IN_QUEUE"], "{by} s");
        // The clock is set right.
        set(&next, -by);
        next.pass(1).await;
        let next = next.restarted().await;
        next.pass(5).await;
        beat(&next, &ids[1]).await;
        assert_eq!(stand(&next, &ids).await, ["COMPLETED", "IN_PROGRESS", "IN_QUEUE"], "{by} s");
        next.pass(41).await;
        assert_eq!(stand(&next, &ids).await, ["COMPLETED", "IN_QUEUE", "IN_QUEUE"], "{by} s");
    }
}

/// The wall clock goes on while a gateway is away.
#[tokio::test(start_paused = true)]
async fn time_without_a_gateway_counts_unless_the_clock_was_set_back_meanwhile() {
    for (by, status) in [(31 * 60, 404), (60, 200), (-2 * HOUR, 200)] {
        let house = TestGateway::new();
        let [done, ..] = three(&house).await;
        house.pass(6).await;
        let store = house.store.clone();
        let clock = house.clock.clone();
        drop(house);
        let now = clock.now().as_millis().checked_add_signed(by * 1000).unwrap();
        let next = TestGateway::begin(store, Arc::new(FakeClock::at(UnixTime::from_millis(now)))).await;
        next.pass(3).await;
        assert_eq!(next.get(&format!("/status/{done}")).await.0, status, "{by} s");
    }
}

/// One slept, with its machine, while the other was there.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_slept_goes_on_with_the_others() {
    let house = TestGateway::new();
    let [_, running, _] = three(&house).await;
    let slept = Arc::new(FakeClock::at(house.clock.now()));
    let sleeper = TestGateway::begin(house.store.clone(), slept.clone()).await;
    for _ in 0..12 {
        house.pass(20).await;
        beat(&house, &running).await;
    }
    slept.set(house.clock.now());
    sleeper.pass(1).await;
    beat(&sleeper, &running).await;
    house.pass(20).await;
    assert_eq!(house.field(&running, "status").await, "IN_PROGRESS", "it was heard, at the time of the queue");
    assert_eq!(house.field(&running, "retries").await, Value::Null);
}
