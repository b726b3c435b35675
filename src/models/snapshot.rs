//! A repository at a commit, and its files as the items of a plan.

use super::error::PullError;
use super::hub::{Hub, Listing, Repository};
use super::item::Item;
use super::manifest::{Manifest, PartSource};
use super::persist::persist;
use super::place::RelativePath;
use super::remote::RemoteFile;
use super::select::{UnusableRepository, choose, choose_vae};
use crate::job::sharded;
use crate::net::DownloadError;

/// A repository at a commit.
pub(super) struct Snapshot<'a> {
    hub: &'a Hub,
    repository: Repository,
    listing: Listing,
    /// What is known of it beforehand.
    known: Manifest,
}

impl<'a> Snapshot<'a> {
    /// What `repository` has at `revision`.
    pub(super) async fn of(
        hub: &'a Hub,
        repository: Repository,
        revision: &str,
        known: Manifest,
    ) -> Result<Self, PullError> {
        let listing = hub.list(&repository, revision).await?;
        Ok(Self { hub, repository, listing, known })
    }

    /// What a model that is pulled from here is.
    pub(super) fn about(&self) -> Manifest {
        Manifest {
            licence: self.licence(),
            repository: Some(self.repository.to_string()),
            revision: Some(self.listing.commit.clone()),
            variant: None,
            files: Vec::new(),
            note: None,
            ..self.known.clone()
        }
    }

    /// The same of a part.
    pub(super) fn source(&self) -> PartSource {
        let (repository, revision) = (self.repository.to_string(), self.listing.commit.clone());
        PartSource { repository, revision, licence: self.licence() }
    }

    fn licence(&self) -> Option<String> {
        self.known.licence.clone().or_else(|| self.listing.licence.clone())
    }

    /// A whole model, with weights of `variant`.
    ///
    /// # Errors
    /// There is none, or an index of weights cannot be had or names what is not there.
    pub(super) async fn model(&self, variant: Option<&str>) -> Result<Vec<Item>, PullError> {
        let chosen = choose(&self.listing.files, variant).map_err(|cause| self.unusable(cause))?;
        let chosen = self.with_shards(chosen).await?;
        chosen.into_iter().map(|file| self.item(file, file.path.clone())).collect()
    }

    /// An autoencoder, which will be in the folder `vae`.
    ///
    /// # Errors
    /// As for [`Self::model`].
    pub(super) async fn vae(&self, variant: Option<&str>) -> Result<Vec<Item>, PullError> {
        let chosen = choose_vae(&self.listing.files, variant).map_err(|cause| self.unusable(cause))?;
        let mut items = Vec::new();
        for file in self.with_shards(chosen.to_vec()).await? {
            let name = file.path.parts().1;
            let place = RelativePath::parse(&format!("vae/{name}")).ok_or_else(|| PullError::Name(name.to_owned()))?;
            items.push(self.item(file, place)?);
        }
        Ok(items)
    }

    /// `chosen`, and behind each index the files that it names.
    async fn with_shards(&'a self, chosen: Vec<&'a RemoteFile>) -> Result<Vec<&'a RemoteFile>, PullError> {
        let mut all = Vec::new();
        for file in chosen {
            all.push(file);
            if sharded::is_index(file.path.parts().1) {
                all.extend(self.shards(file).await?);
            }
        }
        Ok(all)
    }

    /// The files that `index` names.
    async fn shards(&self, index: &RemoteFile) -> Result<Vec<&RemoteFile>, PullError> {
        let url = self.hub.file(&self.repository, &self.listing.commit, &index.path);
        let text = persist(async || self.hub.downloads().small(&url, sharded::INDEX_BYTES).await).await;
        let text = text.map_err(|cause| match cause {
            DownloadError::Refused(refusal) => {
                PullError::refused(refusal, Some((self.hub.page(&self.repository), &self.listing.commit)))
            }
            DownloadError::Failed(cause) => PullError::Host(cause),
        })?;
        let unusable = |cause| self.unusable(UnusableRepository::Index(index.path.to_string(), cause));
        let folder = index.path.parts().0;
        let listed = |name: String| {
            let path = folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"));
            let file = self.listing.files.iter().find(|file| file.path.as_str() == path);
            file.ok_or_else(|| self.unusable(UnusableRepository::Missing(path)))
        };
        sharded::shards(&text).map_err(unusable)?.into_iter().map(listed).collect()
    }

    fn item(&self, file: &RemoteFile, place: RelativePath) -> Result<Item, PullError> {
        let known = self.known.hash(&file.path);
        if let (Some(expected), Some(found)) = (known, file.sha256)
            && expected != found
        {
            return Err(PullError::Exchanged { file: file.path.to_string(), expected, found });
        }
        Ok(Item {
            path: place,
            url: self.hub.file(&self.repository, &self.listing.commit, &file.path),
            bytes: file.bytes,
            sha256: known.or(file.sha256),
            blob: file.blob.clone(),
            page: Some((self.hub.page(&self.repository), self.listing.commit.clone())),
        })
    }

    fn unusable(&self, cause: UnusableRepository) -> PullError {
        PullError::Unfit { repository: self.repository.to_string(), cause }
    }
}
