//! What stores keep has the names that other versions of this program wrote and read.

use serde_json::{Value, json};

use super::*;

fn stored() -> Value {
    let time = |secs: u64| json!({ "secs": secs, "nanos": 0 });
    json!({
        "id": "j", "state": "IN_PROGRESS", "submitted": 1_000_000, "expires": 87_400_000, "patience": time(600), "kept": time(1800),
        "low": true, "retries": 1,
        "attempt": {
            "number": 2, "worker": "w", "gpu": "24", "beats": true, "began": 1_001_000, "arrived": true, "listed": 1_002_000,
            "missed": 1, "progressed": 1_003_000,
        },
        "past": [{ "number": 1, "worker": "v", "began": 1_000_500, "ended": 1_000_700, "why": "gone" }],
        "forgotten": 3, "ended": null, "error": null, "output": true,
        "hook": {
            "url": "https://a.example", "headers": [["a", "b"]], "by": "c", "message": 1, "due": 1_004_000, "tries": 2,
            "log": [{ "message": 1, "at": 1_003_500, "why": "it is away" }],
        },
        "gone": false, "sent": { "digest": "ab", "until": 1_500_000 },
    })
}

#[test]
fn a_record_is_stored_under_the_names_that_other_versions_know() {
    let record: Record = serde_json::from_value(stored()).unwrap();
    assert_eq!(record.execution_timeout, Duration::from_mins(10));
    assert_eq!((record.retention, record.low_priority, record.hidden), (Duration::from_mins(30), true, false));
    assert_eq!(record.failed_attempts[0].reason, "gone");
    let attempt = record.attempt.as_ref().unwrap();
    assert_eq!((attempt.last_heartbeat, attempt.missed_heartbeats), (Some(at(2)), 1));
    assert_eq!(serde_json::to_value(&record).unwrap(), stored());
    let claim = json!({ "worker": "w", "gpu": null, "beats": true, "at": 1_001_000 });
    let read: Claim = serde_json::from_value(claim.clone()).unwrap();
    assert!(read.sends_heartbeats);
    assert_eq!(serde_json::to_value(&read).unwrap(), claim);
}
