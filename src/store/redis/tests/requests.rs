//! Requests of a client, counted over all gateways.

use std::time::Duration;

use super::super::super::redis_server::Server;
use super::super::*;

fn asking(gateway: &str, open: u64) -> RateCheck {
    let hour = Duration::from_hours(1);
    RateCheck { asked: [7; 32], gateway: gateway.into(), open, window: hour, rate: 3, at_once: 99, silent: hour }
}

#[tokio::test]
async fn requests_are_counted_over_all_gateways() {
    let server = Server::start(&[]);
    let stores = [RedisStore::on(&server).await, RedisStore::on(&server).await];
    let mut answers = Vec::new();
    for number in 0..5 {
        answers.push(stores[number % 2].admit(asking(["a", "b"][number % 2], 0)).await.unwrap());
    }
    assert_eq!(answers, [Admission::Yes, Admission::Yes, Admission::Yes, Admission::TooOften, Admission::TooOften]);
    assert_eq!(
        stores[0].admit(RateCheck { asked: [8; 32], ..asking("a", 0) }).await,
        Ok(Admission::Yes),
        "another client"
    );
    // A window slides, and what is in none is forgotten.
    let short = RateCheck {
        asked: [9; 32],
        window: Duration::from_millis(50),
        silent: Duration::from_millis(50),
        ..asking("a", 0)
    };
    for _ in 0..2 {
        while stores[0].admit(short.clone()).await.unwrap() == Admission::Yes {}
    }
    while stores[1].admit(short.clone()).await.unwrap() != Admission::Yes {}
    while stores[0].size().await > 3 {}
}

#[tokio::test]
async fn what_is_open_counts_at_all_gateways_until_it_is_closed_or_its_gateway_is_dead() {
    let server = Server::start(&[]);
    let (one, two) = (RedisStore::on(&server).await, RedisStore::on(&server).await);
    let at_most = |most: u64, asking: RateCheck| RateCheck { rate: 999, at_once: most, ..asking };
    assert_eq!(one.admit(at_most(2, asking("a", 0))).await, Ok(Admission::Yes));
    assert_eq!(two.admit(at_most(2, asking("b", 0))).await, Ok(Admission::Yes));
    for (store, gateway) in [(&one, "a"), (&two, "b")] {
        assert_eq!(store.admit(at_most(2, asking(gateway, 1))).await, Ok(Admission::TooMany), "{gateway}");
    }
    one.report_open("a", vec![([7; 32], 0), ([8; 32], 5)], Duration::from_hours(1)).await.unwrap();
    assert_eq!(two.admit(at_most(2, asking("b", 1))).await, Ok(Admission::Yes));
    // It says no more, and what it has said holds no longer.
    two.report_open("b", vec![([7; 32], 2)], Duration::from_millis(50)).await.unwrap();
    while one.admit(at_most(2, asking("a", 0))).await.unwrap() == Admission::TooMany {}
    assert_eq!(one.admit(at_most(2, asking("a", 1))).await, Ok(Admission::Yes), "both places are free");
}
