//! Limits of clients over all gateways on a store.
//!
//! Each gateway counts for itself first, and goes on alone while the store does not answer.

use std::future::pending;
use std::time::Duration;

use tokio::select;
use tokio::time::{interval, timeout};

use crate::store::{Admission, Store};

use super::Gateway;
use super::limits::{ClientKey, RequestPermit};
use super::reply::ApiError;

/// For the store to count a request.
const ADMIT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a gateway may be silent before others take what is open there for closed.
pub(super) const GATEWAY_SILENCE: Duration = Duration::from_secs(15);

impl<S: Store> Gateway<S> {
    /// Lets a request pass that is within its allowance at all gateways together, and holds a place for it.
    pub(super) async fn admit(&self, asked: ClientKey, operation: &str) -> Result<RequestPermit, ApiError> {
        let place = self.limits.admit(asked, operation, self.now())?;
        if !S::SHARED || self.limits.is_alone() {
            return Ok(place);
        }
        match timeout(ADMIT_TIMEOUT, self.store.admit(place.asking(operation, GATEWAY_SILENCE))).await {
            Ok(Ok(Admission::Yes)) => Ok(place),
            Ok(Ok(refused)) => Err(place.refused(operation, refused)),
            Ok(Err(_)) | Err(_) => {
                self.limits.go_on_alone();
                Ok(place)
            }
        }
    }

    /// Says at the store how many requests are open here: of each client when one of its has closed, and of all every now and then.
    pub(super) async fn report_open_requests(&self) {
        if !S::SHARED || !self.settings.limits {
            return pending().await;
        }
        let mut now_and_then = interval(GATEWAY_SILENCE / 3);
        loop {
            let open = select! {
                () = self.limits.closed() => self.limits.take_closed(),
                _ = now_and_then.tick() => self.limits.all_open(),
            };
            // What is not heard now is said again.
            if !open.is_empty() && self.store.report_open(self.limits.gateway(), open, GATEWAY_SILENCE).await.is_err() {
                self.limits.go_on_alone();
            }
        }
    }
}
