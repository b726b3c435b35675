//! Base models and refiners.

/// Which part of denoising a model is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelRole {
    /// From noise on.
    Base,
    /// What is left at the end, and from an image.
    Refiner,
}
