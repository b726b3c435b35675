//! Autoencoders: pixels to latents and back.

mod kl;
mod tiny;

use tch::Tensor;

use self::kl::Kl;
use self::tiny::Tiny;
use super::config::Config;
use super::error::LoadError;
use super::nn::Forward;
use super::weights::Scope;

/// Either autoencoder of the SD v1 family. Pixels are `[batch, 3, height, width]` around -1 to 1, latents
/// `[batch, channels, height / factor, width / factor]` in the UNet's scale.
#[derive(Debug)]
pub(super) struct Autoencoder {
    form: Form,
    latent: i64,
    factor: u32,
    scaling: f64,
    shift: f64,
}

#[derive(Debug)]
enum Form {
    Kl(Box<Kl>),
    Tiny(Tiny),
}

impl Autoencoder {
    pub(super) fn load(at: &Scope, config: &Config) -> Result<Self, LoadError> {
        let latent = config.int("latent_channels", Some(4))?;
        let class = config.word("_class_name", &["AutoencoderKL", "AutoencoderTiny"])?;
        let scaling = config.float("scaling_factor", if class == "AutoencoderKL" { 0.18215 } else { 1.0 })?;
        let shift = config.float("shift_factor", 0.0)?;
        let (form, factor) = if class == "AutoencoderKL" {
            let (kl, factor) = Kl::load(at, config, latent)?;
            (Form::Kl(Box::new(kl)), factor)
        } else {
            let (tiny, factor) = Tiny::load(at, config, latent)?;
            (Form::Tiny(tiny), factor)
        };
        config.finish()?;
        Ok(Self { form, latent, factor, scaling, shift })
    }

    /// Channels of the latents.
    pub(super) fn latent_channels(&self) -> i64 {
        self.latent
    }

    /// Pixels to a latent's side.
    pub(super) fn factor(&self) -> u32 {
        self.factor
    }

    /// Latents in the UNet's scale to pixels, not yet clamped.
    pub(super) fn decode(&self, latents: &Tensor) -> Forward {
        self.decode_raw(&latents.f_div_scalar(self.scaling)?.f_add_scalar(self.shift)?)
    }

    /// Latents in the autoencoder's own scale to pixels, not yet clamped.
    pub(super) fn decode_raw(&self, latents: &Tensor) -> Forward {
        match &self.form {
            Form::Kl(kl) => kl.decode(latents),
            Form::Tiny(tiny) => tiny.decode(latents),
        }
    }

    /// Pixels to latents in the autoencoder's own scale; of a KL autoencoder the mean.
    pub(super) fn encode_raw(&self, pixels: &Tensor) -> Forward {
        match &self.form {
            Form::Kl(kl) => kl.encode(pixels)?.f_narrow(1, 0, self.latent),
            Form::Tiny(tiny) => tiny.encode(pixels),
        }
    }
}
