//! A LoRA merged into copies of the weights that it touches.

use std::path::Path;

use super::file::LoraFile;
use super::names::LoraPart;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::ModelFamily;
use crate::engine::torch::networks::Networks;

impl Networks {
    /// Copies what the file at `path` touches and adds to it what the file says, times `scale`; all else stays shared.
    pub(super) fn adapted(
        &self,
        number: u64,
        family: &dyn ModelFamily,
        (path, scale): (&Path, f64),
        context: &DeviceContext,
    ) -> Result<Self, LoadError> {
        let file = LoraFile::open(path, family, context)?;
        let prefixes = family.lora_prefixes();
        let (mut text_encoders, mut unet) = (self.text_encoders.clone(), self.unet.clone());
        let part = LoraPart::unet(prefixes.unet, &unet);
        for weight in unet.weights() {
            weight.add(|module, shape| file.change(&part, module, shape, scale))?;
        }
        for (text_encoder, prefixes) in text_encoders.iter_mut().zip(prefixes.text_encoders) {
            let part = LoraPart::text_encoder(*prefixes);
            for weight in text_encoder.weights() {
                weight.add(|module, shape| file.change(&part, module, shape, scale))?;
            }
        }
        let embeddings = file.embeddings(family.embedding_keys(), &self.text_widths()?)?;
        file.finish()?;
        Ok(Self { number, text_encoders, unet, embeddings })
    }
}
