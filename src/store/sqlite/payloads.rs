//! What is asked of jobs' payloads, and of the parts of their streams.

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};

use crate::queue::Record;

use super::super::{PayloadKind, PayloadSelection, StoreError, TakenChunks};
use super::tables::Tables;

/// Payloads, or how many bytes they have.
type Weighed = Result<Vec<(PayloadKind, Option<Bytes>)>, usize>;

impl Tables<'_> {
    /// A job with its payloads, or with how many bytes they have, if that is more than `most`.
    pub(super) fn find(
        &self,
        endpoint: &str,
        id: &str,
        wanted: impl PayloadSelection,
        most: usize,
    ) -> Result<Option<(Record, Weighed)>, StoreError> {
        // What is read within it is of one moment.
        let _moment = self.db.unchecked_transaction()?;
        let Some(record) = self.record(endpoint, id)? else { return Ok(None) };
        let (mut parts, mut all) = (Vec::new(), 0);
        for part in wanted(&record) {
            let (bytes, body) = self.part(endpoint, id, part, most)?.unwrap_or_default();
            all += bytes;
            parts.push((part, body));
        }
        Ok(Some((record, if all > most { Err(all) } else { Ok(parts) })))
    }

    /// Keeps what came with an event.
    pub(super) fn keep(
        &self,
        endpoint: &str,
        id: &str,
        parts: &[(PayloadKind, Bytes)],
        chunk: Option<&Bytes>,
    ) -> Result<(), StoreError> {
        for (part, body) in parts {
            self.keep_part(endpoint, id, *part, body)?;
        }
        if let Some(chunk) = chunk {
            self.run("INSERT INTO chunks (endpoint, id, body) VALUES (?1, ?2, ?3)", params![endpoint, id, &**chunk])?;
        }
        Ok(())
    }

    pub(super) fn keep_part(&self, endpoint: &str, id: &str, part: PayloadKind, body: &[u8]) -> Result<(), StoreError> {
        let text = "INSERT OR REPLACE INTO parts (endpoint, id, part, body) VALUES (?1, ?2, ?3, ?4)";
        self.run(text, params![endpoint, id, part as u8, body])
    }

    /// How many bytes a payload has, and which, if they are at most so many.
    fn part(
        &self,
        endpoint: &str,
        id: &str,
        part: PayloadKind,
        most: usize,
    ) -> Result<Option<(usize, Option<Bytes>)>, StoreError> {
        // The length alone is read without the body.
        let text = "SELECT length(body), CASE WHEN length(body) <= ?4 THEN body END
                    FROM parts WHERE endpoint = ?1 AND id = ?2 AND part = ?3";
        let mut select = self.db.prepare_cached(text)?;
        let values = params![endpoint, id, part as u8, i64::try_from(most).unwrap_or(i64::MAX)];
        let read =
            |row: &Row<'_>| Ok((row.get::<_, i64>(0)? as usize, row.get::<_, Option<Vec<u8>>>(1)?.map(Bytes::from)));
        Ok(select.query_row(values, read).optional()?)
    }

    pub(super) fn take_chunks(&self, endpoint: &str, id: &str, most: usize) -> Result<TakenChunks, StoreError> {
        let text = "SELECT number, length(body), CASE WHEN length(body) <= ?3 THEN body END
                    FROM chunks WHERE endpoint = ?1 AND id = ?2 ORDER BY number";
        let (mut drained, mut bytes, mut last, mut next) = (Vec::new(), 0, 0, None);
        let mut select = self.db.prepare_cached(text)?;
        let mut rows = select.query(params![endpoint, id, i64::try_from(most).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            let (number, length) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)? as usize);
            bytes += length;
            if bytes > most {
                next = Some(length);
                break;
            }
            last = number;
            drained.push(Bytes::from(row.get::<_, Vec<u8>>(2)?));
        }
        if !drained.is_empty() {
            let taken = params![endpoint, id, last];
            self.run("DELETE FROM chunks WHERE endpoint = ?1 AND id = ?2 AND number <= ?3", taken)?;
        }
        Ok((drained, next))
    }
}
