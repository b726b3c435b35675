//! Jobs: what is asked, checked, and answered. No I/O, no clock.

pub mod checkpoint;
mod code;
mod contract;
mod delivered;
mod error;
mod family;
mod flat;
mod form;
mod mask;
mod metadata;
mod output;
mod picture;
pub mod prompt;
mod request;
mod role;
pub mod sharded;
mod spec;
mod validate;

pub use code::Code;
pub use contract::{
    Catalog, Choices, Contract, Defaults, DefaultsError, Draft, Field, Kind, OutputShape, Sides, StartImage, Table,
};
pub use delivered::{Delivered, HEADER_BYTES, HEADERS, NotAJob, Policy, Webhook};
pub use error::{Complaint, Complaints, JobError};
pub use family::Family;
pub use flat::Flat;
pub use metadata::text_chunks;
pub use output::{Generation, Image, Output, OutputPart, Report, Timings, parameters};
pub use picture::Picture;
pub use prompt::PromptSyntax;
pub use request::{JobRequest, JobRequestError};
pub use role::ModelRole;
pub use spec::{ImageSource, Img2Img, LoadedImage, Lora, Mask, Refine, RefineMode, Shade, Size, Spec};
pub use validate::{Offer, OfferedModel, validate};
