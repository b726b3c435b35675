//! Takes typed settings out of merged layers, and remembers where each came from.

use std::path::PathBuf;

use figment::Figment;

use super::entry::Entry;
use super::error::ConfigFault;
use super::setting::Setting;

/// Merged layers, and what was found in them so far.
pub(super) struct Reader {
    merged: Figment,
    faults: Vec<ConfigFault>,
    entries: Vec<Entry>,
}

impl Reader {
    pub(super) fn new(merged: Figment, faults: Vec<ConfigFault>) -> Self {
        Self { merged, faults, entries: Vec::new() }
    }

    /// Every setting that was read, and everything that is wrong.
    pub(super) fn end(self) -> (Vec<Entry>, Vec<ConfigFault>) {
        (self.entries, self.faults)
    }

    /// `None` comes with a fault.
    pub(super) fn read<S: Setting>(&mut self, key: &str) -> Option<S> {
        let origin = self.merged.find_metadata(key).map(|metadata| metadata.name.to_string()).unwrap_or_default();
        let value = self.merged.find_value(key).ok();
        let shown = value.as_ref().map(S::show).unwrap_or_default();
        let read = value.as_ref().and_then(S::read);
        self.entries.push(Entry { key: key.into(), value: shown, source: origin });
        if read.is_none() {
            self.refuse(key, S::ALLOWED.into());
        }
        read
    }

    /// Whether somebody gave the setting that was read last.
    pub(super) fn was_given(&self) -> bool {
        self.entries.last().is_some_and(|entry| entry.source != "default")
    }

    /// A folder that `usual` knows where the setting is `auto`, and that people are shown as it is then.
    pub(super) fn folder(&mut self, key: &str, usual: impl FnOnce() -> PathBuf) -> Option<PathBuf> {
        let folder = match self.read::<String>(key)?.as_str() {
            "auto" => usual(),
            path => path.into(),
        };
        self.show_last(folder.display().to_string());
        Some(folder)
    }

    /// People are shown this for the setting that was read last.
    pub(super) fn show_last(&mut self, shown: String) {
        if let Some(entry) = self.entries.last_mut() {
            entry.value = shown.into();
        }
    }

    /// A setting that was read cannot be what it is.
    pub(super) fn refuse(&mut self, key: &str, allowed: String) {
        self.faults.push(ConfigFault::of(&self.entries, key, allowed));
    }
}
