//! What a checked job is: the only form of input that the rest of the program sees.

use crate::sampler::Sampler;

/// Width and height of an image in pixels; each is one of [`Size::SIDES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl Size {
    /// The sides that the SD v1 endpoint offers.
    pub const SIDES: [u32; 9] = [128, 256, 384, 448, 512, 576, 640, 704, 768];
}

/// A checked text-to-image job. Built by [`crate::job::validate`] alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// What to draw.
    pub prompt: String,
    /// What to keep away from; `None` is the empty prompt.
    pub negative_prompt: Option<String>,
    /// Size of every image.
    pub size: Size,
    /// Number of images, 1 to 10. Image `i` is drawn from `seed + i`.
    pub num_outputs: u32,
    /// Denoising steps asked for, 1 to 500.
    pub steps: u32,
    /// Classifier-free guidance, above 0 and at most 20; at 1 and below only the prompt is evaluated.
    pub guidance_scale: f64,
    /// Which sampler.
    pub sampler: Sampler,
    /// Seed of the first image, drawn if the request left it open.
    pub seed: u64,
}

impl Spec {
    /// Seed of image `index`; wraps at 2^64.
    pub fn seed_of(&self, index: u32) -> u64 {
        self.seed.wrapping_add(u64::from(index))
    }
}
