//! The part of the configuration that is about NVIDIA GPUs.

use std::path::PathBuf;

use figment::value::Value;

use super::setting::Setting;
use super::{Reader, environment};

/// How a GPU is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaConfig {
    /// Whether evaluations are recorded and replayed.
    pub graphs: bool,
    /// Whether kernels of our own are used.
    pub kernels: bool,
    /// Which library attends in half precision.
    pub attention: AttentionBackend,
    /// Rows of an evaluation at a model's usual size; `None` is what memory and the measured gain allow.
    pub rows: Option<usize>,
    /// Widths and heights, in pixels, that are made ready for in idle time; `None` is the size of a model's jobs that name none.
    pub warm_up: Option<Vec<(u32, u32)>>,
    /// Whether parts of a model may lie in main memory while a GPU has no room for them.
    pub offload: OffloadSetting,
    /// The helper library; `None` is the one that is found.
    pub helper: Option<PathBuf>,
    /// Where it is looked for beside libtorch's folder.
    pub folders: Vec<PathBuf>,
}

/// Which library computes attention in f16 and bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBackend {
    /// `FlashAttention` 2, which libtorch brings.
    Flash,
    /// cuDNN's, where it has a plan for the shape; else the former.
    Cudnn,
    /// Whichever was faster, measured once for each shape in idle time.
    Auto,
}

impl Setting for AttentionBackend {
    const ALLOWED: &'static str = "flash, cudnn or auto";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "flash" => Some(Self::Flash),
            "cudnn" => Some(Self::Cudnn),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }
}

/// Whether parts of a model may leave a GPU that cannot hold them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffloadSetting {
    /// Where memory does not suffice.
    Auto,
    /// Never.
    Off,
}

impl Setting for OffloadSetting {
    const ALLOWED: &'static str = "auto or off";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "auto" => Some(Self::Auto),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// Sizes of pictures, such as 512x768.
impl Setting for Option<Vec<(u32, u32)>> {
    const ALLOWED: &'static str = "a list of sizes such as 512x512, in a text separated by commas, auto or off";
    fn read(value: &Value) -> Option<Self> {
        let side = |text: &str| text.parse::<u32>().ok().filter(|side| (8..=8192).contains(side));
        let size =
            |text: &str| text.trim().split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        let sizes: Option<Vec<_>> = match (value.as_array(), value.as_str()) {
            (Some(sizes), _) => sizes.iter().map(|text| size(text.as_str()?)).collect(),
            (None, Some("auto")) => return Some(None),
            (None, Some("off")) => Some(Vec::new()),
            (None, Some(text)) => text.split(',').map(size).collect(),
            (None, None) => None,
        };
        sizes.map(Some)
    }
}

impl Reader {
    pub(super) fn cuda(&mut self) -> Option<CudaConfig> {
        let (graphs, kernels) = (self.read("cuda.graphs"), self.read("cuda.kernels"));
        let (attention, warm_up) = (self.read("cuda.attention"), self.read("cuda.warm_up"));
        let (rows, offload) = (self.read::<Option<u64>>("cuda.rows"), self.read("offload"));
        let helper = self.read::<String>("cuda.helper");
        let helper = Some(helper?).filter(|path| path != "auto").map(PathBuf::from);
        Some(CudaConfig {
            graphs: graphs?,
            kernels: kernels?,
            attention: attention?,
            rows: rows?.map(|rows| usize::try_from(rows).unwrap_or(usize::MAX)),
            warm_up: warm_up?,
            offload: offload?,
            helper,
            folders: environment::program_folders(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_list_or_a_text() {
        let read = |value: Value| Option::<Vec<(u32, u32)>>::read(&value);
        assert_eq!(read("512x512, 768x512".into()), Some(Some(vec![(512, 512), (768, 512)])));
        assert_eq!(read("auto".into()), Some(None));
        assert_eq!((read("off".into()), read(Vec::<String>::new().into())), (Some(Some(vec![])), Some(Some(vec![]))));
        assert_eq!(read(vec!["64x128"].into()), Some(Some(vec![(64, 128)])));
        for wrong in ["", "512", "512x", "x512", "0x512", "512x512,", "-8x8", "512X512", "99999x512"] {
            assert_eq!(read(wrong.into()), None, "{wrong}");
        }
    }
}
