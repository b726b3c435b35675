//! `latentd config show`.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Exit, complain, say};
use crate::config::{Config, Entry};
use crate::models::{defaults, defaults_file};

/// Prints every setting with where it came from, and the defaults that the model of jobs which name none has of its own.
pub(super) fn show(config: &Config, json: bool) -> Exit {
    let mut entries = config.entries().to_vec();
    let models = config.models().unwrap_or_default();
    entries.extend(models.first().into_iter().flat_map(|served| of_model(&served.model.path)));
    let shown = if json { object(&entries).to_string() } else { table(&entries) };
    match say(&shown) {
        Ok(()) => Exit::Done,
        Err(cause) => {
            complain(&format!("cannot print the configuration: {cause}"));
            Exit::Failed
        }
    }
}

/// What `latentd.json` of the model at `path` sets; nothing if it cannot be used, which whoever draws with it says.
fn of_model(path: &Path) -> Vec<Entry> {
    let Ok(defaults) = defaults(path) else { return Vec::new() };
    let source = defaults_file(path).display().to_string();
    let entry = |(name, value): (&str, &Value)| Entry {
        key: format!("model.defaults.{name}"),
        value: value.clone(),
        source: source.clone(),
    };
    defaults.own().map(entry).collect()
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
    fn a_model_s_own_defaults_are_told_with_their_file() {
        let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji");
        let told = of_model(&emoji);
        let entry = |key: &str, value: u64| Entry {
            key: format!("model.defaults.{key}"),
            value: value.into(),
            source: emoji.join("latentd.json").display().to_string(),
        };
        assert_eq!(told, [entry("num_inference_steps", 20), entry("guidance_scale", 5)]);
        assert_eq!(of_model(Path::new("/nowhere")), []);
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
