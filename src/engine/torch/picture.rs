//! From latents to a picture.

use tch::{Cuda, Device, Kind, TchError, Tensor};

use super::lane::Lane;
use super::model::Model;
use crate::engine::Picture;
use crate::job::JobError;

/// Why there is no picture.
#[derive(Debug)]
pub(super) enum Fault {
    /// libtorch failed.
    Torch(TchError),
    /// The model's numbers overflowed.
    NotFinite(Kind),
}

impl From<TchError> for Fault {
    fn from(cause: TchError) -> Self {
        Self::Torch(cause)
    }
}

impl From<Fault> for JobError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Torch(cause) => {
                Self { code: "out_of_memory", message: format!("out of memory while decoding: {cause}"), field: None }
            }
            Fault::NotFinite(kind) => {
                let message =
                    format!("the picture has values that are no numbers; the model may need more than {kind:?}");
                Self { code: "not_finite", message, field: None }
            }
        }
    }
}

/// Decodes the latents of a finished lane.
pub(super) fn decode(model: &Model, lane: &Lane) -> Result<Picture, Fault> {
    if let Device::Cuda(number) = model.target().device {
        // So that the time of the evaluations still under way is not counted as decoding.
        Cuda::synchronize(number as i64);
    }
    let mut picture = pixels(model, &lane.latents()?)?;
    if let Some(canvas) = lane.canvas() {
        canvas.paste(&mut picture);
    }
    Ok(picture)
}

/// The picture of latents `[1, latent, height, width]`, rounded as the reference does: `(x/2 + 0.5)`, clamped to 0..1, times 255,
/// halves to even.
pub(super) fn pixels(model: &Model, latents: &Tensor) -> Result<Picture, Fault> {
    let target = model.target();
    let mut pixels = model.vae.decode(&latents.f_to_kind(target.kind)?)?.f_to_kind(Kind::Float)?;
    if i64::try_from(pixels.f_isfinite()?.f_all()?)? == 0 {
        return Err(Fault::NotFinite(target.kind));
    }
    let pixels = pixels
        .f_div_scalar_(2)?
        .f_add_scalar_(0.5)?
        .f_clamp_(0, 1)?
        .f_mul_scalar_(255)?
        .f_round_()?
        .f_to_kind(Kind::Uint8)?
        .f_select(0, 0)?
        .f_permute([1, 2, 0])?
        .f_contiguous()?
        .f_to_device(Device::Cpu)?;
    let (height, width, _) = pixels.size3()?;
    let pixels = Vec::<u8>::try_from(pixels.f_flatten(0, 2)?)?;
    Ok(Picture { width: width as u32, height: height as u32, pixels })
}
