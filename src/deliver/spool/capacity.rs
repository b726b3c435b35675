//! How full a spool is.

use tokio::sync::watch;

/// Bytes that a spool may hold, and those that it holds, on disk or in memory.
#[derive(Debug)]
pub(super) struct Capacity {
    most: u64,
    used: watch::Sender<u64>,
}

impl Capacity {
    pub(super) fn new(most: u64) -> Self {
        Self { most, used: watch::Sender::new(0) }
    }

    pub(super) fn has_room(&self) -> bool {
        *self.used.borrow() < self.most
    }

    pub(super) async fn room(&self) {
        // The sender is ours, so that the wait ends with room alone.
        let _ = self.used.subscribe().wait_for(|used| *used < self.most).await;
    }

    /// An entry of `size` bytes is there.
    pub(super) fn add(&self, size: u64) {
        self.used.send_modify(|used| *used += size);
    }

    /// What was added is gone.
    pub(super) fn remove(&self, size: u64) {
        self.used.send_modify(|used| *used -= size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_room_gets_it() {
        let capacity = Capacity::new(10);
        capacity.add(9);
        assert!(capacity.has_room());
        capacity.add(1);
        assert!(!capacity.has_room());
        let drain = async { capacity.remove(9) };
        tokio::join!(capacity.room(), drain);
        assert!(capacity.has_room());
    }
}
