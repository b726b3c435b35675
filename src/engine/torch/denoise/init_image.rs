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
    /// The image; none where nothing of it is drawn.
    image: Option<Posterior>,
    /// The image with mid grey where it is repainted; none of a UNet that takes none.
    masked_image: Option<Posterior>,
    /// Whether it is begun from noise alone.
    from_noise: bool,
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

/// What one lane keeps of a masked image.
#[derive(Debug)]
pub(in crate::engine::torch) enum Inpaint {
    /// What is put back after each row.
    Blend(InpaintBlend),
    /// What the UNet is told beside the latents instead, [`Conditioning::concat`]: the mask, and the masked image's latents.
    ///
    /// [`Conditioning::concat`]: crate::engine::torch::networks::conditioning::Conditioning::concat
    Concat(Tensor),
}

/// What one lane keeps of an image: its own draw of the latents, and the noise to bring them to a row's level.
#[derive(Debug)]
pub(in crate::engine::torch) struct InpaintBlend {
    mask: Rc<Mask>,
    image: Tensor,
    noise: Tensor,
}

impl InitImage {
    /// Encodes `start`, whose pictures have the size that the job draws, at `context`, where `vae` is. `concat`: whether the UNet takes mask
    /// and masked image beside the latents.
    pub(in crate::engine::torch) fn of(
        start: &Img2Img,
        vae: &Autoencoder,
        concat: bool,
        context: &DeviceContext,
    ) -> Forward<Self> {
        let picture = &start.image.picture;
        let encode = |hidden: &[bool]| vae.encode(&pixels(picture, hidden, context)?);
        // The reference's inpainting forgets the image where all of the run is made; its image to image never does.
        let from_noise = start.strength >= 1.0 && start.mask.is_some();
        let image = (!(from_noise && concat)).then(|| encode(&[])).transpose()?;
        let Some(mask) = &start.mask else { return Ok(Self { image, masked_image: None, from_noise, mask: None }) };
        let repainted = mask.repainted();
        let masked_image = concat.then(|| encode(&repainted)).transpose()?;
        let repaint = at_latents(&repainted, picture, vae.factor(), context)?;
        let paste = mask.paste.then(|| Paste { image: Arc::clone(picture), repainted });
        Ok(Self { image, masked_image, from_noise, mask: Some(Rc::new(Mask { repaint, paste })) })
    }

    /// What a lane begins with, in latents of `shape`, and what it keeps, drawn in the order of the reference: the image's latents, noise,
    /// and for a mask the latents of the masked image, which only an inpainting UNet makes use of. Such a UNet that begins from noise alone
    /// has no need of the first.
    pub(in crate::engine::torch) fn begin(
        &self,
        shape: &[i64],
        rng: &mut TorchRng,
        plan: &Plan,
        context: &DeviceContext,
    ) -> Forward<(Tensor, Option<Inpaint>)> {
        let image = self.image.as_ref().map(|image| image.sample(rng, context)).transpose()?;
        let noise = context.draw(rng, shape)?;
        let x = match &image {
            Some(image) if !self.from_noise => add_noise(image, &noise, plan.begin)?,
            _ => noise.f_mul_scalar(plan.initial_scale)?,
        };
        let Some(mask) = &self.mask else { return Ok((x, None)) };
        if let Some(masked_image) = &self.masked_image {
            let concat = Tensor::f_cat(&[&mask.repaint, &masked_image.sample(rng, context)?], 1)?;
            return Ok((x, Some(Inpaint::Concat(concat))));
        }
        // The reference draws a masked image for every UNet.
        let _ = self.image.as_ref().map(|image| image.sample(rng, context)).transpose()?;
        let blend = |image| Inpaint::Blend(InpaintBlend { mask: Rc::clone(mask), image, noise });
        Ok((x, image.map(blend)))
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

/// Pixels as the autoencoder takes them, `[1, 3, height, width]` in -1 to 1, channels last in memory; those that are `hidden` are mid grey.
/// They are made on the CPU, as in the reference: a GPU divides by multiplying.
fn pixels(picture: &Picture, hidden: &[bool], context: &DeviceContext) -> Forward {
    let shape = [1, i64::from(picture.height), i64::from(picture.width), 3];
    let mut values: Vec<f32> = picture.pixels.iter().map(|&byte| f32::from(byte) / 255.0 * 2.0 - 1.0).collect();
    values.chunks_exact_mut(3).zip(hidden).filter(|(_, hidden)| **hidden).for_each(|(pixel, _)| pixel.fill(0.0));
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
