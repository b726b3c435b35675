//! How full a spool is.

use tokio::sync::watch;

/// Bytes that a spool may hold, and those that it holds, on disk or in memory.
#[derive(Debug)]
pub(super) struct Capacity {
    most: u64,
    held: watch::Sender<u64>,
}

impl Capacity {
    pub(super) fn new(most: u64) -> Self {
        Self { most, held: watch::Sender::new(0) }
    }

    pub(super) fn has_room(&self) -> bool {
        *self.held.borrow() < self.most
    }

    pub(super) async fn room(&self) {
        // The sender is ours, so that the wait ends with room alone.
        let _ = self.held.subscribe().wait_for(|held| *held < self.most).await;
    }

    /// A letter of `size` bytes is there.
    pub(super) fn add(&self, size: u64) {
        self.held.send_modify(|held| *held += size);
    }

    /// What was added is gone.
    pub(super) fn remove(&self, size: u64) {
        self.held.send_modify(|held| *held -= size);
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
