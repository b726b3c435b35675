//! How full a spool is.

use tokio::sync::watch;

/// Bytes that a spool may hold, and those that it holds.
#[derive(Debug)]
pub(super) struct Account {
    most: u64,
    held: watch::Sender<Held>,
}

/// What a spool holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// Bytes on disk.
    disk: u64,
    /// Letters that the disk did not take.
    homeless: usize,
}

impl Held {
    /// With a letter that only memory holds, the disk is full or broken: more work would be more to lose.
    fn room(self, most: u64) -> bool {
        self.homeless == 0 && self.disk < most
    }
}

impl Account {
    pub(super) fn new(most: u64) -> Self {
        Self { most, held: watch::Sender::new(Held::default()) }
    }

    pub(super) fn has_room(&self) -> bool {
        self.held.borrow().room(self.most)
    }

    pub(super) async fn room(&self) {
        // The sender is ours, so that the wait ends with room alone.
        let _ = self.held.subscribe().wait_for(|held| held.room(self.most)).await;
    }

    /// A letter of `size` bytes lies on disk, or in memory if that is `None`.
    pub(super) fn add(&self, size: Option<u64>) {
        self.held.send_modify(|held| match size {
            Some(size) => held.disk += size,
            None => held.homeless += 1,
        });
    }

    /// What was added is gone.
    pub(super) fn remove(&self, size: Option<u64>) {
        self.held.send_modify(|held| match size {
            Some(size) => held.disk -= size,
            None => held.homeless -= 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_in_memory_leaves_no_room() {
        let account = Account::new(10);
        account.add(Some(9));
        assert!(account.has_room());
        account.add(None);
        assert!(!account.has_room());
        account.remove(None);
        account.add(Some(1));
        assert!(!account.has_room());
        account.remove(Some(9));
        assert!(account.has_room());
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it() {
        let account = Account::new(1);
        account.add(Some(1));
        let drain = async { account.remove(Some(1)) };
        tokio::join!(account.room(), drain);
        assert!(account.has_room());
    }
}
