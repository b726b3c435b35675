//! What erased jobs leave in the file: room for what comes, which goes back to the disk when it is more than the rest.

use rusqlite::Connection;

use super::StoreError;
use super::tables::Tables;

/// Pages that are given back at once: while a page is moved to where there is room, nothing else writes.
const VACUUM_PAGES: u64 = 4096;

/// Pages that stay: fewer are not worth the moves.
const MIN_FREE_PAGES: u64 = 1024;

impl Tables<'_> {
    /// Gives back a part of the room in the file, if it is more than half of it. So a file that is used again and again is not shrunk in
    /// between, and none is more than twice as large as what is in it.
    pub(super) fn shrink(&self) -> Result<(), StoreError> {
        self.cache.invalidate_if_changed(read(self.db, "data_version")?);
        let (all, erased) = pages(self.db)?;
        if erased > MIN_FREE_PAGES && erased > all / 2 {
            let mut give = self.db.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut given = give.query([])?;
            while given.next()?.is_some() {}
        }
        Ok(())
    }
}

/// Pages of the file, and those of them that are free.
pub(super) fn pages(db: &Connection) -> rusqlite::Result<(u64, u64)> {
    Ok((read(db, "page_count")?, read(db, "freelist_count")?))
}

/// A pragma that is a number.
pub(super) fn read(db: &Connection, name: &str) -> rusqlite::Result<u64> {
    db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(|value| value as u64)
}
