//! Requests of clients, counted over all gateways by the clock of Redis.
//!
//! Each gateway says how many are open there, and until when that holds, so that one that dies takes no place with it.

use std::time::Duration;

use super::super::StoreError;
use super::super::share::{Admitted, Asking};
use super::{RedisStore, keys};

impl RedisStore {
    pub(super) async fn count(&self, asking: &Asking) -> Result<Admitted, StoreError> {
        let mut count = self.meter.key(keys::asked(&asking.asked));
        count.arg(millis(asking.window)).arg(asking.rate).arg(asking.at_once);
        count.arg(&asking.gateway).arg(asking.open).arg(millis(asking.silent));
        let answer: u8 = self.link.run(&count).await?;
        Ok(match answer {
            0 => Admitted::Yes,
            1 => Admitted::TooOften,
            _ => Admitted::TooMany,
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
        self.link.run(&say).await
    }
}

fn millis(time: Duration) -> u64 {
    (time.as_millis() as u64).max(1)
}
