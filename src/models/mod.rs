//! Models as files: pulled from a hub or a URL, told apart, checked against their hashes. What they compute is the engine's.

mod defaults;
mod digest;
mod error;
mod family;
mod fetch;
mod hub;
mod item;
mod limits;
mod manifest;
mod part;
mod persist;
mod place;
mod plan;
mod pull;
mod remote;
mod select;
mod snapshot;
mod staging;

pub use defaults::{DefaultsFileError, defaults, defaults_file};
pub use digest::{Digest, SUMS, read_sums};
pub use error::{PullError, size};
pub use family::{Recognised, recognise};
pub use fetch::Seen;
pub use hub::{Hub, Listing, Repository};
pub use item::Item;
pub use manifest::{ListedFile, MANIFEST, Manifest, PartSource};
pub use place::RelativePath;
pub use plan::{Order, PullPlan, What, plan};
pub use pull::{Watch, pull};
pub use remote::RemoteFile;
pub use select::{UnusableRepository, choose};
pub use staging::{Staged, is_staging};
