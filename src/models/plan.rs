//! What a pull will do, before it touches the disk: which files, from where, under what licence and what name.

use std::fs;
use std::path::Path;

use super::digest::Digest;
use super::error::PullError;
use super::hub::{Hub, Repository};
use super::item::Item;
use super::limits::ENDING;
use super::manifest::Manifest;
use super::persist::persist;
use super::place::RelativePath;
use super::select::UnusableRepository;
use super::snapshot::Snapshot;
use crate::job::Family;
use crate::net::{DownloadError, Resume, Url};

/// The revision where none is named.
const DEFAULT_REVISION: &str = "main";

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// A known model's name, a repository with or without `@revision`, or the URL of a file.
    pub what: String,
    /// The revision, if it is not in `what`.
    pub revision: Option<String>,
    /// Which weights of a repository, as in `fp16`.
    pub variant: Option<String>,
    /// The repository or the known name of an autoencoder that takes the place of the model's own.
    pub vae: Option<String>,
    /// What to call it here.
    pub name: Option<String>,
    /// What the file at a URL must hash to.
    pub sha256: Option<Digest>,
}

/// What `what` of an order is.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// One of the known models, by its name here.
    Known(String, Box<Manifest>),
    /// A repository, at a revision if one was named.
    Repository(Repository, Option<String>),
    /// A file.
    File(Url),
}

/// What a pull will do.
#[derive(Debug, Clone)]
pub struct PullPlan {
    /// What the model will be called.
    pub name: String,
    /// What is known of it before it is fetched. The revision is the commit.
    pub about: Manifest,
    /// Its files.
    pub items: Vec<Item>,
}

impl What {
    /// Reads what was asked for.
    ///
    /// # Errors
    /// The text is none of the three.
    pub fn parse(text: &str) -> Result<Self, PullError> {
        let wrong = || PullError::What(text.to_owned());
        if text.contains("://") {
            let url: Url = text.parse().map_err(|_| wrong())?;
            return if matches!(url.scheme(), "http" | "https") { Ok(Self::File(url)) } else { Err(wrong()) };
        }
        if let Some(manifest) = Manifest::known(text) {
            return Ok(Self::Known(text.to_owned(), Box::new(manifest)));
        }
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) if !revision.is_empty() => (repository, Some(revision.to_owned())),
            Some(_) => return Err(wrong()),
            None => (text, None),
        };
        Ok(Self::Repository(Repository::parse(repository).ok_or_else(wrong)?, revision))
    }
}

impl PullPlan {
    /// Whether the model in `folder` is what this would fetch, as far as its manifest and its files' sizes say.
    pub fn is_done(&self, folder: &Path) -> bool {
        let Ok(Some(there)) = Manifest::read(folder) else { return false };
        let from =
            |about: &Manifest| (about.repository.clone(), about.revision.clone(), about.url.clone(), about.vae.clone());
        let has = |item: &Item| {
            let found = there.files.iter().find(|file| file.path == item.path);
            let size = fs::metadata(item.path.within(folder)).ok().map(|file| file.len());
            found.is_some_and(|file| item.sha256.is_none_or(|sha256| sha256 == file.sha256) && file.bytes == size)
        };
        from(&there) == from(&self.about) && self.items.iter().all(has)
    }

    /// Bytes of all files, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.items.iter().filter_map(|item| item.bytes).fold(0, u64::saturating_add)
    }
}

/// Asks the hub, or the file's host, and says what a pull will do.
///
/// # Errors
/// What was asked for does not go together, is not there, or is no model that loads.
pub async fn plan(hub: &Hub, order: Order) -> Result<PullPlan, PullError> {
    let plan = match What::parse(&order.what)? {
        What::File(url) => of_file(hub, url, &order).await?,
        _ if order.sha256.is_some() => {
            return Err(PullError::Flag(
                "--sha256 is for the URL of a file: a hub tells the hashes of a repository itself",
            ));
        }
        What::Repository(_, Some(_)) if order.revision.is_some() => {
            return Err(PullError::Flag("the revision is named twice: leave out --revision, or what follows the @"));
        }
        what => of_repository(hub, what, &order).await?,
    };
    if !is_name(&plan.name) {
        return Err(PullError::Name(plan.name));
    }
    Ok(plan)
}

async fn of_repository(hub: &Hub, what: What, order: &Order) -> Result<PullPlan, PullError> {
    let known_as = match &what {
        What::Known(name, _) => Some(name.clone()),
        _ => None,
    };
    let (repository, revision, known) = source(what, order.revision.as_deref(), &order.what)?;
    if known_as.is_some() && Family::from_name(&known.family).is_none() {
        return Err(match known.family.as_str() {
            Manifest::VAE => {
                PullError::Unfit { repository: repository.to_string(), cause: UnusableRepository::Autoencoder }
            }
            _ => PullError::Family(repository.to_string(), known.family),
        });
    }
    let name = order.name.clone().or(known_as).unwrap_or_else(|| repository.name().to_owned());
    let variant = order.variant.clone().or_else(|| known.variant.clone());
    // What cannot be asked for is told before the hub is called.
    let vae = order.vae.as_deref().map(|vae| source(What::parse(vae)?, None, vae)).transpose()?;
    let snapshot = Snapshot::of(hub, repository, &revision, known).await?;
    let (mut items, mut about) = (snapshot.model(variant.as_deref()).await?, snapshot.about());
    if let Some((repository, revision, known)) = vae {
        let vae = Snapshot::of(hub, repository, &revision, known).await?;
        items.retain(|item| item.path.parts().0 != Some("vae"));
        items.extend(vae.vae(variant.as_deref()).await?);
        about.vae = Some(vae.source());
    }
    Ok(PullPlan { name, about, items })
}

/// Which repository is meant, at which revision, and what is known of it. `text` is what people typed.
fn source(what: What, revision: Option<&str>, text: &str) -> Result<(Repository, String, Manifest), PullError> {
    let (repository, pinned, known) = match what {
        What::File(_) => return Err(PullError::Flag("--vae is a repository or a known name, not the URL of a file")),
        What::Repository(repository, pinned) => (Some(repository), pinned, Manifest::default()),
        What::Known(_, known) => {
            // Hashes are those of the revision that is pinned with them.
            let known = if revision.is_some() { Manifest { files: Vec::new(), ..*known } } else { *known };
            (known.repository.as_deref().and_then(Repository::parse), known.revision.clone(), known)
        }
    };
    let repository = repository.ok_or_else(|| PullError::What(text.to_owned()))?;
    let revision = revision.map(str::to_owned).or(pinned).unwrap_or_else(|| DEFAULT_REVISION.to_owned());
    Ok((repository, revision, known))
}

/// One file becomes a folder with that file in it, so that what is known of it has a place.
async fn of_file(hub: &Hub, mut url: Url, order: &Order) -> Result<PullPlan, PullError> {
    if order.revision.is_some() || order.variant.is_some() || order.vae.is_some() {
        return Err(PullError::Flag("--revision, --variant and --vae are for repositories, not for the URL of a file"));
    }
    let last = url.path().rsplit('/').next().unwrap_or_default().to_owned();
    let pickle =
        last.rsplit_once('.').is_some_and(|(_, ending)| matches!(ending, "ckpt" | "pt" | "pth" | "bin" | "pkl"));
    if pickle {
        return Err(PullError::Unfit {
            repository: url.host_str().unwrap_or_default().into(),
            cause: UnusableRepository::Pickle(last),
        });
    }
    let name = match (&order.name, last.strip_suffix(ENDING)) {
        (Some(name), _) => name.clone(),
        (None, Some(stem)) => plain(stem),
        (None, None) => {
            return Err(PullError::Flag(
                "the URL does not end with .safetensors: say with --name what to call the model",
            ));
        }
    };
    if hub.owns(&url) {
        // The page of a file is what people copy.
        url.set_path(&url.path().replacen("/blob/", "/resolve/", 1));
    }
    let answer =
        persist(async || hub.downloads().open(&url, Resume::default()).await).await.map_err(|cause| match cause {
            DownloadError::Refused(refusal) => PullError::refused(refusal, None),
            DownloadError::Failed(cause) => PullError::Host(cause),
        })?;
    let linked = answer.linked.as_deref().and_then(|tag| Digest::parse(tag.trim_matches('"')));
    if let (Some(expected), Some(found)) = (order.sha256, linked)
        && expected != found
    {
        return Err(PullError::Exchanged { file: last, expected, found });
    }
    let path = RelativePath::parse(&format!("{name}{ENDING}")).ok_or_else(|| PullError::Name(name.clone()))?;
    let sha256 = order.sha256.or(linked);
    let about = Manifest { url: Some(bare(&url)), ..Manifest::default() };
    let item = Item { path, url, bytes: answer.total, sha256, blob: None, page: None };
    Ok(PullPlan { name, about, items: vec![item] })
}

/// A URL without what could be a secret.
fn bare(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Fails for URLs that have no host, which are not called.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.to_string()
}

/// `text` with a dash for all that no name has.
fn plain(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { '-' }).collect()
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

/// Whether a model can be called so: on the command line, in a job, and as a folder.
fn is_name(name: &str) -> bool {
    name.len() <= 100 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_asked_for_is_one_of_three_things() {
        let repository = |text| Repository::parse(text).unwrap();
        assert_eq!(What::parse("a/b").unwrap(), What::Repository(repository("a/b"), None));
        assert_eq!(What::parse("a/b@c0ffee").unwrap(), What::Repository(repository("a/b"), Some("c0ffee".into())));
        assert_eq!(
            What::parse("a/b@refs/pr/1").unwrap(),
            What::Repository(repository("a/b"), Some("refs/pr/1".into()))
        );
        assert!(matches!(What::parse("sd-1.5").unwrap(), What::Known(name, _) if name == "sd-1.5"));
        assert!(matches!(What::parse("https://h/a.safetensors").unwrap(), What::File(_)));
        for wrong in ["", "a", "a/b/c", "a/b@", "ftp://h/a.safetensors", "http://", "../x"] {
            let error = What::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("sd-1.5, sd-1.4"), "{error}");
        }
    }

    #[test]
    fn a_url_is_kept_without_its_secrets() {
        let url = "https://me:pa55@h:1/a/b.safetensors?token=s3cret#x".parse().unwrap();
        assert_eq!(bare(&url), "https://h:1/a/b.safetensors");
    }

    #[test]
    fn a_name_can_be_typed() {
        for name in ["sd-1.5", "a", "Realistic_Vision_V5.1_noVAE"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".pull-x", "-rf", "a/b", "a b", "é", "..", &"a".repeat(101)] {
            assert!(!is_name(name), "{name}");
        }
        assert_eq!(plain("My%20Model (v2)"), "My-20Model--v2-");
    }
}
