//! How many steps a run may have.

/// The most steps that [`plan`](super::plan) divides a schedule into; the endpoint's own limit.
pub const MAX_STEPS: usize = 500;

/// The steps that consistency models were distilled over (diffusers' `original_inference_steps`). Their samplers choose among them, so they make
/// as many at most.
pub const DISTILLED_STEPS: usize = 50;
