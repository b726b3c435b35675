//! `latentd config show`.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::{Exit, complain, say};
use crate::config::{Config, Entry};

/// Prints every setting with where it came from.
pub(super) fn show(config: &Config, json: bool) -> Exit {
    let shown = if json { object(config.entries()).to_string() } else { table(config.entries()) };
    match say(&shown) {
        Ok(()) => Exit::Done,
        Err(cause) => {
            complain(&format!("cannot print the configuration: {cause}"));
            Exit::Failed
        }
    }
}

fn object(entries: &[Entry]) -> Value {
    let of = |entry: &Entry| (entry.key.clone(), json!({"value": entry.value, "source": entry.source}));
    Value::Object(entries.iter().map(of).collect::<Map<_, _>>())
}

/// Three columns: setting, value, source.
fn table(entries: &[Entry]) -> String {
    let rows: Vec<(&str, String, &str)> = entries
        .iter()
        .map(|entry| {
            let value = entry.value.as_str().map_or_else(|| entry.value.to_string(), str::to_owned);
            (entry.key.as_str(), value, entry.source.as_str())
        })
        .collect();
    let keys = rows.iter().map(|(key, ..)| key.chars().count()).max().unwrap_or(0);
    let values = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0);
    let mut table = String::new();
    for (key, value, source) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{key:keys$}  {value:values$}  {source}");
    }
    table.truncate(table.trim_end().len());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> [Entry; 2] {
        [
            Entry { key: "device".into(), value: "cpu".into(), source: "--device".into() },
            Entry { key: "log.prompts".into(), value: false.into(), source: "default".into() },
        ]
    }

    #[test]
    fn people_see_columns() {
        assert_eq!(table(&entries()), "device       cpu    --device\nlog.prompts  false  default");
    }

    #[test]
    fn programs_see_an_object() {
        let expected =
            r#"{"device":{"value":"cpu","source":"--device"},"log.prompts":{"value":false,"source":"default"}}"#;
        assert_eq!(object(&entries()).to_string(), expected);
    }
}
