//! Parts of a model may be sound each by itself and not belong together.

use super::model::{Model, PromptKind};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::clip_text::ClipTextModel;

/// Whether the parts of `model` take what the others give.
///
/// # Errors
/// Which do not.
pub(super) fn check(model: &Model) -> Result<(), LoadError> {
    let fault = |reason: String| LoadError::Path { path: model.path.clone(), reason };
    let (latent, unet) = (model.vae.latent_channels(), model.unet.latent_channels());
    if latent != unet {
        return Err(fault(format!("the autoencoder has {latent} latent channels and the UNet {unet}")));
    }
    let shapes = model.text_encoders.iter().map(ClipTextModel::shape).collect::<Result<Vec<_>, _>>()?;
    let (text, unet): (i64, i64) = (shapes.iter().map(|[_, width, _]| width).sum(), model.unet.text_width());
    if text != unet {
        return Err(fault(format!("the states of its text encoders are {text} wide and the UNet takes {unet}")));
    }
    for (tokenizer, shape) in model.tokenizers.iter().zip(shapes) {
        tokenizer_fits(tokenizer, shape).map_err(fault)?;
    }
    pooled_fits(model).map_err(fault)
}

fn tokenizer_fits(tokenizer: &Tokenizer, [entries, _, length]: [i64; 3]) -> Result<(), String> {
    let (known, longest) = (tokenizer.vocab_size() as i64, tokenizer.max_length() as i64);
    if known > entries {
        return Err(format!("the tokenizer knows {known} tokens and the text encoder {entries}"));
    }
    if longest > length {
        return Err(format!("the tokenizer makes {longest} tokens and the text encoder takes {length}"));
    }
    Ok(())
}

fn pooled_fits(model: &Model) -> Result<(), String> {
    let given = model.text_encoders.iter().find_map(ClipTextModel::pooled_width);
    let taken = model.unet.pooled_width(model.family.numbers(model.usual_size(), PromptKind::Positive).len());
    let told = |width: Option<i64>| width.map_or("none".to_owned(), |width| format!("one {width} wide"));
    if given == taken {
        return Ok(());
    }
    Err(format!("its text encoders give a pooled text, {}, and the UNet takes {}", told(given), told(taken)))
}
