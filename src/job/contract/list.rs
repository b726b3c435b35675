//! The contracts by name. Another is a file with its table, and a line here.

use std::fmt;

use serde::{Serialize, Serializer};

use super::field::Field;
use super::sides::Sides;
use super::table::Table;
use super::{sd1, sdxl, sdxl_turbo};
use crate::sampler::Sampler;

macro_rules! contracts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $table:path;)*) => {
        /// What an endpoint takes.
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
    Sd1 = "sd1", sd1::SD1;
    /// The Stable Diffusion XL endpoint.
    Sdxl = "sdxl", sdxl::SDXL;
    /// The SDXL Turbo endpoint.
    SdxlTurbo = "sdxl_turbo", sdxl_turbo::SDXL_TURBO;
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

    /// What width and height may be.
    pub const fn sides(self) -> Sides {
        self.table().choices.sides
    }

    /// Every name of a sampler with its sampler: their own in the registry's order, then the others.
    pub fn samplers(self) -> impl Iterator<Item = (&'static str, Sampler)> {
        self.table().choices.samplers()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::draft::Draft;
    use super::*;

    #[test]
    fn every_table_holds_together() {
        for &contract in Contract::ALL {
            let table = contract.table();
            for (number, field) in table.fields.iter().enumerate() {
                let name = field.name;
                assert!(table.fields[..number].iter().all(|other| other.name != name), "{name} is there twice");
                assert!(!field.meaning.is_empty(), "{name}");
                if let Some(default) = field.default() {
                    assert_eq!(field.read(&table.choices, &default, &mut Draft::new()), Ok(()), "{name}: its default");
                }
                let others = [field.part_of, field.unused_with, field.optional_with];
                assert!(others.into_iter().flatten().all(|other| contract.field(other).is_some()), "{name}");
                assert!(field.optional_with.is_none() || field.is_required(), "{name}");
                assert!(!field.by_model || !field.is_required(), "{name}");
            }
            let fields = table.needs.iter().flat_map(|(name, needed)| [name, needed]);
            assert!(fields.into_iter().all(|name| contract.field(name).is_some()));
            assert!(contract.sides().all().is_sorted());
            let of_start = table.start.map(|start| [start.field, start.steps]);
            let named = of_start.into_iter().flatten().chain([table.count, table.steps]);
            assert!({ named }.all(|name| contract.field(name).is_some()));
            let names: Vec<&str> = contract.samplers().map(|(name, _)| name).collect();
            assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "{names:?}");
            assert_eq!(Contract::from_name(contract.name()), Some(contract));
        }
        assert_eq!(Contract::from_name("SD1"), None);
    }
}
