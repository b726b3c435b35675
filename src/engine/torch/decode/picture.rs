//! From latents to a picture.

use tch::{Device, Kind, TchError, Tensor};

use crate::batch::Key;
use crate::engine::Picture;
use crate::engine::torch::denoise::lane::Lane;
use crate::engine::torch::error::{Forward, TorchError};
use crate::engine::torch::families::Model;
use crate::job::{Code, JobError};

/// Why there is no picture.
#[derive(Debug)]
pub(in crate::engine::torch) enum DecodeError {
    /// libtorch failed.
    Torch(TorchError),
    /// The model's numbers overflowed.
    NotFinite(Kind),
}

impl From<TchError> for DecodeError {
    fn from(cause: TchError) -> Self {
        Self::Torch(cause.into())
    }
}

impl From<DecodeError> for JobError {
    fn from(cause: DecodeError) -> Self {
        match cause {
            DecodeError::Torch(cause) if cause.is_out_of_memory() => {
                let message = format!("out of memory while decoding: {}", cause.first_line());
                Self { code: Code::OutOfMemory, message, field: None }
            }
            DecodeError::Torch(cause) => cause.into(),
            DecodeError::NotFinite(kind) => {
                let message =
                    format!("the picture has values that are no numbers; the model may need more than {kind:?}");
                Self { code: Code::NotFinite, message, field: None }
            }
        }
    }
}

/// What `latents`, `[1, latent, height, width]`, come to, on their device: the bytes of the picture, and one more, which is 1 if all of
/// its values are numbers. So no call has to wait for the answer before the picture is there. Rounded as the reference does: `(x/2 + 0.5)`,
/// clamped to 0..1, times 255, halves to even.
pub(in crate::engine::torch) fn decode(model: &Model, latents: &Tensor) -> Forward {
    let pixels = model.vae.decode(latents)?.f_to_kind(Kind::Float)?;
    let sound = pixels.f_isfinite()?.f_all()?.f_to_kind(Kind::Uint8)?.f_reshape([1])?;
    let pixels = pixels
        .f_div_scalar(2)?
        .f_add_scalar_(0.5)?
        .f_clamp_(0, 1)?
        .f_mul_scalar_(255)?
        .f_round_()?
        .f_to_kind(Kind::Uint8)?
        .f_select(0, 0)?
        .f_permute([1, 2, 0])?
        .f_flatten(0, 2)?;
    Tensor::f_cat(&[pixels, sound], 0)
}

/// The picture of a finished lane, from its `bytes`.
pub(in crate::engine::torch) fn of(model: &Model, lane: &Lane, bytes: &Tensor) -> Result<Picture, DecodeError> {
    let Key { height, width, .. } = lane.stage().key;
    let mut picture = read(model, height, width, bytes)?;
    if let Some(init_image) = lane.init_image() {
        init_image.paste(&mut picture);
    }
    Ok(picture)
}

/// The picture of `latents`, `[1, latent, height, width]`, now.
pub(in crate::engine::torch) fn decode_now(model: &Model, latents: &Tensor) -> Result<Picture, DecodeError> {
    let (_, _, height, width) = latents.size4()?;
    read(model, height as u32, width as u32, &decode(model, latents)?.f_to_device(Device::Cpu)?)
}

/// The picture of latents of `height` × `width`, from its `bytes`.
fn read(model: &Model, height: u32, width: u32, bytes: &Tensor) -> Result<Picture, DecodeError> {
    let factor = model.vae.factor();
    let mut pixels = Vec::<u8>::try_from(bytes)?;
    match pixels.pop() {
        Some(1) => Ok(Picture { width: width * factor, height: height * factor, pixels }),
        _ => Err(DecodeError::NotFinite(model.vae.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_failed_says_what_happened() {
        for (text, code, message) in [
            ("out of memory", Code::OutOfMemory, "out of memory while decoding: Internal torch error: out of memory"),
            ("shapes do not fit\nframe #0", Code::EngineError, "Internal torch error: shapes do not fit"),
            ("CUDA error: lost", Code::EngineLost, "Internal torch error: CUDA error: lost"),
        ] {
            let error = JobError::from(DecodeError::from(TchError::Torch(text.to_owned())));
            assert!(error.code == code && error.message.ends_with(message), "{error:?}");
        }
    }
}
