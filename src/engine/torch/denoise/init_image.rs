//! What a job begins from: an image in latents, and what of it is kept.

use std::rc::Rc;
use std::sync::Arc;

use tch::Tensor;

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::vae::{Autoencoder, Posterior};
use crate::job::{Img2Img, Picture};
use crate::noise::TorchRng;
use crate::sampler::{Level, Plan};

/// An image to begin from; shared by the lanes of a job.
#[derive(Debug)]
pub(in crate::engine::torch) struct InitImage {
    posterior: Posterior,
    /// Whether all of the run is made.
    whole: bool,
    mask: Option<Rc<Mask>>,
}

#[derive(Debug)]
struct Mask {
    /// 1 where latents are replaced and 0 where they are kept, `[1, 1, height, width]`.
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
pub(in crate::engine::torch) struct InpaintBlend {
    mask: Rc<Mask>,
    image: Tensor,
    noise: Tensor,
}

impl InitImage {
    /// Encodes `start`, whose pictures have the size that the job draws, at `context`, where `vae` is.
    pub(in crate::engine::torch) fn of(start: &Img2Img, vae: &Autoencoder, context: &DeviceContext) -> Forward<Self> {
        let posterior = vae.encode(&pixels(&start.image.picture, context)?)?;
        let mask = start.mask.as_ref().map(|mask| {
            let repainted = mask.repainted();
            let repaint = at_latents(&repainted, &start.image.picture, vae.factor(), context)?;
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
        context: &DeviceContext,
    ) -> Forward<(Tensor, Option<InpaintBlend>)> {
        let image = self.posterior.sample(rng, context)?;
        let noise = context.draw(rng, &image.size())?;
        let Some(mask) = &self.mask else { return Ok((add_noise(&image, &noise, plan.begin)?, None)) };
        let _ = self.posterior.sample(rng, context)?;
        // The reference's inpainting forgets the image where all of the run is made; its image to image never does.
        let x =
            if self.whole { noise.f_mul_scalar(plan.initial_scale)? } else { add_noise(&image, &noise, plan.begin)? };
        Ok((x, Some(InpaintBlend { mask: Rc::clone(mask), image, noise })))
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

impl InpaintBlend {
    /// `x` with the kept part of the image, at `level`, in its place.
    pub(in crate::engine::torch) fn blend(&self, x: &Tensor, level: Level) -> Forward {
        let own = add_noise(&self.image, &self.noise, level)?;
        // own + repaint · (x - own), but exact at both ends.
        let repaint = &self.mask.repaint;
        x.f_mul(repaint)?.f_add(&own.f_mul(&repaint.f_rsub_scalar(1)?)?)
    }
}

/// `image` at `level`, where `noise` is standard.
pub(super) fn add_noise(image: &Tensor, noise: &Tensor, level: Level) -> Forward {
    image.f_mul_scalar(level.signal)?.f_add(&noise.f_mul_scalar(level.noise)?)
}

/// Pixels as the autoencoder takes them, `[1, 3, height, width]` in -1 to 1, channels last in memory. They are made on the CPU, as
/// in the reference: a GPU divides by multiplying.
fn pixels(picture: &Picture, context: &DeviceContext) -> Forward {
    let shape = [1, i64::from(picture.height), i64::from(picture.width), 3];
    let values: Vec<f32> = picture.pixels.iter().map(|&byte| f32::from(byte) / 255.0 * 2.0 - 1.0).collect();
    context.upload(&values, &shape)?.f_permute([0, 3, 1, 2])
}

/// The mask at the latents' size, where a latent is what its upper left pixel is (torch's `nearest`).
fn at_latents(repainted: &[bool], picture: &Picture, factor: u32, context: &DeviceContext) -> Forward {
    let (width, factor) = (picture.width as usize, factor as usize);
    let rows = repainted.chunks_exact(width).step_by(factor);
    let mask: Vec<f32> =
        rows.flat_map(|row| row.iter().step_by(factor)).map(|&repainted| f32::from(u8::from(repainted))).collect();
    context.upload(&mask, &[1, 1, -1, (width / factor) as i64])
}
