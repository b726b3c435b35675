//! What a finished PNG says about itself.

use serde_json::json;

use super::contract::Contract;
use super::spec::Spec;
use crate::sampler::Sampler;

/// The text chunks of image `index` of a job of this contract, as keyword and text.
///
/// `parameters` is the line format that image tools read. `latentd` is JSON: an input that draws this very image again.
/// Images that the job began from are named in it by their files' SHA-256: neither a URL nor a picture leaks.
pub fn text_chunks(contract: Contract, spec: &Spec, index: u32) -> [(&'static str, String); 2] {
    let input = (contract.table().input)(spec, index);
    [("parameters", parameters(spec, index)), ("latentd", input.to_string())]
}

fn parameters(spec: &Spec, index: u32) -> String {
    let negative = spec.negative_prompt.as_deref().filter(|negative| !negative.is_empty());
    let spacing = spec.sigmas.title().map(|title| format!(", Schedule type: {title}")).unwrap_or_default();
    let eta = if spec.eta > 0.0 { format!(", Eta: {}", spec.eta) } else { String::new() };
    format!(
        "{}{}\nSteps: {}, Sampler: {}{spacing}{eta}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}{}{}{}{}, Version: latentd {}",
        spec.prompt,
        negative.map(|negative| format!("\nNegative prompt: {negative}")).unwrap_or_default(),
        spec.steps,
        common_name(spec.sampler),
        spec.guidance_scale,
        spec.seed_of(index),
        spec.size.width,
        spec.size.height,
        quoted(&spec.model),
        spec.denoising_end.map(|end| format!(", Denoising end: {end}")).unwrap_or_default(),
        if spec.clip_skip > 0 { format!(", Clip skip: {}", spec.clip_skip + 1) } else { String::new() },
        spec.start.as_ref().map(|start| format!(", Denoising strength: {}", start.strength)).unwrap_or_default(),
        spec.lora
            .as_ref()
            .map(|lora| format!(", Lora: {}, Lora scale: {}", quoted(&lora.name), lora.scale))
            .unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// What image tools call a sampler, where they know it.
fn common_name(sampler: Sampler) -> &'static str {
    match sampler {
        Sampler::DpmM => "DPM++ 2M",
        Sampler::DpmS => "DPM++ 2S",
        Sampler::EulerA => "Euler a",
        Sampler::EulerD => "Euler",
        Sampler::Heun => "Heun",
        Sampler::Kdpm2A => "DPM2 a",
        Sampler::Kdpm2D => "DPM2",
        Sampler::Pndm => "PLMS",
        Sampler::KLms => "LMS",
        Sampler::DpmMSde => "DPM++ 2M SDE",
        Sampler::Dpm3MSde => "DPM++ 3M SDE",
        Sampler::DpmSde => "DPM++ SDE",
        Sampler::UniPc => "UniPC",
        Sampler::Deis => "DEIS",
        Sampler::Ddim | Sampler::Ddpm | Sampler::Ipndm | Sampler::Lcm | Sampler::Tcd => sampler.name(),
    }
}

/// A value is a JSON string where it would break the list apart otherwise.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { json!(value).to_string() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;

    use crate::job::{
        Defaults, ImageSource, Img2Img, LoadedImage, Lora, Mask, Offer, OfferedModel, Picture, PromptSyntax, Refine,
        RefineMode, Shade, Size, validate,
    };
    use crate::sampler::SigmaSpacing;

    fn spec() -> Spec {
        Spec {
            model: "miniature".into(),
            prompt: "a red apple".into(),
            negative_prompt: Some("a worm".into()),
            size: Size { width: 512, height: 448 },
            num_outputs: 3,
            steps: 20,
            guidance_scale: 7.0,
            prompt_syntax: PromptSyntax::Plain,
            clip_skip: 0,
            sampler: Sampler::KLms,
            sigmas: SigmaSpacing::Default,
            eta: 0.0,
            seed: u64::MAX,
            start: None,
            lora: None,
            preview: false,
            denoising_end: None,
            refine: None,
        }
    }

    #[test]
    fn parameters_read_as_image_tools_write_them() {
        let tail = concat!("Version: latentd ", env!("CARGO_PKG_VERSION"));
        let [(keyword, text), _] = text_chunks(Contract::Sd1, &spec(), 0);
        assert_eq!(keyword, "parameters");
        assert_eq!(
            text,
            "a red apple\nNegative prompt: a worm\nSteps: 20, Sampler: LMS, CFG scale: 7, \
             Seed: 18446744073709551615, Size: 512x448, Model: miniature, "
                .to_owned()
                + tail
        );
    }

    #[test]
    fn parameters_tell_how_steps_are_spread_and_how_much_noise_they_add() {
        let karras = Spec { sampler: Sampler::DpmMSde, sigmas: SigmaSpacing::Karras, ..spec() };
        let [(_, text), _] = text_chunks(Contract::Sd1, &karras, 0);
        assert!(text.contains(", Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 7, "), "{text}");
        let noisy = Spec { sampler: Sampler::Ddim, eta: 0.5, ..spec() };
        for contract in Contract::ALL {
            let [(_, text), (_, input)] = text_chunks(*contract, &noisy, 0);
            assert!(text.contains(", Sampler: DDIM, Eta: 0.5, CFG scale: 7, "), "{text}");
            assert!(input.contains(r#""eta":0.5"#), "{contract}: {input}");
        }
    }

    #[test]
    fn parameters_stay_a_list_whatever_the_model_is_called() {
        let negative_prompt = Some(String::new());
        let spec = Spec { model: "a, b".into(), negative_prompt, sampler: Sampler::Ddpm, ..spec() };
        let [(_, text), _] = text_chunks(Contract::Sd1, &spec, 0);
        assert!(text.starts_with("a red apple\nSteps: 20, Sampler: DDPM, "), "{text}");
        assert!(text.contains(r#", Model: "a, b", "#), "{text}");
    }

    #[test]
    fn what_a_job_began_from_is_told_without_showing_it() {
        let image = |sha256: &str| {
            let picture = Picture { width: 1, height: 1, pixels: vec![0; 3] };
            LoadedImage { picture: Arc::new(picture), sha256: sha256.into() }
        };
        let mask = Mask { image: image("bb"), repaint: Shade::White, paste: true };
        let start = Img2Img { image: image("aa"), strength: 0.3, mask: Some(mask) };
        let lora = Lora { name: "ink".into(), scale: 0.5 };
        let spec = Spec { model: "m".into(), start: Some(start), lora: Some(lora), clip_skip: 1, ..spec() };
        let [(_, line), (_, text)] = text_chunks(Contract::Sd1, &spec, 0);
        assert!(
            line.contains(", Model: m, Clip skip: 2, Denoising strength: 0.3, Lora: ink, Lora scale: 0.5, Version: "),
            "{line}"
        );
        let input: Value = serde_json::from_str(&text).unwrap();
        for (field, value) in [
            ("init_image", json!("sha256:aa")),
            ("prompt_strength", json!(0.3)),
            ("mask", json!("sha256:bb")),
            ("mask_repaint", json!("white")),
            ("mask_paste", json!(true)),
            ("lora", json!("ink")),
            ("lora_scale", json!(0.5)),
        ] {
            assert_eq!(input[field], value, "{field}");
        }
    }

    /// What an input of SDXL is read as.
    fn read_by_sdxl(text: &str) -> Spec<ImageSource> {
        let offer = Offer { models: vec![OfferedModel::new("miniature", Contract::Sdxl)], ..Offer::default() };
        validate(&serde_json::from_str(text).unwrap(), &offer, 0).unwrap()
    }

    #[test]
    fn the_json_of_sdxl_draws_the_same_image_again() {
        let size = Size { width: 72, height: 2048 };
        let refine = |mode| Some(Refine { steps: 20, mode, strength: 0.3 });
        let by_strength = Some(Refine { steps: 9, strength: 0.6, mode: RefineMode::Strength });
        for (negative_prompt, denoising_end, refine) in [
            (None, None, by_strength),
            (Some(String::new()), Some(0.8), by_strength),
            (None, Some(0.8), refine(RefineMode::Ensemble)),
        ] {
            let spec = Spec { negative_prompt, size, denoising_end, refine, ..spec() };
            let [(_, line), (_, text)] = text_chunks(Contract::Sdxl, &spec, 2);
            assert_eq!(line.contains(", Denoising end: 0.8, "), denoising_end.is_some(), "{line}");
            assert_eq!(read_by_sdxl(&text).with_start(None), Spec { num_outputs: 1, seed: 1, ..spec });
        }
    }

    #[test]
    fn the_json_of_sdxl_begins_from_the_same_image_again() {
        let picture = Arc::new(Picture { width: 72, height: 64, pixels: vec![0; 3 * 72 * 64] });
        let image = |sha256: &str| LoadedImage { picture: Arc::clone(&picture), sha256: sha256.into() };
        let url = |name: &str| ImageSource::Url(format!("http://x/{name}"));
        for mask in [None, Some(Mask { image: image("bb"), repaint: Shade::White, paste: true })] {
            let start = Img2Img { image: image("aa"), strength: 0.3, mask: mask.clone() };
            let spec = Spec { num_outputs: 1, size: Size { width: 72, height: 64 }, start: Some(start), ..spec() };
            let [_, (_, text)] = text_chunks(Contract::Sdxl, &spec, 0);
            let told: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&told["image_url"], told["mask"].as_str()),
                (&json!("sha256:aa"), mask.as_ref().map(|_| "sha256:bb"))
            );
            // Whoever has the files puts them there.
            let again = read_by_sdxl(&text.replace("sha256:", "http://x/"));
            let mask = mask.map(|Mask { repaint, paste, .. }| Mask { image: url("bb"), repaint, paste });
            assert_eq!(again.start, Some(Img2Img { image: url("aa"), strength: 0.3, mask }));
            // Its size is known when it is fetched.
            assert_eq!(Spec { size: spec.size, ..again }.with_start(spec.start.clone()), spec);
        }
    }

    #[test]
    fn the_json_draws_the_same_image_again() {
        let [_, (keyword, text)] = text_chunks(Contract::Sd1, &spec(), 2);
        assert_eq!(keyword, "latentd");
        let offer = Offer { models: vec![OfferedModel::new("miniature", Contract::Sd1)], ..Offer::default() };
        let again = validate(&serde_json::from_str(&text).unwrap(), &offer, 0).unwrap();
        assert_eq!(again.with_start(None), Spec { num_outputs: 1, seed: 1, ..spec() });
    }

    #[test]
    fn the_json_says_what_a_model_may_have_another_default_for() {
        let fields = r#"{"defaults": {"sigmas": "sgm_uniform", "num_inference_steps": 7, "guidance_scale": 2, "clip_skip": 1, "prompt_syntax": "weighted"}}"#;
        for &contract in Contract::ALL {
            let defaults = Defaults::from_json(fields.as_bytes(), contract).unwrap();
            let offer = Offer { models: vec![OfferedModel::new("own", defaults)], ..Offer::default() };
            let read = |input: &Value| validate(input, &offer, 0).unwrap().with_start(None);
            let asked = read(
                &json!({"prompt": "p", "sigmas": "default", "guidance_scale": 1, "num_inference_steps": 8, "clip_skip": 0, "prompt_syntax": "plain"}),
            );
            let [_, (_, text)] = text_chunks(contract, &asked, 0);
            assert_eq!(read(&serde_json::from_str(&text).unwrap()), asked, "{contract}");
        }
    }
}
