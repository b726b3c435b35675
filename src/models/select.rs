//! Which files of a repository are what latentd loads: a folder in diffusers layout, safetensors and nothing that can run code.

use super::remote::RemoteFile;
use crate::job::Family;

/// Parts that have a configuration and weights, and what the weights are called.
const MODEL_PARTS: [(&str, &str); 3] =
    [("text_encoder", "model"), ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")];

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
    ("text_encoder_2/", "SDXL or a later family"),
    ("transformer/", "a transformer, not a UNet"),
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

/// Picks the files to fetch; of weights those of `variant` (as in `model.fp16.safetensors`), else the full ones, else `fp16`.
///
/// # Errors
/// The repository has no whole model of a family that loads, or has it as a pickle.
pub fn choose<'a>(files: &'a [RemoteFile], variant: Option<&str>) -> Result<Vec<&'a RemoteFile>, UnusableRepository> {
    if let Some((_, family)) =
        FOREIGN_PARTS.iter().find(|(part, _)| files.iter().any(|file| file.path.as_str().starts_with(part)))
    {
        return Err(UnusableRepository::Family(family));
    }
    let find = |path: &str| files.iter().find(|file| file.path.as_str() == path);
    let need = |path: String| find(&path).ok_or(UnusableRepository::Missing(path));
    let Some(index) = find("model_index.json") else { return Err(no_index(files)) };
    let mut chosen = vec![index, need("scheduler/scheduler_config.json".into())?];
    let tokenizer = TOKENIZER.iter().filter_map(|name| find(&format!("tokenizer/{name}")));
    chosen.extend(tokenizer);
    if find("tokenizer/tokenizer.json").is_none() {
        need("tokenizer/merges.txt".into())?;
    }
    for (part, stem) in MODEL_PARTS {
        chosen.push(need(format!("{part}/config.json"))?);
        chosen.push(weights(files, part, stem, variant)?);
    }
    Ok(chosen)
}

fn weights<'a>(
    files: &'a [RemoteFile],
    part: &str,
    stem: &str,
    variant: Option<&str>,
) -> Result<&'a RemoteFile, UnusableRepository> {
    let find = |path: &str| files.iter().find(|file| file.path.as_str() == path);
    let full = format!("{part}/{stem}.safetensors");
    let variants = [variant.unwrap_or("fp16")].map(|variant| format!("{part}/{stem}.{variant}.safetensors"));
    let found = match variant {
        Some(_) => variants.iter().find_map(|path| find(path)),
        None => find(&full).or_else(|| variants.iter().find_map(|path| find(path))),
    };
    found.ok_or_else(|| {
        let in_part = |file: &&RemoteFile| file.path.parts().0 == Some(part);
        match files.iter().filter(in_part).find(|file| is_pickle(file)) {
            Some(_) if variant.is_some() && find(&full).is_some() => UnusableRepository::Variant(variants[0].clone()),
            Some(pickle) => UnusableRepository::Pickle(pickle.path.to_string()),
            None if variant.is_some() => UnusableRepository::Variant(variants[0].clone()),
            None => UnusableRepository::Missing(full.clone()),
        }
    })
}

fn no_index(files: &[RemoteFile]) -> UnusableRepository {
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
    fn what_does_not_fit_says_why() {
        for (groups, variant, said) in [
            (&[&CONFIGS[..], &BALLAST][..], None, "no text_encoder/model.safetensors"),
            (
                &[&CONFIGS, &FULL[..1], &["unet/diffusion_pytorch_model.bin"]],
                None,
                "unet/diffusion_pytorch_model.bin only as a pickle",
            ),
            (&[&CONFIGS, &FULL], Some("fp16"), "no text_encoder/model.fp16.safetensors: pull it without --variant"),
            (&[&CONFIGS, &FULL, &["text_encoder_2/config.json"]], None, "SDXL"),
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
