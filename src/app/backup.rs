//! `latentd backup`: a copy of the gateway's queue, while the gateway runs.

use std::path::Path;

use super::{Exit, complain, say};
use crate::config::{Config, StoreLocation};
use crate::store::SqliteStore;

/// Copies the store that the configuration names to the new file `to`.
pub(super) fn execute(to: &Path, config: &Config) -> Exit {
    let StoreLocation::File(from) = &config.gateway.store else {
        complain(&format_args!(
            "the queue is in {}, which copies itself: BGSAVE writes its dump.rdb, or copy its append-only folder; docs/operating.md says how",
            config.gateway.store
        ));
        return Exit::Usage;
    };
    match SqliteStore::backup(from, to) {
        Ok(copied) => {
            let size = copied.bytes as f64 / f64::from(1 << 20);
            // A closed stdout leaves the exit code to tell it.
            let _ = say(&format_args!("{}: {} jobs, {size:.1} MiB", to.display(), copied.jobs));
            Exit::Done
        }
        Err(cause) => {
            complain(&cause);
            Exit::Failed
        }
    }
}
