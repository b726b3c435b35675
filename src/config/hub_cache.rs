//! Models that the Hugging Face tools have laid into their cache: `models--OWNER--NAME/`, in it `refs/` with the commit of each branch
//! and `snapshots/` with a folder for each commit (`huggingface_hub`'s documentation, "Understand caching").

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::Environment;
use crate::disk::whole;

/// Bytes of a file that names a commit.
const MAX_REF_BYTES: u64 = 4096;

/// Where hosts of the RunPod platform lay the model that an endpoint names (its documentation, "Cached models").
const PLATFORM_CACHE: &str = "/runpod-volume/huggingface-cache/hub";

/// The caches that may be on this machine, the user's before the platform's.
pub(super) fn folders(environment: &Environment) -> Vec<PathBuf> {
    let under = |variable: &str, rest: &str| environment.get(variable).map(|folder| Path::new(folder).join(rest));
    let own = under("HF_HUB_CACHE", "")
        .or_else(|| under("HF_HOME", "hub"))
        .or_else(|| under("XDG_CACHE_HOME", "huggingface/hub"))
        .or_else(|| under("HOME", ".cache/huggingface/hub"));
    own.into_iter().chain([PLATFORM_CACHE.into()]).collect()
}

/// Name and folder of the model that `wanted` names as `OWNER/NAME` or `OWNER/NAME@REVISION`, in the first of `caches` that has it. Without a revision it is
/// `main`, or the one snapshot where no branch is known.
pub(super) fn find(wanted: &str, caches: &[PathBuf]) -> Option<(String, PathBuf)> {
    let (repository, revision) = wanted.split_once('@').map_or((wanted, None), |(name, at)| (name, Some(at)));
    let (owner, name) = repository.split_once('/')?;
    let plain = |part: &str| Path::new(part).components().all(|part| matches!(part, Component::Normal(_)));
    if owner.is_empty()
        || name.is_empty()
        || name.contains('/')
        || ![owner, name, revision.unwrap_or("-")].map(plain).iter().all(|plain| *plain)
    {
        return None;
    }
    let folder = format!("models--{owner}--{name}");
    let path = caches.iter().find_map(|cache| snapshot(&cache.join(&folder), revision))?;
    Some((name.to_owned(), path))
}

fn snapshot(model: &Path, revision: Option<&str>) -> Option<PathBuf> {
    let snapshots = model.join("snapshots");
    let commit = whole::read_text(&model.join("refs").join(revision.unwrap_or("main")), MAX_REF_BYTES).ok();
    let known = commit.as_deref().map(str::trim).or(revision).map(|commit| snapshots.join(commit));
    let only = || {
        let mut all = fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path());
        all.next().filter(|_| all.next().is_none())
    };
    known.or_else(only).filter(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_user_s_cache_comes_before_the_platform_s() {
        for (variables, own) in [
            (&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h"), ("HOME", "/me")][..], "/c/"),
            (&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/me")], "/h/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/me")], "/x/huggingface/hub"),
            (&[("HOME", "/me")], "/me/.cache/huggingface/hub"),
        ] {
            let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            assert_eq!(folders(&environment), [Path::new(own), Path::new(PLATFORM_CACHE)]);
        }
        assert_eq!(folders(&Environment::default()), [Path::new(PLATFORM_CACHE)]);
    }

    #[test]
    fn a_model_is_found_by_repository_and_revision() {
        let root = tempfile::tempdir().unwrap();
        let [empty, cache] = ["empty", "cache"].map(|name| root.path().join(name));
        let model = cache.join("models--own-er--na.me");
        for commit in ["aaa", "bbb"] {
            fs::create_dir_all(model.join("snapshots").join(commit)).unwrap();
        }
        let lone = cache.join("models--o--lone");
        fs::create_dir_all(lone.join("snapshots/ccc")).unwrap();
        let caches = [empty, cache];
        let at = |wanted: &str| find(wanted, &caches);
        let found = |name: &str, path: PathBuf| Some((name.to_owned(), path));

        assert_eq!(at("own-er/na.me"), None, "two snapshots, and no branch that says which");
        fs::create_dir_all(model.join("refs/refs/pr")).unwrap();
        for (branch, commit) in [("main", "bbb\n"), ("fp16", "aaa"), ("gone", "ddd"), ("refs/pr/1", "aaa")] {
            fs::write(model.join("refs").join(branch), commit).unwrap();
        }
        let [aaa, bbb] = ["snapshots/aaa", "snapshots/bbb"].map(|path| model.join(path));
        assert_eq!(at("own-er/na.me"), found("na.me", bbb.clone()));
        for (revision, path) in [("main", bbb.clone()), ("bbb", bbb), ("fp16", aaa.clone()), ("refs/pr/1", aaa)] {
            assert_eq!(at(&format!("own-er/na.me@{revision}")), found("na.me", path));
        }
        assert_eq!(at("o/lone"), found("lone", lone.join("snapshots/ccc")));
        for wanted in [
            "own-er/na.me@gone",
            "own-er/na.me@..",
            "own-er/na.me@/",
            "own-er",
            "/na.me",
            "own-er/",
            "o/l/one",
            "../cache",
        ] {
            assert_eq!(at(wanted), None, "{wanted}");
        }
    }
}
