//! A LoRA merged into copies of the weights that it touches.

use std::path::Path;
use std::rc::Rc;

use tch::Device;

use super::file::LoraFile;
use super::names::LoraPart;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::Networks;

impl Networks {
    /// Copies what the file at `path` touches and adds to it what the file says, times `scale`; all else stays shared.
    pub(super) fn adapted(&self, number: u64, path: &Path, scale: f64, device: Device) -> Result<Self, LoadError> {
        let file = LoraFile::open(path, device)?;
        let (mut text, mut unet) = (self.text.clone(), self.unet.clone());
        let part = LoraPart::Unet(Rc::clone(unet.levels()));
        for weight in unet.weights() {
            weight.add(|module, shape| file.change(&part, module, shape, scale))?;
        }
        for weight in text.weights() {
            weight.add(|module, shape| file.change(&LoraPart::Text, module, shape, scale))?;
        }
        file.finish()?;
        Ok(Self { number, text, unet })
    }
}
