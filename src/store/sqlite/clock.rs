//! What is kept of the time of the queue.

use rusqlite::{OptionalExtension, params};

use super::super::StoreError;
use super::super::clock::ClockReading;
use super::tables::{Tables, millis};
use crate::date::UnixTime;

impl Tables<'_> {
    /// Keeps the time of the queue, if it does not follow from what is kept. Returns it.
    pub(super) fn sync_clock(&self, on: Option<UnixTime>, wall: UnixTime) -> Result<UnixTime, StoreError> {
        let (kept, now) = self.clock(on, wall)?;
        let busy = self.next_due()?.is_some();
        if kept.is_none_or(|kept| now.needs_saving(kept, busy)) {
            self.run("DELETE FROM time", [])?;
            self.run("INSERT INTO time (course, wall) VALUES (?1, ?2)", params![millis(now.on), millis(now.wall)])?;
        }
        Ok(now.on)
    }

    /// What is kept of the time of the queue, and what follows from it.
    pub(super) fn clock(
        &self,
        on: Option<UnixTime>,
        wall: UnixTime,
    ) -> Result<(Option<ClockReading>, ClockReading), StoreError> {
        let mut select = self.db.prepare_cached("SELECT course, wall FROM time")?;
        let kept = select.query_row([], |row| {
            let [on, wall] = [row.get::<_, i64>(0)?, row.get(1)?].map(|date| UnixTime::from_millis(date as u64));
            Ok(ClockReading { on, wall })
        });
        let kept = kept.optional()?;
        Ok((kept, ClockReading::after(kept, on, wall)))
    }
}
