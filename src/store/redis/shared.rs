//! What gateways count and know together.
//!
//! Requests of clients are counted over all gateways by the clock of Redis.
//!
//! Each gateway says how many are open there, and until when that holds, so that one that dies takes no place with it.

use std::time::Duration;

use redis::pipe;

use super::super::StoreError;
use super::super::events::StoreEvent;
use super::super::shared::{Admission, RateCheck, WorkerView};
use super::RedisStore;
use super::keys::{self, EndpointKeys};

impl RedisStore {
    pub(super) async fn count(&self, asking: &RateCheck) -> Result<Admission, StoreError> {
        let mut count = self.meter.key(keys::asked(&asking.asked));
        count.arg(millis(asking.window)).arg(asking.rate).arg(asking.at_once);
        count.arg(&asking.gateway).arg(asking.open).arg(millis(asking.silent));
        let answer: u8 = self.connection.run(&count).await?;
        Ok(match answer {
            0 => Admission::Yes,
            1 => Admission::TooOften,
            _ => Admission::TooMany,
        })
    }

    pub(super) async fn say(
        &self,
        gateway: &str,
        open: &[([u8; 32], u64)],
        silent: Duration,
    ) -> Result<(), StoreError> {
        let mut say = self.open.prepare_invoke();
        for (asked, _) in open {
            say.key(keys::asked(asked));
        }
        say.arg(gateway).arg(millis(silent));
        for (_, open) in open {
            say.arg(*open);
        }
        self.connection.run(&say).await
    }
}

/// Seconds that what gateways have seen of workers is kept when none of them is left.
const VIEW_SECONDS: i64 = 3600;

impl RedisStore {
    pub(super) async fn write_view(&self, endpoint: &str, view: &WorkerView, urgent: bool) -> Result<(), StoreError> {
        let (key, name) = (EndpointKeys(endpoint).views(), format!("{} {}", view.gateway, view.worker));
        let mut ask = pipe();
        match &view.seen {
            Some(seen) => ask.hset(&key, name, seen).ignore().expire(&key, VIEW_SECONDS).ignore(),
            None => ask.hdel(&key, name).ignore(),
        };
        if urgent {
            let events = serde_json::to_string(&[StoreEvent::WorkersChanged])
                .map_err(|error| StoreError::Failed(error.to_string()))?;
            ask.publish(keys::events(), events).ignore();
        }
        self.connection.ask(&ask).await
    }
}

fn millis(time: Duration) -> u64 {
    (time.as_millis() as u64).max(1)
}
