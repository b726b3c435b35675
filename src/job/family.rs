//! The families of models: which architectures load, and what they are called. Another family is a line here.

use std::fmt;

use super::contract::{Contract, either};
use super::role::ModelRole;

macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $label:literal, $title:literal;)*) => {
        /// An architecture whose models load.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Family {
            $($(#[$doc])* $variant,)*
        }

        impl Family {
            /// Every family.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in manifests and lists, such as `sd1`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Its short name for people, such as `SD v1`.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }

            /// Its full name for people, such as `Stable Diffusion v1`.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }
        }
    };
}

families! {
    /// Stable Diffusion 1.x and what was trained from it.
    Sd1 = "sd1", "SD v1", "Stable Diffusion v1";
    /// Stable Diffusion XL: its base model and what was trained from it.
    Sdxl = "sdxl", "SDXL", "Stable Diffusion XL";
    /// The refiner of Stable Diffusion XL, which draws after a base model.
    SdxlRefiner = "sdxl-refiner", "SDXL refiner", "the refiner of Stable Diffusion XL";
}

impl Family {
    /// The family of this name, letter for letter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|family| family.name() == name)
    }

    /// The contract of its models, unless they name another.
    pub const fn contract(self) -> Contract {
        match self {
            Self::Sd1 => Contract::Sd1,
            Self::Sdxl | Self::SdxlRefiner => Contract::Sdxl,
        }
    }

    /// Which part of denoising its models are made for.
    pub const fn role(self) -> ModelRole {
        match self {
            Self::Sd1 | Self::Sdxl => ModelRole::Base,
            Self::SdxlRefiner => ModelRole::Refiner,
        }
    }

    /// Whether its models go on with another model's latents, and draw nothing by themselves.
    pub fn is_refiner(self) -> bool {
        self.role() == ModelRole::Refiner
    }

    /// The labels of all, for messages that say what loads.
    pub fn labels() -> String {
        either(Self::ALL.iter().map(|family| family.label().to_owned()))
    }

    /// The titles of those that draw, for documents that say what is served.
    pub fn titles() -> String {
        let draw = Self::ALL.iter().filter(|family| !family.is_refiner());
        draw.map(|family| family.title()).collect::<Vec<_>>().join(", ")
    }
}

/// The label.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_family() {
        for &family in Family::ALL {
            assert_eq!(Family::from_name(family.name()), Some(family));
            assert_eq!(family.to_string(), family.label());
        }
        assert_eq!((Family::from_name("SD1"), Family::from_name("")), (None, None));
        assert_eq!(
            (Family::labels().as_str(), Family::titles().as_str()),
            ("SD v1, SDXL or SDXL refiner", "Stable Diffusion v1, Stable Diffusion XL")
        );
    }
}
