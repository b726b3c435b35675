//! A contract, as a table.

use serde_json::Value;

use super::field::{Choices, Field};
use super::shape::OutputShape;
use crate::job::spec::Spec;

/// A contract, as a table.
#[derive(Debug)]
pub struct Table {
    /// Its fields, in the order in which people read them.
    pub fields: &'static [Field],
    /// What several fields choose from.
    pub choices: Choices,
    /// Fields that may not be sent without another: which, and the other.
    pub needs: &'static [(&'static str, &'static str)],
    /// The field that says in how many steps it draws from noise.
    pub steps: &'static str,
    /// The field that says how many images there are.
    pub count: &'static str,
    /// The image that a job may begin from; `None` if it always begins from noise.
    pub start: Option<StartImage>,
    /// What its results look like.
    pub output: OutputShape,
    /// An input that draws image `index` of a job again. Images that it began from are named by their files' SHA-256.
    pub input: fn(&Spec, u32) -> Value,
}

/// The image that a job may begin from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartImage {
    /// The field that has it.
    pub field: &'static str,
    /// The field that says in how many steps it draws from it, of which a part is made.
    pub steps: &'static str,
    /// Whether it decides how large the pictures are; otherwise it is resized to what the job asks for.
    pub sets_size: bool,
}
