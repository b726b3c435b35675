//! Models as files: pulled from a hub or a URL, told apart, checked against their hashes. What they compute is the engine's.

mod defaults;
mod digest;
mod error;
mod family;
mod fetch;
mod hub;
mod manifest;
mod part;
mod place;
mod plan;
mod pull;
mod select;
mod staging;

pub use defaults::{DefaultsFileError, defaults, defaults_file};
pub use digest::{Digest, SUMS, read_sums};
pub use error::{PullError, size};
pub use family::{Recognised, recognise};
pub use fetch::Seen;
pub use hub::{Hub, Listing, Remote, Repository};
pub use manifest::{Listed, MANIFEST, Manifest};
pub use place::Place;
pub use plan::{Item, Order, Plan, What, plan};
pub use pull::{Watch, pull};
pub use select::{Unfit, choose};
pub use staging::{Staged, is_staging};
