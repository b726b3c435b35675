//! The tables, and how they come to be.

use std::fs::File;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::StoreError;
use super::vacuum::{pages, read};

/// Each step makes the tables of one version from those of the version before. They are never changed, only added to.
const MIGRATIONS: [&str; 5] = ["
    CREATE TABLE jobs (
        endpoint TEXT NOT NULL,
        id TEXT NOT NULL,
        record TEXT NOT NULL, -- JSON
        state INTEGER NOT NULL, -- what follows is taken from the record, to find it by
        gone INTEGER NOT NULL,
        low INTEGER NOT NULL,
        place INTEGER NOT NULL, -- in line
        holder TEXT,
        due INTEGER NOT NULL, -- milliseconds since 1970
        expires INTEGER NOT NULL,
        PRIMARY KEY (endpoint, id)
    ) WITHOUT ROWID;
    CREATE INDEX lines ON jobs (endpoint, state, gone, low, place);
    CREATE INDEX holders ON jobs (endpoint, holder) WHERE holder IS NOT NULL;
    CREATE INDEX timers ON jobs (due);
    CREATE INDEX places ON jobs (endpoint, place);
    CREATE TABLE parts (endpoint TEXT NOT NULL, id TEXT NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (endpoint, id, part));
    CREATE TABLE chunks (number INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL);
    CREATE INDEX streams ON chunks (endpoint, id, number);
    CREATE TABLE stops (number INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, worker TEXT NOT NULL, id TEXT NOT NULL);
    CREATE INDEX workers ON stops (endpoint, worker, number);
    CREATE TABLE tallies (endpoint TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (endpoint, name)) WITHOUT ROWID;
", "
    CREATE TABLE keys (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID; -- JSON
", "
    ALTER TABLE stops ADD COLUMN ended INTEGER NOT NULL DEFAULT 0; -- the job: milliseconds since 1970
    CREATE INDEX unheard ON stops (ended);
", "
    INSERT INTO tallies SELECT endpoint, 'waiting', count(*) FROM jobs WHERE state = 0 AND gone = 0 GROUP BY endpoint;
", "
    CREATE TABLE time (course INTEGER NOT NULL, wall INTEGER NOT NULL); -- one moment: milliseconds since 1970
"];

/// A page that changes often is written to the file once for all of them.
const CHECKPOINT_PAGES: i64 = 4096;

/// A file that shrinks when it is told to, as `auto_vacuum` says it.
const INCREMENTAL: u64 = 2;

/// Bytes of a queue that are written in less than seconds.
const MAX_VACUUM_BYTES: u64 = 64 << 20;

/// Bytes of the write-ahead log that stay when all of it is in the file.
const WAL_LIMIT: i64 = 64 << 20;

/// Makes the connection what it should be, and the tables those of this version.
pub(super) fn prepare(db: &Connection) -> Result<(), StoreError> {
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    // Before the file is there, or with the next `VACUUM`. To say it once more would be a write, for which a full disk has no room.
    if read(db, "auto_vacuum")? != INCREMENTAL {
        db.pragma_update(None, "auto_vacuum", INCREMENTAL as i64)?;
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    // What is answered outlives a power cut.
    db.pragma_update(None, "synchronous", "FULL")?;
    // After a long read, such as a backup, the log may be as large as what was written meanwhile.
    db.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    // The log is written to the file, and both are synced, when it has so many pages.
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.set_prepared_statement_cache_capacity(64);
    // Else a statement with `LIMIT ?` is planned again whenever it is run.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    if known(db)? < MIGRATIONS.len() {
        db.execute_batch("BEGIN IMMEDIATE")?;
        // Another process may have been faster.
        for step in MIGRATIONS.iter().skip(self::version(db)?) {
            db.execute_batch(step)?;
        }
        db.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        db.execute_batch("COMMIT")?;
    }
    Ok(may_shrink(db)?)
}

/// Makes it the connection that writes, of which its owner syncs what it commits. Returns the write-ahead log, which is there as long as it is.
pub(super) fn writes(db: &Connection) -> Result<File, StoreError> {
    // Only the log is left to its owner: before what is in it goes into the file, and after, SQLite syncs by itself.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let path = format!("{}-wal", db.path().unwrap_or_default());
    // A file system without shared memory for it has none, and SQLite says nothing of that.
    File::open(&path).map_err(|cause| {
        StoreError::Failed(format!(
            "{path}: {cause}; the queue's file must be on a disk that can have a write-ahead log"
        ))
    })
}

/// A file of the versions before is rewritten once, so that it can shrink; unless that takes long, or there is no room for it.
fn may_shrink(db: &Connection) -> rusqlite::Result<()> {
    let (all, erased) = pages(db)?;
    if read(db, "auto_vacuum")? != 0 || (all - erased) * read(db, "page_size")? > MAX_VACUUM_BYTES {
        return Ok(());
    }
    if let Err(why) = db.execute_batch("VACUUM") {
        tracing::warn!(cause = %why, "the queue's file cannot shrink; that is tried again at the next start");
    }
    Ok(())
}

/// The version of the tables, if it is one that we know.
pub(super) fn known(db: &Connection) -> Result<usize, StoreError> {
    let (version, newest) = (version(db)?, MIGRATIONS.len());
    if version > newest {
        let why = format!("the file is of a newer latentd (version {version}, this one knows {newest})");
        return Err(StoreError::Failed(why));
    }
    Ok(version)
}

fn version(db: &Connection) -> Result<usize, StoreError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(version).map_err(|_| StoreError::Failed(format!("the file says that it is of version {version}")))
}
