//! What a finished PNG says about itself.

use serde_json::json;

use super::spec::Spec;

/// The text chunks of image `index` of a job, as keyword and text.
///
/// `parameters` is the line format that image tools read. `latentd` is JSON: an input that draws this very image again.
pub fn text_chunks(spec: &Spec, index: u32, model: &str) -> [(&'static str, String); 2] {
    [("parameters", parameters(spec, index, model)), ("latentd", input(spec, index, model))]
}

fn parameters(spec: &Spec, index: u32, model: &str) -> String {
    let negative = spec.negative_prompt.as_deref().filter(|negative| !negative.is_empty());
    format!(
        "{}{}\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}, Version: latentd {}",
        spec.prompt,
        negative.map(|negative| format!("\nNegative prompt: {negative}")).unwrap_or_default(),
        spec.steps,
        common_name(spec.sampler.name()),
        spec.guidance_scale,
        spec.seed_of(index),
        spec.size.width,
        spec.size.height,
        quoted(model),
        env!("CARGO_PKG_VERSION"),
    )
    // Neither kind of PNG text chunk can hold a NUL.
    .replace('\0', "")
}

/// What image tools call one of our samplers, where they know it.
fn common_name(sampler: &str) -> &str {
    match sampler {
        "DPM-M" => "DPM++ 2M",
        "DPM-S" => "DPM++ 2S",
        "EULER-A" => "Euler a",
        "EULER-D" => "Euler",
        "HEUN" => "Heun",
        "KDPM2-A" => "DPM2 a",
        "KDPM2-D" => "DPM2",
        "PNDM" => "PLMS",
        "K-LMS" => "LMS",
        same => same,
    }
}

/// A value is a JSON string where it would break the list apart otherwise.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { json!(value).to_string() } else { value.to_owned() }
}

fn input(spec: &Spec, index: u32, model: &str) -> String {
    json!({
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "width": spec.size.width,
        "height": spec.size.height,
        "num_outputs": 1,
        "num_inference_steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "scheduler": spec.sampler.name(),
        "seed": spec.seed_of(index),
        "model": model,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::{Offer, Size, validate};
    use crate::sampler::Sampler;

    fn spec() -> Spec {
        Spec {
            prompt: "a red apple".into(),
            negative_prompt: Some("a worm".into()),
            size: Size { width: 512, height: 448 },
            num_outputs: 3,
            steps: 20,
            guidance_scale: 7.0,
            sampler: Sampler::KLms,
            seed: u64::MAX,
        }
    }

    #[test]
    fn parameters_read_as_image_tools_write_them() {
        let tail = concat!("Version: latentd ", env!("CARGO_PKG_VERSION"));
        let [(keyword, text), _] = text_chunks(&spec(), 0, "miniature");
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
    fn parameters_leave_out_what_cannot_be_written() {
        let spec = Spec { prompt: "a\0b".into(), negative_prompt: Some(String::new()), ..spec() };
        let [(_, text), _] = text_chunks(&spec, 0, "a, b");
        assert!(text.starts_with("ab\nSteps: 20, "), "{text}");
        assert!(text.contains(r#", Model: "a, b", "#), "{text}");
    }

    #[test]
    fn the_json_draws_the_same_image_again() {
        let [_, (keyword, text)] = text_chunks(&spec(), 2, "miniature");
        assert_eq!(keyword, "latentd");
        let again = validate(&serde_json::from_str(&text).unwrap(), &Offer { model: "miniature".into() }, 0).unwrap();
        assert_eq!(again, Spec { num_outputs: 1, seed: 1, ..spec() });
    }
}
