//! Contracts: what a client may ask for, as tables.
//!
//! From a contract's table are made the check of an input ([`crate::job::validate`]), the OpenAPI schema of inputs, the form of the page
//! and the table of docs/jobs.md.

mod common;
mod conflict;
mod defaults;
mod document;
mod draft;
mod field;
mod list;
mod sd1;
mod sdxl;
mod sdxl_turbo;
mod shape;
mod sides;
mod table;
mod text;

pub(super) use conflict::Conflict;
pub use defaults::{Defaults, DefaultsError};
pub use draft::Draft;
pub(super) use field::FieldFault;
pub use field::{Catalog, Choices, Field, Kind};
pub use list::Contract;
pub(super) use sdxl::{REFINE, SHARE};
pub use shape::OutputShape;
pub use sides::Sides;
pub use table::{StartImage, Table};
pub(super) use text::either;
