//! Several models in one process: which there are, and what they may take.

use std::path::{Path, PathBuf};

use super::model_entry::{LoadTime, ModelEntry};
use super::{Config, ConfigError, ConfigFault, ModelPath, weights};

const MIB: u64 = 1 << 20;

/// A model that jobs may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// What they call it, and where it is.
    pub model: ModelPath,
    /// Bytes that it takes on a device: what the configuration says, else twice its files, which are f16 mostly.
    pub bytes: u64,
    /// Whether it is loaded before the first job.
    pub at_start: bool,
}

/// A model that there may be, whether or not it is served.
#[derive(Debug)]
pub struct FoundModel {
    /// What it is called.
    pub name: String,
    /// Where it is, or why that is not known.
    pub path: Result<PathBuf, ConfigError>,
}

impl Config {
    /// Every model that can be named: those in `models_dir`, those of `[[models]]`, and the one of jobs that name none.
    pub fn found(&self) -> Vec<FoundModel> {
        let by_name = ModelPath::names(&self.models_dir)
            .into_iter()
            .filter_map(|name| ModelPath::find(&name, &self.models_dir, &self.hub_caches));
        let mut found: Vec<FoundModel> =
            by_name.map(|model| FoundModel { name: model.name, path: Ok(model.path) }).collect();
        let listed =
            self.listed.iter().map(|listed| (listed.name.clone(), self.served(listed).map(|served| served.model.path)));
        let first = self.model().map(|model| (model.name, Ok(model.path)));
        let first = first.unwrap_or_else(|cause| (self.model.clone(), Err(cause)));
        for (name, path) in listed.chain([first]) {
            match found.iter_mut().find(|known| known.name == name) {
                Some(known) => known.path = path,
                None => found.push(FoundModel { name, path }),
            }
        }
        found
    }

    /// The model of a name that is among [`Self::found`], else the one at a path.
    pub fn find(&self, wanted: &str) -> Option<ModelPath> {
        let named = self.found().into_iter().find(|found| found.name == wanted);
        let named = named.and_then(|found| Some(ModelPath { name: found.name, path: found.path.ok()? }));
        named.or_else(|| ModelPath::find(wanted, &self.models_dir, &self.hub_caches))
    }

    /// The models that jobs may ask for; the first is that of jobs which name none.
    ///
    /// # Errors
    /// One is not there, two have one name, the first is to be loaded on demand, or one, or those that are loaded at the start take
    /// more than all together may.
    pub fn models(&self) -> Result<Vec<ServedModel>, ConfigError> {
        let first = self.model()?;
        let mut models = vec![ServedModel { bytes: estimated(&first.path), model: first, at_start: true }];
        for listed in &self.listed {
            let served = self.served(listed)?;
            match models.iter_mut().find(|known| known.model.name == served.model.name) {
                // The list may say more about the first.
                Some(known) if known.model == served.model && known.at_start => {
                    if listed.load == Some(LoadTime::Demand) {
                        let allowed =
                            "\"start\", or leave it out: the model of jobs that name none is loaded at the start";
                        return Err(self.refuse_listed(listed, "load", "demand", allowed.into()));
                    }
                    known.bytes = served.bytes;
                }
                Some(known) => {
                    return Err(self.refuse("models", format!("one model of the name {:?}", known.model.name)));
                }
                None => models.push(served),
            }
        }
        let limit = self.models_memory().unwrap_or(u64::MAX);
        if let Some(large) = models.iter().find(|served| served.bytes > limit) {
            let least = large.bytes.div_ceil(MIB);
            return Err(self.refuse("models_memory", format!("at least {least} MiB, what {} takes", large.model.name)));
        }
        let first: Vec<&ServedModel> = models.iter().filter(|served| served.at_start).collect();
        let together = first.iter().map(|served| served.bytes).fold(0, u64::saturating_add);
        if together > limit {
            let (least, names) = (together.div_ceil(MIB), first.iter().map(|served| served.model.name.as_str()));
            let names: Vec<&str> = names.collect();
            let why = "what is loaded at the start takes together";
            let allowed = format!("at least {least} MiB, {why} ({}), or load = \"demand\" for some", names.join(", "));
            return Err(self.refuse("models_memory", allowed));
        }
        Ok(models)
    }

    /// Bytes on each device for all models together; `None` is no limit.
    pub fn models_memory(&self) -> Option<u64> {
        self.models_memory.map(|mib| mib.saturating_mul(MIB))
    }

    fn served(&self, listed: &ModelEntry) -> Result<ServedModel, ConfigError> {
        let wanted = listed.path.as_ref().map_or_else(|| listed.name.clone(), |path| path.display().to_string());
        let found = ModelPath::find(&wanted, &self.models_dir, &self.hub_caches);
        let ModelPath { path, .. } = found.ok_or_else(|| {
            let folder = self.models_dir.display();
            let allowed = format!("a folder, a .safetensors file, or a name under {folder}");
            self.refuse_listed(listed, "path", &wanted, allowed)
        })?;
        let bytes = listed.memory.map_or_else(|| estimated(&path), |mib| mib.saturating_mul(MIB));
        Ok(ServedModel {
            model: ModelPath { name: listed.name.clone(), path },
            bytes,
            at_start: listed.load == Some(LoadTime::Start),
        })
    }

    /// The fault of an entry of the list.
    fn refuse_listed(&self, listed: &ModelEntry, key: &str, value: &str, allowed: String) -> ConfigError {
        let list = self.entries.iter().find(|entry| entry.key == "models");
        ConfigError(vec![ConfigFault::Value {
            key: format!("models.{}.{key}", listed.name),
            value: format!("{value:?}"),
            origin: list.map(|entry| entry.source.clone()).unwrap_or_default(),
            allowed,
        }])
    }
}

fn estimated(path: &Path) -> u64 {
    2 * weights::bytes(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::super::{Environment, Flags};
    use super::*;

    /// Models `a` of 3 MiB and `b` of 1 MiB in a folder, and the file's text as configuration.
    fn models(text: &str) -> Result<Vec<(String, u64, bool)>, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, mib) in [("a", 3), ("b", 1)] {
            let unet = folder.path().join(name).join("unet");
            fs::create_dir_all(&unet).unwrap();
            fs::write(unet.join("weights.safetensors"), vec![0; mib << 20]).unwrap();
            fs::write(unet.join("config.json"), "{}").unwrap();
        }
        let file = folder.path().join("my.toml");
        fs::write(&file, format!("model = 'a'\nmodels_dir = '{}'\n{text}", folder.path().display())).unwrap();
        let at = file.display().to_string();
        let config = Config::load(&Flags { file: Some(file), settings: Vec::new() }, &Environment::default());
        let served =
            config.and_then(|config| config.models()).map_err(|error| error.to_string().replace(&at, "FILE"))?;
        Ok(served.into_iter().map(|served| (served.model.name, served.bytes >> 20, served.at_start)).collect())
    }

    fn served(name: &str, mib: u64, at_start: bool) -> (String, u64, bool) {
        (name.into(), mib, at_start)
    }

    #[test]
    fn the_model_of_jobs_that_name_none_comes_first() {
        assert_eq!(models("").unwrap(), [served("a", 6, true)]);
        let more = "[[models]]\nname = 'b'\n[[models]]\nname = 'two'\npath = 'b'\nmemory = 9\nload = 'start'\n";
        assert_eq!(models(more).unwrap(), [served("a", 6, true), served("b", 2, false), served("two", 9, true)]);
        assert_eq!(models("[[models]]\nname = 'a'\nmemory = 5\n").unwrap(), [served("a", 5, true)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("[[models]]\nname = 'c'\n", "models.c.path = \"c\""),
            ("[[models]]\npath = 'b'\n", "models"),
            ("[[models]]\nname = 'b'\nload = 'later'\n", "\"start\" or \"demand\""),
            ("[[models]]\nname = 'b'\n[[models]]\nname = 'b'\n", "one model of the name \"b\""),
            ("models_memory = 5\n", "at least 6 MiB, what a takes"),
            (
                "models_memory = 7\n[[models]]\nname = 'b'\nload = 'start'\n",
                "models_memory = 7 (from FILE) is not possible: use at least 8 MiB, what is loaded at the start takes together \
                 (a, b), or load = \"demand\" for some",
            ),
            (
                "[[models]]\nname = 'a'\nload = 'demand'\n",
                "models.a.load = \"demand\" (from FILE) is not possible: use \"start\", or leave it out",
            ),
        ] {
            let error = models(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let demand = "models_memory = 7\n[[models]]\nname = 'b'\n";
        assert_eq!(models(demand).unwrap(), [served("a", 6, true), served("b", 2, false)]);
    }
}
