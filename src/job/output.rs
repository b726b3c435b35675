//! What is told of a finished job: the result object of `latentd run`.

use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::contract::OutputShape;
use super::error::JobError;
use super::spec::Spec;

/// The result of a job. Keys are in ascending order, as in the endpoint's replies.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    delay_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    #[serde(serialize_with = "milliseconds")]
    execution_time: Duration,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Output>,
    status: &'static str,
    timings: Timings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    worker_id: &'static str,
}

/// One image of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// A PNG file, in base64 or as a data URI, as its job's contract has it; or a link to one.
    pub image: String,
    /// The seed that draws this image again.
    pub seed: u64,
}

/// The images of a job, as its contract has them on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What they look like.
    pub shape: OutputShape,
    /// In the order of their seeds.
    pub images: Vec<Image>,
    /// What [`OutputShape::Generation`] tells beside them.
    pub generation: Generation,
}

/// How a job was drawn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Generation {
    /// What was asked for, as [`parameters`] tells it.
    pub parameters: Value,
    /// From its texts to its last picture.
    pub time: Duration,
}

/// What a job asks for, under the names of the SDXL Turbo endpoint.
pub fn parameters(spec: &Spec) -> Value {
    json!({
        "guidance_scale": spec.guidance_scale,
        "height": spec.size.height,
        "negative_prompt": spec.negative_prompt,
        "num_inference_steps": spec.steps,
        "prompt": spec.prompt,
        "seed": spec.seed,
        "width": spec.size.width,
    })
}

/// One image of several, as it is streamed.
#[derive(Debug, Clone, Copy)]
pub struct OutputPart<'a> {
    /// What it looks like.
    pub shape: OutputShape,
    /// The image.
    pub image: &'a Image,
}

/// Keys are in ascending order, as in the endpoint's replies. The first image stands in an object twice, and is written so, not copied.
impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.shape {
            OutputShape::List => {
                serializer.collect_seq(self.images.iter().map(|image| OutputPart { shape: self.shape, image }))
            }
            OutputShape::Object => {
                let first = self.images.first();
                let mut object = serializer.serialize_struct("Output", 4)?;
                object.serialize_field("image_url", &first.map(|first| &first.image))?;
                object.serialize_field("images", &self.images.iter().map(|one| &one.image).collect::<Vec<_>>())?;
                object.serialize_field("seed", &first.map(|first| first.seed))?;
                object.serialize_field("seeds", &self.images.iter().map(|one| one.seed).collect::<Vec<_>>())?;
                object.end()
            }
            OutputShape::Generation => {
                let parts = self.images.iter().map(|image| OutputPart { shape: self.shape, image });
                let mut object = serializer.serialize_struct("Output", 3)?;
                object.serialize_field("generation_time", &self.generation.time.as_secs_f64())?;
                object.serialize_field("images", &parts.collect::<Vec<_>>())?;
                object.serialize_field("parameters", &self.generation.parameters)?;
                object.end()
            }
        }
    }
}

impl Serialize for OutputPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = match self.shape {
            OutputShape::List | OutputShape::Generation => "image",
            OutputShape::Object => "image_url",
        };
        let mut object = serializer.serialize_struct("OutputPart", 2)?;
        object.serialize_field(key, &self.image.image)?;
        object.serialize_field("seed", &self.image.seed)?;
        object.end()
    }
}

/// Where a job's time went; on the wire whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Timings {
    /// Autoencoder, latents to pixels.
    #[serde(serialize_with = "milliseconds")]
    pub decode: Duration,
    /// Evaluations of the UNet, first to last.
    #[serde(serialize_with = "milliseconds")]
    pub denoise: Duration,
    /// Autoencoder, pixels to latents.
    #[serde(serialize_with = "milliseconds")]
    pub encode: Duration,
    /// Evaluations of the UNet, summed over images.
    pub evaluations: u32,
    /// Images that the job names: downloaded, decoded and resized.
    #[serde(serialize_with = "milliseconds")]
    pub fetch: Duration,
    /// Model and device; nothing in a process that has them already.
    #[serde(serialize_with = "milliseconds")]
    pub load: Duration,
    /// Pixels to PNG files in base64.
    #[serde(serialize_with = "milliseconds")]
    pub png: Duration,
    /// Tokenizer and text encoder.
    #[serde(serialize_with = "milliseconds")]
    pub text: Duration,
    /// All of it, waits included.
    #[serde(serialize_with = "milliseconds")]
    pub total: Duration,
}

impl Report {
    /// The result of a job that has all of its images.
    pub fn completed(id: String, output: Output, timings: Timings, warnings: Vec<String>) -> Self {
        Self { output: Some(output), warnings, ..Self::new(id, "COMPLETED", timings) }
    }

    /// The result of a job that failed. `errors` lists the complaints about its input, if it is those that it failed of.
    pub fn failed(id: String, error: &JobError, errors: Vec<String>, timings: Timings) -> Self {
        Self { error: Some(error.message.clone()), errors, ..Self::new(id, "FAILED", timings) }
    }

    fn new(id: String, status: &'static str, timings: Timings) -> Self {
        Self {
            delay_time: 0,
            error: None,
            errors: Vec::new(),
            execution_time: timings.total.saturating_sub(timings.load),
            id,
            output: None,
            status,
            timings,
            warnings: Vec::new(),
            worker_id: "local",
        }
    }
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::code::Code;
    use super::*;

    const TIMES: &str = concat!(
        r#"{"decode":0,"denoise":1500,"encode":0,"evaluations":40,"fetch":0,"#,
        r#""load":200,"png":0,"text":0,"total":2000}"#
    );

    fn timings() -> Timings {
        Timings {
            load: Duration::from_millis(200),
            denoise: Duration::from_micros(1_500_999),
            total: Duration::from_secs(2),
            evaluations: 40,
            ..Timings::default()
        }
    }

    #[test]
    fn a_completed_job_on_the_wire() {
        let images = vec![Image { image: "iVBOR".into(), seed: u64::MAX }];
        let output = Output { shape: OutputShape::List, images, generation: Generation::default() };
        let report = Report::completed("j".into(), output, timings(), vec!["cut".into()]);
        let expected = [
            r#"{"delayTime":0,"executionTime":1800,"id":"j","output":[{"image":"iVBOR","seed":18446744073709551615}],"#,
            &format!(r#""status":"COMPLETED","timings":{TIMES},"warnings":["cut"],"workerId":"local"}}"#),
        ];
        assert_eq!(serde_json::to_string(&report).unwrap(), expected.concat());
    }

    #[test]
    fn the_images_of_a_job_are_in_the_shape_of_its_contract() {
        let image = |image: &str, seed| Image { image: image.into(), seed };
        let images = vec![image("a", u64::MAX), image("b", 0)];
        let parameters = json!({"prompt": "p", "seed": u64::MAX});
        let generation = Generation { parameters, time: Duration::from_millis(1250) };
        let text = |shape| {
            let output = Output { shape, images: images.clone(), generation: generation.clone() };
            serde_json::to_string(&output).unwrap()
        };
        assert_eq!(text(OutputShape::List), r#"[{"image":"a","seed":18446744073709551615},{"image":"b","seed":0}]"#);
        assert_eq!(
            text(OutputShape::Object),
            r#"{"image_url":"a","images":["a","b"],"seed":18446744073709551615,"seeds":[18446744073709551615,0]}"#
        );
        assert_eq!(
            text(OutputShape::Generation),
            concat!(
                r#"{"generation_time":1.25,"images":[{"image":"a","seed":18446744073709551615},{"image":"b","seed":0}],"#,
                r#""parameters":{"prompt":"p","seed":18446744073709551615}}"#
            )
        );
        let part = |shape| serde_json::to_string(&OutputPart { shape, image: &images[1] }).unwrap();
        assert_eq!(part(OutputShape::List), r#"{"image":"b","seed":0}"#);
        assert_eq!(part(OutputShape::Object), r#"{"image_url":"b","seed":0}"#);
        assert_eq!(part(OutputShape::Generation), part(OutputShape::List));
    }

    #[test]
    fn a_failed_job_on_the_wire() {
        let error = JobError { code: Code::InvalidInput, message: "a; b".into(), field: None };
        let report = Report::failed("j".into(), &error, vec!["a".into(), "b".into()], timings());
        let expected = [
            r#"{"delayTime":0,"error":"a; b","errors":["a","b"],"executionTime":1800,"id":"j","#,
            &format!(r#""status":"FAILED","timings":{TIMES},"workerId":"local"}}"#),
        ];
        assert_eq!(serde_json::to_string(&report).unwrap(), expected.concat());
    }
}
