//! Autoencoders: pixels to latents and back.

mod kl;
mod posterior;
mod tiny;

use serde_json::json;
use tch::{Kind, Tensor};

use self::kl::Kl;
pub(in crate::engine::torch) use self::posterior::Posterior;
use self::tiny::Tiny;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::nn::Forward;
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Scope;

/// Either autoencoder of SD v1 and SDXL, which may compute in other numbers than the UNet does. Pixels are `[batch, 3, height, width]` around -1 to 1, latents
/// `[batch, channels, height / factor, width / factor]` in the UNet's scale.
#[derive(Debug)]
pub(in crate::engine::torch) struct Autoencoder {
    form: Form,
    latent: i64,
    factor: u32,
    scaling: f64,
    kind: Kind,
}

#[derive(Debug)]
enum Form {
    Kl(Box<Kl>),
    Tiny(Tiny),
}

impl Autoencoder {
    pub(in crate::engine::torch) fn load(at: &Scope, config: &ConfigFile) -> Result<Self, LoadError> {
        let latent = config.int("latent_channels", Some(4))?;
        let class = config.word("_class_name", &["AutoencoderKL", "AutoencoderTiny"])?;
        let scaling = config.float("scaling_factor", if class == "AutoencoderKL" { 0.18215 } else { 1.0 })?;
        // The reference's pipelines of this family never apply it.
        config.only("shift_factor", &json!(0))?;
        let (form, factor) = if class == "AutoencoderKL" {
            let (kl, factor) = Kl::load(at, config, latent)?;
            (Form::Kl(Box::new(kl)), factor)
        } else {
            let (tiny, factor) = Tiny::load(at, config, latent)?;
            (Form::Tiny(tiny), factor)
        };
        config.finish()?;
        Ok(Self { form, latent, factor, scaling, kind: at.kind() })
    }

    /// Channels of the latents.
    pub(in crate::engine::torch) fn latent_channels(&self) -> i64 {
        self.latent
    }

    /// Pixels to a latent's side.
    pub(in crate::engine::torch) fn factor(&self) -> u32 {
        self.factor
    }

    /// What it computes in.
    pub(in crate::engine::torch) fn kind(&self) -> Kind {
        self.kind
    }

    /// Latents in the UNet's scale, in any kind, to pixels, not yet clamped.
    pub(in crate::engine::torch) fn decode(&self, latents: &Tensor) -> Forward {
        self.decode_raw(&latents.f_to_kind(self.kind)?.f_div_scalar(self.scaling)?)
    }

    /// Latents in the autoencoder's own scale to pixels, not yet clamped.
    pub(in crate::engine::torch) fn decode_raw(&self, latents: &Tensor) -> Forward {
        match &self.form {
            Form::Kl(kl) => kl.decode(latents),
            Form::Tiny(tiny) => tiny.decode(latents),
        }
    }

    /// Pixels, in any kind, to what is known of their latents, in the UNet's scale.
    pub(in crate::engine::torch) fn encode(&self, pixels: &Tensor) -> Forward<Posterior> {
        let pixels = &pixels.f_to_kind(self.kind)?;
        let wide = |encoded: Tensor| encoded.f_to_kind(Kind::Float);
        match &self.form {
            Form::Kl(kl) => Posterior::normal(&wide(kl.encode(pixels)?)?, self.scaling),
            Form::Tiny(tiny) => Posterior::point(&wide(tiny.encode(pixels)?)?, self.scaling),
        }
    }

    /// Pixels to latents in the autoencoder's own scale; of a KL autoencoder the mean.
    pub(in crate::engine::torch) fn encode_raw(&self, pixels: &Tensor) -> Forward {
        match &self.form {
            Form::Kl(kl) => kl.encode(pixels)?.f_narrow(1, 0, self.latent),
            Form::Tiny(tiny) => tiny.encode(pixels),
        }
    }
}
