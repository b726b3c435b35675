//! The process's environment: read once, here and nowhere else.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

/// The variables that can concern us. An empty variable counts as none.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads them")]
    pub fn of_process() -> Self {
        // What is not Unicode is no name of ours, and no value that any setting can have.
        env::vars_os().map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into())).collect()
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Where this program keeps what outlives it, after the XDG Base Directory Specification, which demands absolute paths.
    pub(super) fn data_dir(&self) -> PathBuf {
        let absolute = |name: &str| self.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || absolute("HOME").map(|home| home.join(".local/share"));
        // Services and containers may have no home.
        absolute("XDG_DATA_HOME").or_else(home).unwrap_or_else(|| "/var/lib".into()).join("latentd")
    }

    /// Where the hub's own tools keep the token that a person gave them.
    pub(super) fn hub_token_file(&self) -> PathBuf {
        let cache = || self.get("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || self.get("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let hub = self.get("HF_HOME").map(PathBuf::from);
        let hub = hub.unwrap_or_else(|| cache().or_else(home).unwrap_or_default().join("huggingface"));
        self.get("HF_TOKEN_PATH").map_or_else(|| hub.join("token"), PathBuf::from)
    }

    /// Variables by name, each with what follows `prefix` in its name.
    pub(super) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.as_str(), name.strip_prefix(prefix)?, value.as_str())))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}

/// The folder that the program is in, and the one that that is in.
pub(super) fn program_folders() -> Vec<PathBuf> {
    let program = env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    program.ancestors().skip(1).take(2).map(Path::to_path_buf).collect()
}

/// `models/` beside the program, or beside the folder that it is in, else in the checkout that it was built from.
pub(super) fn default_models_dir() -> PathBuf {
    let installed = program_folders().into_iter().map(|folder| folder.join("models")).find(|path| path.is_dir());
    installed.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("models"))
}
