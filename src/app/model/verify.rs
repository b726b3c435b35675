//! `latentd model verify`: whether a model's files are what they were when their hashes were written down.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Exit, complain, say, usage};
use crate::app::checks::{Verdict, weights};
use crate::config::Config;
use crate::models::{Digest, SUMS, read_sums};

/// Checks the model `name` and says what differs.
pub(super) fn execute(name: &str, config: &Config) -> Exit {
    let Some(model) = config.find(name) else {
        let names: Vec<String> = config.found().into_iter().map(|found| found.name).collect();
        return usage(&format!("there is no model {name:?}; there are {}", names.join(", ")));
    };
    let (lines, sound) = verify(&model.path);
    let verdict = if sound { "sound" } else { "NOT SOUND: remove it and pull it again" };
    let lines = lines.join("\n");
    match say(&format!("{lines}\n{name} is {verdict}")) {
        Ok(()) if sound => Exit::Done,
        Ok(()) => Exit::Failed,
        Err(cause) => {
            complain(&format!("cannot print what was found: {cause}"));
            Exit::Failed
        }
    }
}

/// What was found of the model at `path`, and whether that is well.
fn verify(path: &Path) -> (Vec<String>, bool) {
    let check = weights::check(path);
    let mut sound = check.verdict != Verdict::Fail;
    let mut lines = vec![format!("headers and sizes: {}", check.found)];
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let sums = match read_sums(folder) {
        Ok(Some(sums)) => sums,
        Ok(None) => {
            lines.push(format!("hashes: there is no {SUMS} beside it, so they were not compared"));
            return (lines, sound);
        }
        Err(cause) => {
            lines.push(format!("hashes: {SUMS} cannot be used: {cause}"));
            return (lines, false);
        }
    };
    // One checkpoint among others has a line of its own in a list of all.
    let concerned = |file: &Path| path.is_dir() || file == path;
    let files: Vec<(PathBuf, Digest)> = sums.iter().map(|(place, sum)| (place.within(folder), *sum)).collect();
    let files: Vec<_> = files.into_iter().filter(|(file, _)| concerned(file)).collect();
    let bar = bar(files.iter().filter_map(|(file, _)| fs::metadata(file).ok()).map(|file| file.len()).sum());
    for (file, expected) in &files {
        let name = file.strip_prefix(folder).unwrap_or(file).display();
        let found = match Digest::of_file(file, |bytes| bar.inc(bytes)) {
            Ok(found) if found == *expected => format!("{name}: as it should be"),
            found => {
                sound = false;
                match found {
                    Ok(found) => format!("{name}: DIFFERS, its SHA-256 is {found} and should be {expected}"),
                    Err(cause) => format!("{name}: CANNOT BE READ: {cause}"),
                }
            }
        };
        lines.push(found);
    }
    bar.finish_and_clear();
    let listed: HashSet<&PathBuf> = files.iter().map(|(file, _)| file).collect();
    for file in crate::config::weights::files(path).iter().filter(|file| !listed.contains(file)) {
        sound = false;
        lines.push(format!("{}: IS NOT LISTED in {SUMS}", file.strip_prefix(folder).unwrap_or(file).display()));
    }
    (lines, sound)
}

fn bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
