//! Which files of a repository are what latentd loads: a folder in diffusers layout, safetensors and nothing that can run code.

use super::remote::RemoteFile;
use crate::job::Family;
use crate::job::sharded::{self, ShardIndexError};

/// What diffusers calls the weights of its models; transformers calls those of its own `model`.
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// The parts of a model, other than its scheduler.
struct Layout {
    text_encoders: &'static [&'static str],
    tokenizers: &'static [&'static str],
}

const SD1_LAYOUT: Layout = Layout { text_encoders: &["text_encoder"], tokenizers: &["tokenizer"] };
const SDXL_LAYOUT: Layout =
    Layout { text_encoders: &["text_encoder", "text_encoder_2"], tokenizers: &["tokenizer", "tokenizer_2"] };
const REFINER_LAYOUT: Layout = Layout { text_encoders: &["text_encoder_2"], tokenizers: &["tokenizer_2"] };

/// Files of a tokenizer; not every tokenizer has each of them.
const TOKENIZER: [&str; 6] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Parts that only other families have, and which.
const FOREIGN_PARTS: [(&str, &str); 4] = [
    ("transformer/", "a transformer, not a UNet"),
    ("text_encoder_3/", "a third text encoder"),
    ("prior/", "a pipeline with a prior"),
    ("image_encoder/", "a pipeline that takes pictures for prompts"),
];

/// Why a repository is none that could be pulled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableRepository {
    /// Weights come as pickles alone.
    #[error(
        "it has {0} only as a pickle, which can run code, so it is not fetched: convert it on a machine that you can lose, as \
         models/README.md says, or look for a repository with .safetensors"
    )]
    Pickle(String),
    /// It is of another family.
    #[error("it holds {0}, and only models of the {loads} architecture load", loads = Family::labels())]
    Family(&'static str),
    /// It is an autoencoder alone.
    #[error(
        "it holds an autoencoder alone, which takes the place of a model's own: pull that model with --vae and this repository"
    )]
    Autoencoder,
    /// Weights come in several files, and their index is of no use.
    #[error("its {0} {1}")]
    Index(String, ShardIndexError),
    /// Checkpoints in one file, and no folders.
    #[error("it is in no diffusers layout, but has checkpoints in one file: pull the URL of one of them ({0})")]
    Files(String),
    /// Something is missing.
    #[error("it has no {0}, so it is no whole model in diffusers layout")]
    Missing(String),
    /// Not as it was asked for.
    #[error("it has no {0}: pull it without --variant")]
    Variant(String),
}

/// Picks the files to fetch; of weights those of `variant` (as in `model.fp16.safetensors`), else the full ones, else `fp16`. Of weights in
/// several files it is the index that names them.
///
/// # Errors
/// The repository has no whole model of a family that loads, or has it as a pickle.
pub fn choose<'a>(files: &'a [RemoteFile], variant: Option<&str>) -> Result<Vec<&'a RemoteFile>, UnusableRepository> {
    let layout = layout(files)?;
    let need = |path: String| find(files, &path).ok_or(UnusableRepository::Missing(path));
    let Some(index) = find(files, "model_index.json") else { return Err(no_index(files)) };
    let mut chosen = vec![index, need("scheduler/scheduler_config.json".into())?];
    for tokenizer in layout.tokenizers {
        chosen.extend(TOKENIZER.iter().filter_map(|name| find(files, &format!("{tokenizer}/{name}"))));
        if find(files, &format!("{tokenizer}/tokenizer.json")).is_none() {
            need(format!("{tokenizer}/merges.txt"))?;
        }
    }
    let text_encoders = layout.text_encoders.iter().map(|part| (*part, "model"));
    for (part, stem) in text_encoders.chain(["unet", "vae"].map(|part| (part, DIFFUSERS_STEM))) {
        chosen.push(need(format!("{part}/config.json"))?);
        chosen.push(weights(files, part, stem, variant)?);
    }
    Ok(chosen)
}

/// Picks an autoencoder's files, in the folder `vae` or at the root: its configuration and its weights, of `variant` if there are such.
///
/// # Errors
/// The repository has none, or has it as a pickle.
pub(super) fn choose_vae<'a>(
    files: &'a [RemoteFile],
    variant: Option<&str>,
) -> Result<[&'a RemoteFile; 2], UnusableRepository> {
    let config = ["vae/config.json", "config.json"].iter().find_map(|path| find(files, path));
    let config = config.ok_or_else(|| UnusableRepository::Missing("vae/config.json".into()))?;
    let part = config.path.parts().0.unwrap_or_default();
    let of_variant = variant.and_then(|_| weights(files, part, DIFFUSERS_STEM, variant).ok());
    Ok([config, of_variant.map_or_else(|| weights(files, part, DIFFUSERS_STEM, None), Ok)?])
}

/// Of which layout the repository is, by its folders.
fn layout(files: &[RemoteFile]) -> Result<Layout, UnusableRepository> {
    let has = |part: &str| files.iter().any(|file| file.path.as_str().starts_with(part));
    if let Some((_, family)) = FOREIGN_PARTS.iter().find(|(part, _)| has(part)) {
        return Err(UnusableRepository::Family(family));
    }
    Ok(match (has("text_encoder/"), has("text_encoder_2/")) {
        (_, false) => SD1_LAYOUT,
        (true, true) => SDXL_LAYOUT,
        (false, true) => REFINER_LAYOUT,
    })
}

fn find<'a>(files: &'a [RemoteFile], path: &str) -> Option<&'a RemoteFile> {
    files.iter().find(|file| file.path.as_str() == path)
}

/// The one file of a part's weights, or the index of several; the part at the root is called nothing.
fn weights<'a>(
    files: &'a [RemoteFile],
    part: &str,
    stem: &str,
    variant: Option<&str>,
) -> Result<&'a RemoteFile, UnusableRepository> {
    let in_part = |file: &&RemoteFile| file.path.parts().0.unwrap_or_default() == part;
    let at = |name: String| if part.is_empty() { name } else { format!("{part}/{name}") };
    let names = |variant: Option<&str>| sharded::weight_names(stem, variant).into_iter().map(at);
    let single = |variant: Option<&str>| names(variant).next().unwrap_or_default();
    let of = |variant: Option<&str>| names(variant).find_map(|path| find(files, &path));
    let found = if variant.is_some() { of(variant) } else { of(None).or_else(|| of(Some("fp16"))) };
    found.ok_or_else(|| match files.iter().filter(in_part).find(|file| is_pickle(file)) {
        Some(_) if variant.is_some() && of(None).is_some() => UnusableRepository::Variant(single(variant)),
        Some(pickle) => UnusableRepository::Pickle(pickle.path.to_string()),
        None if variant.is_some() => UnusableRepository::Variant(single(variant)),
        None => UnusableRepository::Missing(single(None)),
    })
}

fn no_index(files: &[RemoteFile]) -> UnusableRepository {
    if ["config.json", "diffusion_pytorch_model.safetensors"].iter().all(|path| find(files, path).is_some()) {
        return UnusableRepository::Autoencoder;
    }
    let at_root = || files.iter().filter(|file| file.path.parts().0.is_none());
    let singles: Vec<&str> =
        at_root().map(|file| file.path.as_str()).filter(|path| path.ends_with(".safetensors")).take(5).collect();
    match at_root().find(|file| is_pickle(file)) {
        _ if !singles.is_empty() => UnusableRepository::Files(singles.join(", ")),
        Some(pickle) => UnusableRepository::Pickle(pickle.path.to_string()),
        None => UnusableRepository::Missing("model_index.json".into()),
    }
}

fn is_pickle(file: &RemoteFile) -> bool {
    let ending = file.path.as_str().rsplit_once('.').map(|(_, ending)| ending);
    matches!(ending, Some("ckpt" | "bin" | "pt" | "pth" | "pkl"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::place::RelativePath;
    use super::*;

    fn files(paths: &[&str]) -> Vec<RemoteFile> {
        let file = |path: &&str| RemoteFile {
            path: RelativePath::parse(path).unwrap(),
            bytes: Some(1),
            sha256: None,
            blob: None,
        };
        paths.iter().map(file).collect()
    }

    const CONFIGS: [&str; 6] = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "text_encoder/config.json",
        "unet/config.json",
        "vae/config.json",
    ];

    const FULL: [&str; 3] = [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ];

    const HALF: [&str; 3] = [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ];

    /// What SDXL has besides.
    const SECOND: [&str; 3] = ["text_encoder_2/config.json", "tokenizer_2/merges.txt", "tokenizer_2/vocab.json"];

    /// What the repository of SDXL has and is not loaded.
    const SDXL_BALLAST: [&str; 11] = [
        "sd_xl_base_1.0.safetensors",
        "sd_xl_base_1.0_0.9vae.safetensors",
        "sd_xl_offset_example-lora_1.0.safetensors",
        "text_encoder/flax_model.msgpack",
        "text_encoder_2/model.onnx_data",
        "text_encoder_2/openvino_model.bin",
        "unet/model.onnx",
        "vae_1_0/config.json",
        "vae_1_0/diffusion_pytorch_model.fp16.safetensors",
        "vae_decoder/model.onnx",
        "vae_encoder/openvino_model.xml",
    ];

    /// A repository of an autoencoder alone.
    const VAE: [&str; 3] = ["config.json", "diffusion_pytorch_model.safetensors", "sdxl.vae.safetensors"];

    const BALLAST: [&str; 9] = [
        "README.md",
        "v1-5-pruned.ckpt",
        "v1-5-pruned-emaonly.safetensors",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/diffusion_flax_model.msgpack",
    ];

    fn chosen(groups: &[&[&str]], variant: Option<&str>) -> Result<Vec<String>, UnusableRepository> {
        let files = files(&groups.concat());
        let mut chosen: Vec<String> = choose(&files, variant)?.iter().map(|file| file.path.to_string()).collect();
        chosen.sort();
        Ok(chosen)
    }

    fn sorted(groups: &[&[&str]]) -> Vec<String> {
        let mut all: Vec<String> = groups.concat().into_iter().map(str::to_owned).collect();
        all.sort();
        all
    }

    #[test]
    fn what_is_loaded_is_fetched_and_nothing_else() {
        let repository: &[&[&str]] = &[&CONFIGS, &FULL, &HALF, &BALLAST, &["tokenizer/vocab.json"]];
        assert_eq!(chosen(repository, None).unwrap(), sorted(&[&CONFIGS, &FULL, &["tokenizer/vocab.json"]]));
        assert_eq!(chosen(repository, Some("fp16")).unwrap(), sorted(&[&CONFIGS, &HALF, &["tokenizer/vocab.json"]]));
        assert_eq!(chosen(&[&CONFIGS, &HALF, &BALLAST], None).unwrap(), sorted(&[&CONFIGS, &HALF]));
    }

    #[test]
    fn of_sdxl_both_text_encoders_are_fetched() {
        let (full, half) = (["text_encoder_2/model.safetensors"], ["text_encoder_2/model.fp16.safetensors"]);
        let repository: &[&[&str]] = &[&CONFIGS, &FULL, &HALF, &SECOND, &full, &half, &SDXL_BALLAST];
        assert_eq!(chosen(repository, None).unwrap(), sorted(&[&CONFIGS, &FULL, &SECOND, &full]));
        assert_eq!(chosen(repository, Some("fp16")).unwrap(), sorted(&[&CONFIGS, &HALF, &SECOND, &half]));
    }

    #[test]
    fn of_weights_in_several_files_it_is_the_index() {
        let shards = ["unet/diffusion_pytorch_model-00001-of-00002.safetensors"];
        let full = ["unet/diffusion_pytorch_model.safetensors.index.json"];
        let rest = [FULL[0], FULL[2]];
        assert_eq!(chosen(&[&CONFIGS, &rest, &shards, &full], None).unwrap(), sorted(&[&CONFIGS, &rest, &full]));
        let with_half: &[&[&str]] = &[&CONFIGS, &FULL[..1], &full, &HALF];
        assert_eq!(chosen(with_half, None).unwrap(), sorted(&[&CONFIGS, &FULL[..1], &full, &HALF[2..]]));
        assert_eq!(chosen(with_half, Some("fp16")).unwrap(), sorted(&[&CONFIGS, &HALF]));
        for spelling in ["safetensors.index.fp16", "safetensors.fp16.index", "fp16.safetensors.index"] {
            let index = [format!("unet/diffusion_pytorch_model.{spelling}.json")];
            let index = [index[0].as_str()];
            let rest = [HALF[0], HALF[2]];
            for variant in [None, Some("fp16")] {
                let chosen = chosen(&[&CONFIGS, &rest, &index], variant).unwrap();
                assert_eq!(chosen, sorted(&[&CONFIGS, &rest, &index]));
            }
        }
    }

    #[test]
    fn an_autoencoder_is_a_folder_or_a_repository() {
        let vae = |groups: &[&[&str]], variant| {
            let files = files(&groups.concat());
            choose_vae(&files, variant).map(|found| found.map(|file| file.path.to_string()))
        };
        for variant in [None, Some("fp16")] {
            assert_eq!(vae(&[&VAE], variant).unwrap(), [VAE[0], VAE[1]], "there are no others");
        }
        assert_eq!(vae(&[&CONFIGS, &FULL, &HALF], None).unwrap(), [CONFIGS[5], FULL[2]]);
        assert_eq!(vae(&[&CONFIGS, &FULL, &HALF], Some("fp16")).unwrap(), [CONFIGS[5], HALF[2]]);
        let error = vae(&[&VAE[..1], &["diffusion_pytorch_model.bin"]], None).unwrap_err().to_string();
        assert!(error.contains("diffusion_pytorch_model.bin only as a pickle"), "{error}");
        assert_eq!(vae(&[&VAE[1..]], None), Err(UnusableRepository::Missing("vae/config.json".into())));
    }

    #[test]
    fn what_does_not_fit_says_why() {
        for (groups, variant, said) in [
            (&[&CONFIGS[..], &BALLAST][..], None, "no text_encoder/model.safetensors"),
            (
                &[&CONFIGS, &FULL[..1], &["unet/diffusion_pytorch_model.bin"]],
                None,
                "unet/diffusion_pytorch_model.bin only as a pickle",
            ),
            (&[&CONFIGS, &FULL], Some("fp16"), "no text_encoder/model.fp16.safetensors: pull it without --variant"),
            (&[&CONFIGS, &FULL, &["text_encoder_2/config.json"]], None, "no tokenizer_2/merges.txt"),
            (&[&CONFIGS[..3], &["text_encoder_2/config.json"]], None, "no tokenizer_2/merges.txt"),
            (&[&CONFIGS, &FULL, &["transformer/config.json"]], None, "a transformer, not a UNet"),
            (&[&VAE], None, "with --vae and this repository"),
            (&[&["a.safetensors", "b.ckpt"]], None, "pull the URL of one of them (a.safetensors)"),
            (&[&["sd-v1-4.ckpt", "README.md"]], None, "sd-v1-4.ckpt only as a pickle"),
            (&[&["README.md"]], None, "no model_index.json"),
            (&[&CONFIGS[..2], &CONFIGS[3..], &FULL], None, "no tokenizer/merges.txt"),
        ] {
            let error = chosen(groups, variant).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
