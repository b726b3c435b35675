//! What workers bring.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_kept_fails_its_job_with_the_reason() {
    let house = TestGateway::with(GatewaySettings { max_result: 50, ..GatewaySettings::default() });
    for (body, code, says) in
        [("x".repeat(51), 413, "larger than 50 bytes"), ("{\"output\"".into(), 400, "could not be read")]
    {
        let id = house.run(START).await;
        house.take("w1").await;
        let (status, reply) = house.post(&format!("/job-done/w1/{id}?isStream=false"), &body).await;
        assert!(status == code && reply.contains(says), "{status} {reply}");
        assert_eq!(house.field(&id, "status").await, "FAILED");
        assert!(house.field(&id, "error").await.as_str().unwrap().contains(says));
    }
    let id = house.run(START).await;
    house.take("w1").await;
    assert_eq!(house.post(&format!("/job-done/w1/{id}"), r#"{"output": {"x": NaN}}"#).await.0, 200);
    assert_eq!(house.field(&id, "output").await["x"], Value::Null);
}
