//! Samplers as tables: a pure function from noise schedule and step count to the arithmetic of every step.
/// One of the twelve schedulers of the SD v1 endpoint. Placeholder until sampler/registry lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sampler {
    /// `K-LMS`, alias `KLMS`.
    KLms,
}
