//! An autoencoder in f32 beside a UNet in f16 (diffusers' `upcast_vae`): some, SDXL's above all, have activations beyond 65504, where f16 ends,
//! and then every pixel is no number. diffusers draws such a picture black; here it is decoded again.

use std::sync::Arc;

use memmap2::Mmap;
use tch::Kind;
use tracing::warn;

use super::model::{Model, VAE, find_weights};
use super::names;
use super::single_file::Layout;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::weights::config::Config;
use crate::engine::torch::weights::files::Weights;

impl Model {
    /// Has the autoencoder, which is in f16, compute in f32 from now on. Its weights are read anew, at `context`, from the file of full precision if
    /// there is one. Nothing that the device was given may need the old ones any more.
    ///
    /// # Errors
    /// As for [`Model::load`]; the model is as it was then.
    pub(in crate::engine::torch) fn upcast_autoencoder(&mut self, context: &DeviceContext) -> Result<(), LoadError> {
        let (vae, maps) = if self.path.is_dir() { self.read_folder(context) } else { self.read_file(context) }?;
        warn!("the autoencoder overflows in f16: it computes in f32 from now on, which takes longer");
        self.vae = vae;
        self.maps.extend(maps);
        Ok(())
    }

    fn read_folder(&self, context: &DeviceContext) -> Result<(Autoencoder, Vec<Arc<Mmap>>), LoadError> {
        let folder = self.path.join(VAE.0);
        let weights = Weights::open(&[find_weights(&folder, VAE.1, false)?], Kind::Float, context)?;
        let weights = weights.renamed(Box::new(names::autoencoder));
        let vae = Autoencoder::load(&weights.root(), &Config::read(&folder.join("config.json"))?)?;
        Ok((vae, weights.finish(|_| true)?))
    }

    fn read_file(&self, context: &DeviceContext) -> Result<(Autoencoder, Vec<Arc<Mmap>>), LoadError> {
        let weights = Weights::open(std::slice::from_ref(&self.path), Kind::Float, context)?;
        let config = Layout::of(&weights)?.autoencoder();
        let depth = config.int_list("block_out_channels")?.len();
        let weights = weights.renamed(Box::new(move |name| vec![names::original_autoencoder(name, depth)]));
        let vae = Autoencoder::load(&weights.root(), &config)?;
        Ok((vae, weights.finish(|_| true)?))
    }
}
