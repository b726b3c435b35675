//! LoRA (Hu et al. 2021): low-rank changes of a model, merged into copies of the weights that they touch.

mod adapters;
mod file;
mod names;
mod notes;

use std::path::Path;
use std::rc::Rc;

use tch::Device;

pub(super) use adapters::Adapters;

use self::file::LoraFile;
use self::names::Part;
use super::error::LoadError;
use super::networks::Networks;

impl Networks {
    /// Copies what the file at `path` touches and adds to it what the file says, times `scale`; all else stays shared.
    fn adapted(&self, number: u64, path: &Path, scale: f64, device: Device) -> Result<Self, LoadError> {
        let file = LoraFile::open(path, device)?;
        let (mut text, mut unet) = (self.text.clone(), self.unet.clone());
        let part = Part::Unet(Rc::clone(unet.levels()));
        for weight in unet.weights() {
            weight.add(|module, shape| file.change(&part, module, shape, scale))?;
        }
        for weight in text.weights() {
            weight.add(|module, shape| file.change(&Part::Text, module, shape, scale))?;
        }
        file.finish()?;
        Ok(Self { number, text, unet })
    }
}
