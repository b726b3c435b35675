//! What is asked of the table of keys.

use rusqlite::{OptionalExtension, params};

use super::super::json;
use super::super::{KeyRecord, StoreError};
use super::tables::Tables;

impl Tables<'_> {
    pub(super) fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let texts: Vec<String> = self.rows("SELECT record FROM keys ORDER BY name", [], |row| row.get(0))?;
        let read = |text: &String| serde_json::from_str(text);
        let keys: Result<_, serde_json::Error> = texts.iter().map(read).collect();
        keys.map_err(|error| StoreError::Failed(format!("a key cannot be read: {error}")))
    }

    pub(super) fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        let mut select = self.db.prepare_cached("SELECT 1 FROM keys WHERE name = ?1")?;
        let taken: Option<i64> = select.query_row([&key.name], |row| row.get(0)).optional()?;
        if taken.is_some() {
            return Err(StoreError::Duplicate);
        }
        self.run("INSERT INTO keys (name, record) VALUES (?1, ?2)", params![key.name, json(key)?])
    }

    pub(super) fn remove_key(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.db.prepare_cached("DELETE FROM keys WHERE name = ?1")?.execute([name])? > 0)
    }
}
