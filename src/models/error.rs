//! Why a model was not pulled, and what to do.

use std::io;
use std::path::PathBuf;

use super::digest::Digest;
use super::manifest::Manifest;
use super::select::UnusableRepository;
use crate::disk;
use crate::job;
use crate::net::{FetchError, Refusal};

/// A model was not pulled. Unless it says otherwise, what had come is kept, and the next try goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// What was asked for is none of the things that can be.
    #[error(
        "{0:?} is neither a repository (owner/name, or owner/name@revision), nor an http(s) URL of a .safetensors file, nor a model \
         that is known by name ({known})", known = Manifest::names().collect::<Vec<_>>().join(", ")
    )]
    What(String),
    /// A flag does not go with what was asked for.
    #[error("{0}")]
    Flag(&'static str),
    /// The name is none that a folder could have.
    #[error(
        "{0:?} is no name for a model: use letters, digits, dots, dashes and underscores, and begin with none of the last three"
    )]
    Name(String),
    /// There is something of that name.
    #[error("{} is there already: remove it, or give the new one another name with --name", .0.display())]
    Exists(PathBuf),
    /// Another process pulls it.
    #[error("another process is pulling into {}: wait for its end, or stop it", .0.display())]
    Locked(PathBuf),
    /// The disk has no room for all of it.
    #[error("{} lacks room: {} are needed there and {} are free; make room, or set models_dir elsewhere", folder.display(), size(*needed), size(*free))]
    Space {
        /// Where it would go.
        folder: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The disk filled up on the way, others may write to it.
    #[error("the disk is full: {} could not be written, and {} are free there; make room and pull again, which goes on from here", file.display(), size(*free))]
    Full {
        /// The file.
        file: PathBuf,
        /// Bytes that are free.
        free: u64,
    },
    /// We may not write where models lie.
    #[error("{}: {cause}; mend its rights, or set models_dir to a folder that can be written", path.display())]
    Rights {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The disk does not do as it should.
    #[error("{}: {cause}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// No answer from the host.
    #[error("{0}; check the network, the host's name and HF_ENDPOINT, then pull again")]
    Host(FetchError),
    /// A file broke off again and again.
    #[error("{file}: {cause}; {tries} tries in a row brought nothing more. Pull again later, which goes on from there")]
    Broken {
        /// The file.
        file: String,
        /// How the last try ended.
        cause: String,
        /// How many there were.
        tries: u32,
    },
    /// The host said no.
    #[error("{what}: {} answered {}; {advice}", refusal.host, refusal.status)]
    Refused {
        /// What was asked for.
        what: String,
        /// The answer.
        refusal: Refusal,
        /// What to do.
        advice: String,
    },
    /// The API answered something else.
    #[error("{host}: its answer is not that of a model hub: {reason}; check HF_ENDPOINT")]
    Answer {
        /// Who.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository is not of use.
    #[error("{repository}: {cause}")]
    Unfit {
        /// Which.
        repository: String,
        /// Why not.
        cause: UnusableRepository,
    },
    /// The family that its configuration tells of does not load.
    #[error("{0} is of the family {1}, and only models of the {loads} architecture load", loads = job::Family::labels())]
    Family(String, String),
    /// The host sends another file than the hub told of.
    #[error(
        "{file} should have {expected} bytes, and the host sends {found}: pull again, and if that does not help, without a mirror"
    )]
    Size {
        /// The file.
        file: String,
        /// What it should have.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// The host sends, or the hub tells of, more than any model has.
    #[error("{file} would have {}, and a file of its kind in a model has no more than {}: check what was asked for and HF_ENDPOINT", size(*bytes), size(*most))]
    Implausible {
        /// The file.
        file: String,
        /// Bytes that it has at least.
        bytes: u64,
        /// Bytes that it may have.
        most: u64,
    },
    /// What came is not what was published.
    #[error(
        "{file} hashes to {found} and should to {expected}: it was removed. Pull again; if it comes again, what the host sends is not \
         what was published, so do not use it"
    )]
    Hash {
        /// The file.
        file: String,
        /// The hash that was published.
        expected: Digest,
        /// The hash of what came.
        found: Digest,
    },
    /// Two publishers' words against each other.
    #[error(
        "{file} has the SHA-256 {found} at the hub, and {expected} is known for it: it was exchanged since, so do not use it"
    )]
    Exchanged {
        /// The file.
        file: String,
        /// What is known.
        expected: Digest,
        /// What the hub says.
        found: Digest,
    },
}

impl PullError {
    /// The refusal of a file, or of what a hub has at a page and a revision.
    pub(super) fn refused(refusal: Refusal, at: Option<(String, &str)>) -> Self {
        let page = at.as_ref().map_or("the page of the model", |(page, _)| page.as_str());
        let advice = match (refusal.status.as_u16(), refusal.code.as_str(), refusal.knew_key) {
            (404, "RevisionNotFound", _) => "it has no such revision: see its branches and tags there".to_owned(),
            (404, ..) => {
                "check the spelling; a private one is found only with a token (HF_TOKEN) that may read it".to_owned()
            }
            (401, _, false) | (403, "GatedRepo", false) => format!(
                "it does not exist, or it wants a token: sign in, accept its terms on {page}, make a token that may read, and set HF_TOKEN"
            ),
            (401, ..) => "the token that was sent is not accepted: make a new one and set HF_TOKEN".to_owned(),
            (403, _, true) => {
                format!("the token may not read it: accept its terms on {page} with the token's own account")
            }
            (403, ..) => format!("see on {page} who may read it; a token is set by HF_TOKEN"),
            (429, ..) => "it wants to be asked less often: pull again later, which goes on from here".to_owned(),
            (500.., ..) => "the host is in trouble: pull again later, which goes on from here".to_owned(),
            _ => "check what was asked for and HF_ENDPOINT".to_owned(),
        };
        let what = at.map_or_else(|| "the file".to_owned(), |(page, revision)| format!("{page} at {revision}"));
        Self::Refused { what, refusal, advice }
    }

    /// What the system said of `path`.
    pub(super) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                let free = path.parent().and_then(|folder| disk::of(folder).ok()).map_or(0, |disk| disk.free);
                Self::Full { file: path, free }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Rights { path, cause },
            _ => Self::Disk { path, cause },
        }
    }
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1000.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn advice(status: u16, code: &str, knew_key: bool) -> String {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let refusal = Refusal { host: "h".into(), status, code: code.into(), again: None, knew_key };
        PullError::refused(refusal, Some(("https://h/a/b".into(), "main"))).to_string()
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for (status, code, knew_key, said) in [
            (401, "RepoNotFound", false, "it does not exist, or it wants a token"),
            (401, "GatedRepo", false, "accept its terms on https://h/a/b"),
            (401, "", true, "is not accepted"),
            (403, "GatedRepo", true, "accept its terms on https://h/a/b with the token's own account"),
            (404, "RevisionNotFound", false, "no such revision"),
            (404, "RepoNotFound", true, "check the spelling"),
            (429, "", false, "less often"),
            (503, "", false, "in trouble"),
            (418, "", false, "HF_ENDPOINT"),
        ] {
            let message = advice(status, code, knew_key);
            assert!(message.contains(said) && message.starts_with("https://h/a/b at main: h answered "), "{message}");
        }
    }

    #[test]
    fn the_disk_s_words_are_told_apart() {
        let said = |kind: io::ErrorKind| PullError::disk("/m/x")(kind.into()).to_string();
        assert!(said(io::ErrorKind::StorageFull).contains("the disk is full: /m/x"));
        assert!(said(io::ErrorKind::ReadOnlyFilesystem).contains("set models_dir"));
        assert!(said(io::ErrorKind::NotADirectory).starts_with("/m/x: "));
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!([size(0), size(3 << 19), size(5 << 30)], ["0.0 MiB", "1.5 MiB", "5.0 GiB"]);
    }
}
