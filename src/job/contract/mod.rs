//! Contracts: what a client may ask for and how the answer looks, as tables.
//!
//! From a contract's table are made the check of an input ([`crate::job::validate`]), the OpenAPI schema of inputs, the form of the page
//! and the table of docs/jobs.md. Another contract is a file with its table, and a line here.

mod defaults;
mod document;
mod draft;
mod field;
mod output;
mod sd1;

pub use defaults::{Defaults, DefaultsError};
pub use draft::Draft;
pub(super) use field::Fault;
pub use field::{Field, Kind, Names};
pub use output::Output;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::sampler::Sampler;

/// A contract, as a table.
#[derive(Debug)]
pub struct Table {
    /// Its fields, in the order in which people read them.
    pub fields: &'static [Field],
    /// What width and height may be, in ascending order.
    pub sides: &'static [u32],
    /// Names of samplers beside their own.
    pub samplers: &'static [(&'static str, Sampler)],
    /// Fields that may not be sent without another: which, and the other.
    pub needs: &'static [(&'static str, &'static str)],
    /// What comes of a job.
    pub output: Output,
}

macro_rules! contracts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $table:path;)*) => {
        /// What an endpoint takes and gives.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Contract {
            $($(#[$doc])* $variant,)*
        }

        impl Contract {
            /// Every contract.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, as in `latentd.json`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Its table.
            pub const fn table(self) -> &'static Table {
                match self {
                    $(Self::$variant => &$table,)*
                }
            }
        }
    };
}

contracts! {
    /// The Stable Diffusion v1 endpoint.
    Sd1 = "sd1", sd1::TABLE;
}

impl Contract {
    /// The contract of this name, letter for letter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|contract| contract.name() == name)
    }

    /// The field of this name.
    pub fn field(self, name: &str) -> Option<&'static Field> {
        self.table().fields.iter().find(|field| field.name == name)
    }

    /// What width and height may be, in ascending order.
    pub const fn sides(self) -> &'static [u32] {
        self.table().sides
    }

    /// Every name of a sampler with its sampler: their own in the registry's order, then the others.
    pub fn samplers(self) -> impl Iterator<Item = (&'static str, Sampler)> {
        let own = Sampler::ALL.iter().map(|sampler| (sampler.name(), *sampler));
        own.chain(self.table().samplers.iter().copied())
    }
}

impl Serialize for Contract {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
