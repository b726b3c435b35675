//! What Redis knows things by.

use crate::hex;
use crate::queue::JobState;

/// What all keys begin with. Of those of one endpoint the part in braces is the same, so that a cluster keeps them together.
const KEY_PREFIX: &str = "latentd";

/// The endpoints that ever had a job: a set.
pub(super) fn endpoints() -> String {
    format!("{KEY_PREFIX}:endpoints")
}

/// Of which version what is kept is: a number.
pub(super) fn format() -> String {
    format!("{KEY_PREFIX}:format")
}

/// The time of the queue: a hash, which `time.lua` tells of.
pub(super) fn time() -> String {
    format!("{KEY_PREFIX}:time")
}

/// Keys that open endpoints: a hash of their records by name.
pub(super) fn opening() -> String {
    format!("{KEY_PREFIX}:keys")
}

/// What one client asks of one operation, over all gateways: a hash, which `meter.lua` tells of.
pub(super) fn asked(digest: &[u8; 32]) -> String {
    format!("{KEY_PREFIX}:asked:{}", hex::encode(digest))
}

/// A key that is never there.
pub(super) fn nothing() -> String {
    format!("{KEY_PREFIX}:nothing")
}

/// The channel of events.
pub(super) fn events() -> String {
    format!("{KEY_PREFIX}:news")
}

/// The keys of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndpointKeys<'a>(pub(super) &'a str);

impl EndpointKeys<'_> {
    fn of(self, what: &str) -> String {
        format!("{KEY_PREFIX}:{{{}}}:{what}", self.0)
    }

    /// What the keys of jobs begin with; the id follows.
    pub(super) fn jobs(self) -> String {
        self.of("job:")
    }

    /// A job: a hash of its version `v`, its score in lines `s`, its record `r`, its parts by number, and the claim `t` since the record
    /// was written, if it was handed out.
    pub(super) fn job(self, id: &str) -> String {
        self.jobs() + id
    }

    /// What a job's stream has that was not read yet: a list.
    pub(super) fn chunks(self, id: &str) -> String {
        self.of("chunks:") + id
    }

    /// Jobs that stand so and can be seen: a sorted set, in line.
    pub(super) fn line(self, state: JobState) -> String {
        self.of("line:") + state.name()
    }

    /// Jobs that a worker holds: a set.
    pub(super) fn held(self, worker: &str) -> String {
        self.of("held:") + worker
    }

    /// Jobs that a worker works on in vain: a list.
    pub(super) fn stops(self, worker: &str) -> String {
        self.of("stops:") + worker
    }

    /// When time does something to which job: a sorted set, in milliseconds since 1970.
    pub(super) fn due(self) -> String {
        self.of("due")
    }

    /// What gateways have seen of workers: a hash, by gateway and worker with a space between them.
    pub(super) fn views(self) -> String {
        self.of("workers")
    }

    /// What only grows: a hash of the last place in line and of the tallies. It is what is left when all jobs are gone.
    pub(super) fn counters(self) -> String {
        self.of("counters")
    }
}
