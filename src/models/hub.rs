//! The API of a model hub, as far as it is needed: what files a repository has at a revision, and where each is.

use serde::Deserialize;
use serde_json::Value;

use super::digest::Digest;
use super::error::PullError;
use super::persist::persist;
use super::place::RelativePath;
use super::remote::RemoteFile;
use crate::net::{DownloadClient, DownloadError, Url};

/// Bytes of the answer: a repository of ten thousand files has less.
const LISTING_BYTES: u64 = 16 << 20;

/// A repository's name, `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    owner: String,
    name: String,
}

/// A hub.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: Url,
    downloads: DownloadClient,
}

/// What a repository has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision stands for.
    pub commit: String,
    /// The licence, as the repository names it.
    pub licence: Option<String>,
    /// Its files.
    pub files: Vec<RemoteFile>,
}

impl Repository {
    /// Reads `owner/name`.
    pub fn parse(text: &str) -> Option<Self> {
        let (owner, name) = text.split_once('/')?;
        let plain = |part: &str| {
            let first = part.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            first && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        (plain(owner) && plain(name)).then(|| Self { owner: owner.into(), name: name.into() })
    }

    /// The name without its owner.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl Hub {
    /// The hub at `endpoint`, called with `downloads`.
    pub fn new(endpoint: Url, downloads: DownloadClient) -> Self {
        Self { endpoint, downloads }
    }

    /// What calls it.
    pub fn downloads(&self) -> &DownloadClient {
        &self.downloads
    }

    /// Whether a URL is one of its own.
    pub fn owns(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// What `repository` has at `revision`, a branch, a tag or a commit.
    ///
    /// # Errors
    /// The hub does not answer, refuses, or answers something else than a hub does.
    pub async fn list(&self, repository: &Repository, revision: &str) -> Result<Listing, PullError> {
        let mut url = self.at(&["api", "models", &repository.owner, &repository.name, "revision", revision]);
        url.set_query(Some("blobs=true"));
        let answer =
            persist(async || self.downloads.small(&url, LISTING_BYTES).await).await.map_err(|cause| match cause {
                DownloadError::Refused(refusal) => PullError::refused(refusal, Some((self.page(repository), revision))),
                DownloadError::Failed(cause) => PullError::Host(cause),
            })?;
        let host = || crate::net::host(url.as_str()).unwrap_or_default();
        let wrong = |reason: String| PullError::Answer { host: host(), reason };
        let answer: Answer = serde_json::from_slice(&answer).map_err(|cause| wrong(cause.to_string()))?;
        answer.listing().map_err(wrong)
    }

    /// Where a file of a repository is.
    pub fn file(&self, repository: &Repository, commit: &str, path: &RelativePath) -> Url {
        let mut url = self.at(&[&repository.owner, &repository.name, "resolve", commit]);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.as_str().split('/'));
        }
        url
    }

    /// The repository for people, who can accept its terms there.
    pub fn page(&self, repository: &Repository) -> String {
        self.at(&[&repository.owner, &repository.name]).to_string()
    }

    fn at(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // Fails for URLs that have no host, which no endpoint is.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
    #[serde(rename = "cardData", default)]
    card: Value,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: Option<u64>,
}

/// Whether a path would lead out of its folder, on any system.
fn is_hostile(path: &str) -> bool {
    path.starts_with(['/', '\\']) || path.split(['/', '\\']).any(|name| name == "..")
}

impl Answer {
    /// Believes no name and no hash that is not one.
    fn listing(self) -> Result<Listing, String> {
        let licence = self.licence();
        if self.sha.is_empty() || self.sha.len() > 64 || !self.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("{:?} is no commit", self.sha));
        }
        let mut files = Vec::new();
        for sibling in self.siblings {
            let Some(path) = RelativePath::parse(&sibling.rfilename) else {
                if is_hostile(&sibling.rfilename) {
                    return Err(format!("it names the file {:?}, which lies outside", sibling.rfilename));
                }
                // Hidden files, which every repository has, and odd names are no part of a model.
                continue;
            };
            let digest = |lfs: &Lfs| {
                let text = lfs.sha256.trim_start_matches("sha256:");
                Digest::parse(text).ok_or_else(|| format!("{text:?} is no SHA-256 of {path}"))
            };
            let sha256 = sibling.lfs.as_ref().map(digest).transpose()?;
            let bytes = sibling.lfs.and_then(|lfs| lfs.size).or(sibling.size);
            files.push(RemoteFile { path, bytes, sha256, blob: sibling.blob });
        }
        Ok(Listing { commit: self.sha, licence, files })
    }

    /// A name of its own where the licence is of no known kind.
    fn licence(&self) -> Option<String> {
        let card = |key: &str| self.card.get(key).and_then(Value::as_str).map(str::to_owned);
        let kind =
            card("license").or_else(|| self.tags.iter().find_map(|tag| Some(tag.strip_prefix("license:")?.into())));
        match kind.as_deref() {
            Some("other") => card("license_name").or(kind),
            _ => kind,
        }
        .map(|licence| licence.chars().filter(|c| !c.is_control()).take(100).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn listing(answer: Value) -> Result<Listing, String> {
        serde_json::from_value::<Answer>(answer).map_err(|cause| cause.to_string())?.listing()
    }

    #[test]
    fn a_repository_has_an_owner_and_a_name() {
        let repository = Repository::parse("CompVis/stable-diffusion-v1-4").unwrap();
        assert_eq!(
            (repository.name(), repository.to_string().as_str()),
            ("stable-diffusion-v1-4", "CompVis/stable-diffusion-v1-4")
        );
        for wrong in ["", "a", "/a", "a/", "a/b/c", "../a", "a/..", "a/b?c", "a/b#c", "a b/c", "https://a/b"] {
            assert_eq!(Repository::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn urls_hold_what_they_are_made_of() {
        let hub = |endpoint: &str| Hub::new(endpoint.parse().unwrap(), DownloadClient::new(None).unwrap());
        let repository = Repository::parse("a/b").unwrap();
        let file = |endpoint| {
            hub(endpoint).file(&repository, "c0", &RelativePath::parse("unet/x y#?.bin").unwrap()).to_string()
        };
        assert_eq!(file("https://h"), "https://h/a/b/resolve/c0/unet/x%20y%23%3F.bin");
        assert_eq!(file("https://h/api/hub/"), "https://h/api/hub/a/b/resolve/c0/unet/x%20y%23%3F.bin");
        let api = hub("http://h:1/m").at(&["api", "refs/pr/1"]);
        assert_eq!(api.as_str(), "http://h:1/m/api/refs%2Fpr%2F1");
        assert_eq!(hub("https://h").page(&repository), "https://h/a/b");
    }

    #[test]
    fn an_answer_is_read() {
        let found = listing(json!({
            "sha": "c0ffee", "tags": ["license:mit"], "gated": false,
            "siblings": [
                {"rfilename": ".gitattributes", "size": 1},
                {"rfilename": "samples/a: b\n.png", "size": 1},
                {"rfilename": "unet/config.json", "size": 743, "blobId": "b10b"},
                {"rfilename": "unet/w.safetensors", "size": 134, "blobId": "b", "lfs": {"sha256": HASH, "size": 9, "pointerSize": 134}},
            ],
        }))
        .unwrap();
        assert_eq!((found.commit.as_str(), found.licence.as_deref()), ("c0ffee", Some("mit")));
        let place = |text| RelativePath::parse(text).unwrap();
        let config =
            RemoteFile { path: place("unet/config.json"), bytes: Some(743), sha256: None, blob: Some("b10b".into()) };
        let sha256 = Digest::parse(HASH);
        let weights = RemoteFile { path: place("unet/w.safetensors"), bytes: Some(9), sha256, blob: Some("b".into()) };
        assert_eq!(found.files, [config, weights]);
    }

    #[test]
    fn a_licence_may_have_a_name_of_its_own() {
        let licence = |card: Value| listing(json!({"sha": "c0", "siblings": [], "cardData": card})).unwrap().licence;
        assert_eq!(licence(json!({"license": "creativeml-openrail-m"})).as_deref(), Some("creativeml-openrail-m"));
        assert_eq!(licence(json!({"license": "other", "license_name": "dream"})).as_deref(), Some("dream"));
        assert_eq!(licence(json!({"license": "other"})).as_deref(), Some("other"));
        assert_eq!(licence(json!({"license": ["a"]})), None);
        assert_eq!(licence(Value::Null), None);
    }

    #[test]
    fn a_hostile_answer_is_refused() {
        for (answer, said) in [
            (json!({"sha": "c0", "siblings": [{"rfilename": "../x"}]}), "../x"),
            (json!({"sha": "c0", "siblings": [{"rfilename": "unet/../../x"}]}), "unet/../../x"),
            (json!({"sha": "c0", "siblings": [{"rfilename": "/etc/x"}]}), "/etc/x"),
            (json!({"sha": "c0", "siblings": [{"rfilename": "unet\\..\\x"}]}), "lies outside"),
            (json!({"sha": "../x", "siblings": []}), "is no commit"),
            (json!({"sha": "", "siblings": []}), "is no commit"),
            (
                json!({"sha": "c0", "siblings": [{"rfilename": "a", "lfs": {"sha256": "x", "size": 1}}]}),
                "is no SHA-256 of a",
            ),
            (json!({"siblings": []}), "sha"),
        ] {
            let error = listing(answer).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
