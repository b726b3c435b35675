//! `latentd model list`: what there is to draw with, and why some of it cannot be drawn with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, complain, say};
use crate::app::checks::{Verdict, weights};
use crate::config::weights::bytes;
use crate::config::{Config, FoundModel};
use crate::job::Defaults;
use crate::models::size;
use crate::models::{Manifest, Recognised, defaults, is_staging, recognise};

/// A model as it is told.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    family: Option<String>,
    /// Bytes of its weights.
    bytes: u64,
    licence: Option<String>,
    /// Where it came from, as far as that was written down.
    source: Option<String>,
    path: Option<PathBuf>,
    /// What holds for its jobs.
    #[serde(flatten)]
    defaults: Option<Defaults>,
    /// Why it cannot be drawn with.
    fault: Option<String>,
}

/// Prints all models.
pub(super) fn execute(config: &Config, as_json: bool) -> Exit {
    let mut rows: Vec<Row> = config.found().into_iter().map(row).chain(others(&config.models_dir)).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let text = if as_json { serde_json::to_string(&rows).map_err(io::Error::other) } else { Ok(table(&rows)) };
    match text.and_then(|text| say(&text)) {
        Ok(()) => Exit::Done,
        Err(cause) => {
            complain(&format!("cannot print the models: {cause}"));
            Exit::Failed
        }
    }
}

fn row(found: FoundModel) -> Row {
    let name = found.name;
    let path = match found.path {
        Ok(path) => path,
        Err(cause) => return Row { name, fault: Some(cause.to_string()), ..Row::default() },
    };
    let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
    // Beside a single file lies the manifest of that file only if it is in a folder of its own, which has its name.
    let own = folder.filter(|folder| path.is_dir() || folder.file_name().is_some_and(|folder| *folder == *name));
    // Others call files by that name, too: what it does not tell is not known.
    let about = own.and_then(|folder| Manifest::read(folder).ok().flatten()).unwrap_or_default();
    let (told, own_defaults) = (recognise(&path), defaults(&path));
    let check = weights::check(&path);
    let fault = match &told {
        _ if check.verdict == Verdict::Fail => Some(check.found),
        Err(cause) => Some(cause.to_string()),
        Ok(Recognised::Other(name)) => Some(format!("the family {name} does not load")),
        Ok(Recognised::Loads(_) | Recognised::Inpaints(_)) => own_defaults.as_ref().err().map(ToString::to_string),
    };
    let source = about.repository.map(|repository| match about.revision {
        Some(revision) => format!("{repository}@{revision}"),
        None => repository,
    });
    Row {
        name,
        family: told.ok().map(|told| told.to_string()),
        bytes: bytes(&path),
        licence: about.licence,
        source: source.or(about.url),
        path: Some(path),
        defaults: own_defaults.ok(),
        fault,
    }
}

/// What lies in the folder of models and is none, and people may take for one.
fn others(models_dir: &Path) -> Vec<Row> {
    let entries = fs::read_dir(models_dir).into_iter().flatten().flatten();
    let other = |path: PathBuf| {
        let fault = if let Some(name) = is_staging(&path) {
            return Some(Row {
                name: name.to_owned(),
                fault: Some("it is not pulled to its end: the same command goes on with it".into()),
                path: Some(path),
                ..Row::default()
            });
        } else if path
            .extension()
            .is_some_and(|ending| ["ckpt", "pt", "pth", "bin"].iter().any(|known| ending == *known))
        {
            "it is a pickle, which can run code and is not opened: models/README.md says how to convert it"
        } else {
            return None;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(Row { name, fault: Some(fault.into()), path: Some(path), ..Row::default() })
    };
    entries.filter_map(|entry| other(entry.path())).collect()
}

/// Five columns; below a model its own defaults, and what is wrong with it.
fn table(rows: &[Row]) -> String {
    let unknown = || "-".to_owned();
    let head = ["NAME", "FAMILY", "SIZE", "LICENCE", "WHERE"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let place = row.path.as_ref().map_or_else(unknown, |path| path.display().to_string());
        let bytes = if row.bytes == 0 { unknown() } else { size(row.bytes) };
        let (family, licence) = (row.family.clone(), row.licence.clone());
        [row.name.clone(), family.unwrap_or_else(unknown), bytes, licence.unwrap_or_else(unknown), place]
    });
    let cells: Vec<[String; 5]> = [head].into_iter().chain(cells).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let line = |row: &[String; 5]| {
        let columns = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        format!("{}{}", columns.collect::<String>(), row[4])
    };
    let below = |row: &Row| {
        let own = row.defaults.as_ref().map(Defaults::told).filter(|told| !told.is_empty());
        let own = own.map(|told| format!("  by default {told}"));
        own.into_iter().chain(row.fault.as_ref().map(|fault| format!("  → {}", fault.replace('\n', "; "))))
    };
    let below = [Vec::new()].into_iter().chain(rows.iter().map(|row| below(row).collect()));
    let lines = cells.iter().zip(below).flat_map(|(row, below): (_, Vec<String>)| [line(row)].into_iter().chain(below));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Contract;

    #[test]
    fn people_see_columns_and_faults_below() {
        let sound = Row {
            name: "sd-1.5".into(),
            family: Some("sd1".into()),
            bytes: 3 << 30,
            licence: Some("CreativeML OpenRAIL-M".into()),
            path: Some("/m/sd-1.5".into()),
            defaults: Defaults::from_json(br#"{"defaults": {"num_inference_steps": 20}}"#, Contract::Sd1).ok(),
            ..Row::default()
        };
        let broken = Row { name: "b".into(), fault: Some("it is\nbroken".into()), ..Row::default() };
        assert_eq!(
            table(&[sound, broken]),
            "NAME    FAMILY  SIZE     LICENCE                WHERE\n\
             sd-1.5  sd1     3.0 GiB  CreativeML OpenRAIL-M  /m/sd-1.5\n  by default num_inference_steps 20\n\
             b       -       -        -                      -\n  → it is; broken"
        );
    }
}
