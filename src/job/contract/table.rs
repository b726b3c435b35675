//! A contract, as a table.

use super::field::{Choices, Field};

/// A contract, as a table.
#[derive(Debug)]
pub struct Table {
    /// Its fields, in the order in which people read them.
    pub fields: &'static [Field],
    /// What several fields choose from.
    pub choices: Choices,
    /// Fields that may not be sent without another: which, and the other.
    pub needs: &'static [(&'static str, &'static str)],
}
