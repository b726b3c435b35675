//! What a checked job is: the only form of input that the rest of the program sees.

use std::sync::Arc;

use super::picture::Picture;
use super::prompt::PromptSyntax;
use crate::sampler::{Sampler, SigmaSpacing};

/// Width and height of an image in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// A checked job. [`crate::job::validate`] builds it with images as they were [`ImageSource`]; the engine takes it with images
/// as they were [`LoadedImage`].
#[derive(Debug, Clone, PartialEq)]
pub struct Spec<I = LoadedImage> {
    /// The name of the model that draws.
    pub model: String,
    /// What to draw.
    pub prompt: String,
    /// What to keep away from; `None` is nothing, which some models tell from the empty prompt.
    pub negative_prompt: Option<String>,
    /// How both are read.
    pub prompt_syntax: PromptSyntax,
    /// Layers that are left out at the end of the text encoders, 0 to 11 (diffusers' `clip_skip`). They count for the negative prompt where
    /// prompts are weighted, as in the WebUI, and not where they are plain, as in diffusers.
    pub clip_skip: u32,
    /// Size of every image, each side one of its contract's. Where the image to begin from sets it, it is that of [`LoadedImage`] once that is
    /// at hand, and means nothing before.
    pub size: Size,
    /// What to begin from; `None` is pure noise.
    pub start: Option<Img2Img<I>>,
    /// Number of images, 1 to 10. Image `i` is drawn from `seed + i`.
    pub num_outputs: u32,
    /// Denoising steps asked for, 1 to 500.
    pub steps: u32,
    /// The share of the noise, above 0 and below 1, at which denoising ends, because another model would go on; `None` is all of it
    /// (diffusers' `denoising_end`).
    pub denoising_end: Option<f64>,
    /// Classifier-free guidance, 0 or more; at 1 and below only the prompt is evaluated.
    pub guidance_scale: f64,
    /// Which sampler.
    pub sampler: Sampler,
    /// How its steps are spread.
    pub sigmas: SigmaSpacing,
    /// Noise that DDIM adds at each step, 0 none to 1 as much as DDPM; 0 for other samplers.
    pub eta: f64,
    /// Seed of the first image, drawn if the request left it open.
    pub seed: u64,
    /// What to change the model by.
    pub lora: Option<Lora>,
    /// How a refiner goes on, if there is one and the job begins from noise; `None` is not at all.
    pub refine: Option<Refine>,
    /// Whether rough looks at the unfinished picture are wanted.
    pub preview: bool,
}

/// How a refiner goes on with the latents of a base model (Podell et al. 2023, section 2.5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refine {
    /// Denoising steps of its own, 1 to 500; not all of them are made.
    pub steps: u32,
    /// Where it begins.
    pub mode: RefineMode,
    /// With [`RefineMode::Strength`] the share of the steps that is made, 0 (none) to 1 (all).
    pub strength: f64,
}

/// Where a refiner begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefineMode {
    /// Noise is added to what the base model has made, as to an image to begin from.
    Strength,
    /// The base model ends at [`Spec::denoising_end`], and the refiner goes on from there (an ensemble of expert denoisers).
    Ensemble,
}

/// An image to begin from.
#[derive(Debug, Clone, PartialEq)]
pub struct Img2Img<I = LoadedImage> {
    /// The image.
    pub image: I,
    /// The share of the steps that is made, 0 (none) to 1 (all).
    pub strength: f64,
    /// What of it to repaint; `None` is all.
    pub mask: Option<Mask<I>>,
}

/// Which part of an image to repaint.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask<I = LoadedImage> {
    /// A picture in black and white; what lies between counts as the nearer of the two.
    pub image: I,
    /// Which of the two is repainted.
    pub repaint: Shade,
    /// Whether the kept part's own pixels are put back over the result.
    pub paste: bool,
}

/// A part of a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shade {
    /// Below the middle.
    Black,
    /// The middle and above.
    White,
}

/// A low-rank change of the model's weights (Hu et al. 2021).
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// One of the names on offer.
    pub name: String,
    /// How much of it, above 0 and at most 1.
    pub scale: f64,
}

/// An image as a job gives it: not fetched, not looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// Where it is to be had, by http or https.
    Url(String),
    /// The file itself in base64, from a `data:` URI or bare.
    Inline(String),
}

/// An image at hand, resized to what the job draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its pixels.
    pub picture: Arc<Picture>,
    /// SHA-256 of the file that it came in, in hex.
    pub sha256: String,
}

impl RefineMode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Strength, Self::Ensemble];

    /// The mode of this name, letter for letter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// What a job calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strength => "strength",
            Self::Ensemble => "ensemble",
        }
    }
}

impl Refine {
    /// The first of [`Self::steps`] that is made, beside noise that is added.
    pub fn first_step(&self) -> u32 {
        first_step(self.steps, self.strength)
    }
}

/// The first of `steps` that is made where only the last `strength` of them are.
fn first_step(steps: u32, strength: f64) -> u32 {
    steps - (f64::from(steps) * strength) as u32
}

impl Img2Img {
    /// A grey image, all of which is repainted: for jobs that no client asked for, by models that draw nothing else.
    pub fn blank(Size { width, height }: Size) -> Self {
        let pixels = vec![128; 3 * width as usize * height as usize];
        let image = LoadedImage { picture: Arc::new(Picture { width, height, pixels }), sha256: String::new() };
        let mask = Mask { image: image.clone(), repaint: Shade::White, paste: false };
        Self { image, strength: 1.0, mask: Some(mask) }
    }
}

impl Shade {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Black, Self::White];

    /// The shade of this name, letter for letter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shade| shade.name() == name)
    }

    /// What a job calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::White => "white",
        }
    }
}

impl ImageSource {
    /// Reads what a job says: an http or https URL, a `data:` URI in base64, or bare base64 (either alphabet, white space
    /// allowed). `None` for anything else.
    pub fn from_text(text: &str) -> Option<Self> {
        let begins = |prefix: &str| text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
        if begins("http://") || begins("https://") {
            return Some(Self::Url(text.to_owned()));
        }
        let file = if begins("data:") {
            let (head, file) = text.split_once(',')?;
            head.to_ascii_lowercase().ends_with(";base64").then_some(file)?
        } else {
            text
        };
        let known = |c: u8| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || b"+/-_=".contains(&c);
        (!file.trim().is_empty() && file.bytes().all(known)).then(|| Self::Inline(file.to_owned()))
    }
}

impl<I> Spec<I> {
    /// Seed of image `index`; wraps at 2^64.
    pub fn seed_of(&self, index: u32) -> u64 {
        self.seed.wrapping_add(u64::from(index))
    }

    /// The first of [`Spec::steps`] that is made: with an image to begin from, only the last `strength` of them are.
    pub fn first_step(&self) -> u32 {
        self.start.as_ref().map_or(0, |start| first_step(self.steps, start.strength))
    }

    /// The same job with other images to begin from.
    pub fn with_start<J>(self, start: Option<Img2Img<J>>) -> Spec<J> {
        let Self {
            model,
            prompt,
            negative_prompt,
            prompt_syntax,
            clip_skip,
            size,
            num_outputs,
            steps,
            denoising_end,
            guidance_scale,
            sampler,
            sigmas,
            eta,
            seed,
            lora,
            refine,
            preview,
            ..
        } = self;
        Spec {
            model,
            prompt,
            negative_prompt,
            prompt_syntax,
            clip_skip,
            size,
            start,
            num_outputs,
            steps,
            denoising_end,
            guidance_scale,
            sampler,
            sigmas,
            eta,
            seed,
            lora,
            refine,
            preview,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_by_url_or_inline() {
        let url = |text: &str| Some(ImageSource::Url(text.into()));
        let inline = |text: &str| Some(ImageSource::Inline(text.into()));
        for (text, named) in [
            ("http://x/i.png", url("http://x/i.png")),
            ("HTTPS://x", url("HTTPS://x")),
            ("data:image/png;base64,iVBOR+/=", inline("iVBOR+/=")),
            ("DATA:;BASE64,AA", inline("AA")),
            ("iVBO\nR_-=", inline("iVBO\nR_-=")),
            ("", None),
            (" \n", None),
            ("data:image/png;base64,", None),
            ("data:image/png,abc", None),
            ("data:", None),
            ("ftp://x/i.png", None),
            ("file:///etc/passwd", None),
            ("/etc/passwd\0", None),
            ("é", None),
        ] {
            assert_eq!(ImageSource::from_text(text), named, "{text:?}");
        }
    }

    #[test]
    fn steps_are_cut_as_the_reference_cuts_them() {
        let spec = crate::engine::fake::spec(1, 50);
        let first = |steps: u32, strength: f64| {
            let image = ImageSource::Url("http://x".into());
            Spec { steps, ..spec.clone() }.with_start(Some(Img2Img { image, strength, mask: None })).first_step()
        };
        for (steps, strength, expected) in
            [(50, 0.8, 10), (50, 1.0, 0), (50, 0.0, 50), (7, 0.3, 5), (1, 0.8, 1), (10, 0.29, 8)]
        {
            assert_eq!(first(steps, strength), expected, "{steps} × {strength}");
        }
        assert_eq!(spec.first_step(), 0);
    }
}
