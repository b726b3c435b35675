//! What a job begins from: an image in latents, and what of it is kept.

use std::rc::Rc;
use std::sync::Arc;

use tch::Tensor;

use crate::engine::torch::device::context::Place;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::vae::{Autoencoder, Posterior};
use crate::job::{Picture, Start};
use crate::noise::TorchRng;
use crate::sampler::{Level, Plan};

/// An image to begin from; shared by the lanes of a job.
#[derive(Debug)]
pub(in crate::engine::torch) struct Canvas {
    posterior: Posterior,
    /// Whether all of the run is made.
    whole: bool,
    mask: Option<Rc<Mask>>,
}

#[derive(Debug)]
struct Mask {
    /// 1 where latents are made anew and 0 where they are kept, `[1, 1, height, width]`.
    repaint: Tensor,
    paste: Option<Paste>,
}

/// Pixels to put back over a result.
#[derive(Debug)]
struct Paste {
    image: Arc<Picture>,
    repainted: Vec<bool>,
}

/// What one lane keeps of an image: its own draw of the latents, and the noise to bring them to a row's level.
#[derive(Debug)]
pub(in crate::engine::torch) struct Kept {
    mask: Rc<Mask>,
    image: Tensor,
    noise: Tensor,
}

impl Canvas {
    /// Encodes `start`, whose pictures have the size that the job draws, at `place`, where `vae` is.
    pub(in crate::engine::torch) fn of(start: &Start, vae: &Autoencoder, place: &Place) -> Forward<Self> {
        let posterior = vae.encode(&pixels(&start.image.picture, place)?)?;
        let mask = start.mask.as_ref().map(|mask| {
            let repainted = mask.repainted();
            let repaint = at_latents(&repainted, &start.image.picture, vae.factor(), place)?;
            let paste = mask.paste.then(|| Paste { image: Arc::clone(&start.image.picture), repainted });
            Forward::Ok(Rc::new(Mask { repaint, paste }))
        });
        Ok(Self { posterior, whole: start.strength >= 1.0, mask: mask.transpose()? })
    }

    /// What a lane begins with, `[1, latent, height, width]`, and what it keeps, drawn in the order of the reference: the
    /// image's latents, noise, and for a mask the latents of the masked image, which only a UNet of 9 channels makes use of.
    pub(in crate::engine::torch) fn begin(
        &self,
        rng: &mut TorchRng,
        plan: &Plan,
        place: &Place,
    ) -> Forward<(Tensor, Option<Kept>)> {
        let image = self.posterior.sample(rng, place)?;
        let noise = place.draw(rng, &image.size())?;
        let Some(mask) = &self.mask else { return Ok((at_level(&image, &noise, plan.begin)?, None)) };
        let _ = self.posterior.sample(rng, place)?;
        // The reference's inpainting forgets the image where all of the run is made; its image to image never does.
        let x =
            if self.whole { noise.f_mul_scalar(plan.initial_scale)? } else { at_level(&image, &noise, plan.begin)? };
        Ok((x, Some(Kept { mask: Rc::clone(mask), image, noise })))
    }

    /// Puts the kept part's own pixels over a result, if the job asks for that.
    pub(in crate::engine::torch) fn paste(&self, picture: &mut Picture) {
        let Some(Paste { image, repainted }) = self.mask.as_ref().and_then(|mask| mask.paste.as_ref()) else { return };
        let pixels = picture.pixels.chunks_exact_mut(3).zip(image.pixels.chunks_exact(3));
        for ((drawn, own), _) in pixels.zip(repainted).filter(|(_, repainted)| !**repainted) {
            drawn.copy_from_slice(own);
        }
    }
}

impl Kept {
    /// `x` with the kept part of the image, at `level`, in its place.
    pub(in crate::engine::torch) fn restore(&self, x: &Tensor, level: Level) -> Forward {
        let own = at_level(&self.image, &self.noise, level)?;
        // own + repaint · (x - own), but exact at both ends.
        let repaint = &self.mask.repaint;
        x.f_mul(repaint)?.f_add(&own.f_mul(&repaint.f_rsub_scalar(1)?)?)
    }
}

fn at_level(image: &Tensor, noise: &Tensor, level: Level) -> Forward {
    image.f_mul_scalar(level.signal)?.f_add(&noise.f_mul_scalar(level.noise)?)
}

/// Pixels as the autoencoder takes them, `[1, 3, height, width]` in -1 to 1, channels last in memory. They are made on the processor, as
/// in the reference: a GPU divides by multiplying.
fn pixels(picture: &Picture, place: &Place) -> Forward {
    let shape = [1, i64::from(picture.height), i64::from(picture.width), 3];
    let values: Vec<f32> = picture.pixels.iter().map(|&byte| f32::from(byte) / 255.0 * 2.0 - 1.0).collect();
    place.put(&values, &shape)?.f_permute([0, 3, 1, 2])
}

/// The mask at the latents' size, where a latent is what its upper left pixel is (torch's `nearest`).
fn at_latents(repainted: &[bool], picture: &Picture, factor: u32, place: &Place) -> Forward {
    let (width, factor) = (picture.width as usize, factor as usize);
    let rows = repainted.chunks_exact(width).step_by(factor);
    let mask: Vec<f32> =
        rows.flat_map(|row| row.iter().step_by(factor)).map(|&anew| f32::from(u8::from(anew))).collect();
    place.put(&mask, &[1, 1, -1, (width / factor) as i64])
}
