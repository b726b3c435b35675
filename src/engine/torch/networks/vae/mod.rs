//! Autoencoders: pixels to latents and back.

mod kl;
mod posterior;
mod tiles;
mod tiny;

use std::cell::Cell;

use serde_json::json;
use tch::{Kind, Tensor};

use self::kl::Kl;
pub(in crate::engine::torch) use self::posterior::Posterior;
use self::tiles::TileSides;
use self::tiny::Tiny;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::nn::{Forward, Weight};
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Scope;

/// Either autoencoder of SD v1 and SDXL, which may compute in other numbers than the UNet does. Pixels are `[batch, 3, height, width]` around -1 to 1, latents
/// `[batch, channels, height / factor, width / factor]` in the UNet's scale.
/// Clones share their tensors.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Autoencoder {
    form: Form,
    latent: i64,
    factor: u32,
    scaling: f64,
    kind: Kind,
    /// Latents a side of the tiles that larger images are taken in; none as long as memory holds the whole.
    tile: Cell<Option<i64>>,
}

/// A tile has no fewer latents a side: below that the seams would be most of the picture.
const SMALLEST_TILE: i64 = 32;

#[derive(Debug, Clone)]
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
        let mut autoencoder = Self { form, latent, factor, scaling, kind: at.kind(), tile: Cell::new(None) };
        Weight::offload_loaded(at, autoencoder.weights())?;
        Ok(autoencoder)
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

    /// Latents a side of its tiles, if it works in tiles.
    pub(in crate::engine::torch) fn tile(&self) -> Option<i64> {
        self.tile.get()
    }

    /// Has images of `height` × `width` latents, for which memory did not suffice, and larger ones be taken in tiles from now on, of half the
    /// side that was tried; whether they can be.
    pub(in crate::engine::torch) fn halve_tiles(&self, height: i64, width: i64) -> bool {
        let tried = self.tile.get().unwrap_or(i64::MAX).min(height.max(width));
        // Whole numbers of latents overlap, a quarter of a side.
        let half = tried / 2 / 4 * 4;
        if half < SMALLEST_TILE {
            return false;
        }
        self.use_tiles(half);
        true
    }

    /// Has larger images be taken in tiles of `side` latents, a multiple of 4.
    pub(in crate::engine::torch) fn use_tiles(&self, side: i64) {
        self.tile.set(Some(side));
    }

    /// What it is made of.
    pub(in crate::engine::torch) fn weights(&mut self) -> Vec<&mut Weight> {
        match &mut self.form {
            Form::Kl(kl) => kl.weights(),
            Form::Tiny(tiny) => tiny.weights(),
        }
    }

    /// Latents in the UNet's scale, in any kind, to pixels, not yet clamped.
    pub(in crate::engine::torch) fn decode(&self, latents: &Tensor) -> Forward {
        self.decode_raw(&latents.f_to_kind(self.kind)?.f_div_scalar(self.scaling)?)
    }

    /// Latents in the autoencoder's own scale to pixels, not yet clamped.
    pub(in crate::engine::torch) fn decode_raw(&self, latents: &Tensor) -> Forward {
        let decode = |latents: &Tensor| match &self.form {
            Form::Kl(kl) => kl.decode(latents),
            Form::Tiny(tiny) => tiny.decode(latents),
        };
        let tiles = self.tile.get().map(|side| TileSides { from: side, to: side * i64::from(self.factor) });
        match tiles.filter(|tiles| tiles.are_less_than(latents)) {
            Some(tiles) => tiles.map(latents, decode),
            None => decode(latents),
        }
    }

    /// Pixels, in any kind, to what is known of their latents, in the UNet's scale.
    pub(in crate::engine::torch) fn encode(&self, pixels: &Tensor) -> Forward<Posterior> {
        let encoded = self.encoded(&pixels.f_to_kind(self.kind)?)?.f_to_kind(Kind::Float)?;
        match &self.form {
            Form::Kl(_) => Posterior::normal(&encoded, self.scaling),
            Form::Tiny(_) => Posterior::point(&encoded, self.scaling),
        }
    }

    /// Pixels to latents in the autoencoder's own scale; of a KL autoencoder the mean.
    pub(in crate::engine::torch) fn encode_raw(&self, pixels: &Tensor) -> Forward {
        self.encoded(pixels)?.f_narrow(1, 0, self.latent)
    }

    /// Pixels to latents in the autoencoder's own scale; of a KL autoencoder mean and log variance, one after the other in the channels.
    fn encoded(&self, pixels: &Tensor) -> Forward {
        let encode = |pixels: &Tensor| match &self.form {
            Form::Kl(kl) => kl.encode(pixels),
            Form::Tiny(tiny) => tiny.encode(pixels),
        };
        let tiles = self.tile.get().map(|side| TileSides { from: side * i64::from(self.factor), to: side });
        match tiles.filter(|tiles| tiles.are_less_than(pixels)) {
            Some(tiles) => tiles.map(pixels, encode),
            None => encode(pixels),
        }
    }
}
