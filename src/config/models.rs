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
    /// What goes on after it, if there is such a model.
    pub refiner: Option<ModelPath>,
    /// Bytes that both take on a device: what the configuration says, else twice their files, which are f16 mostly.
    pub bytes: u64,
    /// Whether it is loaded before the first job.
    pub at_start: bool,
}

impl ServedModel {
    /// Where its files are, and those of its refiner.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.model), self.refiner.as_ref()].into_iter().flatten().map(|model| model.path.as_path())
    }

    /// Bytes of all of these files.
    pub fn file_bytes(&self) -> u64 {
        self.paths().map(weights::bytes).sum()
    }

    /// The same with the memory that its files tell of.
    fn estimated(self) -> Self {
        Self { bytes: 2 * self.file_bytes(), ..self }
    }
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
        let refiner = self.refiner(self.refiner.as_deref(), |allowed| self.refuse("refiner", allowed))?;
        let mut models = vec![ServedModel { model: first, refiner, bytes: 0, at_start: true }.estimated()];
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
                    if let (Some(_), Some(refiner)) = (&known.refiner, &listed.refiner) {
                        let allowed = "one of the two: it is set as refiner, too".to_owned();
                        return Err(self.refuse_listed(listed, "refiner", refiner, allowed));
                    }
                    let refiner = known.refiner.take().or(served.refiner);
                    let both = ServedModel { refiner, ..known.clone() }.estimated();
                    known.bytes = listed.memory.map_or(both.bytes, |_| served.bytes);
                    known.refiner = both.refiner;
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
        let named = listed.refiner.as_deref();
        let refuse = |allowed| self.refuse_listed(listed, "refiner", named.unwrap_or_default(), allowed);
        let refiner = self.refiner(named, refuse)?;
        let at_start = listed.load == Some(LoadTime::Start);
        let model = ModelPath { name: listed.name.clone(), path };
        let served = ServedModel { model, refiner, bytes: 0, at_start }.estimated();
        Ok(match listed.memory {
            Some(mib) => ServedModel { bytes: mib.saturating_mul(MIB), ..served },
            None => served,
        })
    }

    /// The refiner of this name, or at this path; of none there is none.
    fn refiner(
        &self,
        wanted: Option<&str>,
        refuse: impl FnOnce(String) -> ConfigError,
    ) -> Result<Option<ModelPath>, ConfigError> {
        let Some(wanted) = wanted else { return Ok(None) };
        let found = ModelPath::find(wanted, &self.models_dir, &self.hub_caches);
        let folder = self.models_dir.display();
        let allowed = || {
            format!(
                "a folder, a .safetensors file, or a name under {folder}; `latentd model pull sdxl-refiner` fetches one"
            )
        };
        found.map(Some).ok_or_else(|| refuse(allowed()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::super::{Environment, Flags};
    use super::*;

    /// What `read` finds in the configuration of models `a` of 3 MiB and `b` of 1 MiB in a folder, with `text` as its file.
    fn with_config<T>(text: &str, read: impl FnOnce(&Config) -> Result<T, String>) -> Result<T, String> {
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
        let found = config.map_err(|error| error.to_string()).and_then(|config| read(&config));
        found.map_err(|error| error.replace(&at, "FILE"))
    }

    fn models(text: &str) -> Result<Vec<(String, u64, bool)>, String> {
        with_config(text, |config| {
            let served = config.models().map_err(|error| error.to_string())?;
            Ok(served.into_iter().map(|served| (served.model.name, served.bytes >> 20, served.at_start)).collect())
        })
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

    /// The refiners of the models, by what the configuration says.
    fn refiners(text: &str) -> Vec<(u64, Option<String>)> {
        with_config(text, |config| {
            let served = config.models().map_err(|error| error.to_string())?;
            let of = |served: ServedModel| (served.bytes >> 20, served.refiner.map(|refiner| refiner.name));
            Ok(served.into_iter().map(of).collect())
        })
        .unwrap()
    }

    #[test]
    fn a_refiner_takes_memory_beside_its_model() {
        let b = || Some("b".to_owned());
        assert_eq!(refiners("refiner = 'b'\n"), [(8, b())]);
        assert_eq!(refiners("refiner = 'b'\n[[models]]\nname = 'b'\n"), [(8, b()), (2, None)]);
        assert_eq!(refiners("[[models]]\nname = 'a'\nrefiner = 'b'\n"), [(8, b())]);
        assert_eq!(refiners("refiner = 'b'\n[[models]]\nname = 'a'\nmemory = 5\n"), [(5, b())]);
        assert_eq!(refiners("[[models]]\nname = 'two'\npath = 'a'\nrefiner = 'b'\n"), [(6, None), (8, b())]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("[[models]]\nname = 'c'\n", "models.c.path = \"c\""),
            ("[[models]]\npath = 'b'\n", "models"),
            ("[[models]]\nname = 'b'\nload = 'later'\n", "\"start\" or \"demand\""),
            ("[[models]]\nname = 'b'\n[[models]]\nname = 'b'\n", "one model of the name \"b\""),
            (
                "refiner = 'c'\n",
                "refiner = \"c\" (from FILE) is not possible: use a folder, a .safetensors file, or a name under",
            ),
            ("[[models]]\nname = 'b'\nrefiner = 'c'\n", "models.b.refiner = \"c\""),
            ("refiner = 'b'\n[[models]]\nname = 'a'\nrefiner = 'b'\n", "it is set as refiner, too"),
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
