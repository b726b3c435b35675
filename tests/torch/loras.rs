//! LoRAs on a real, tiny model: a job gets its own and no other's, and a file that is not as it should be fails the
//! job that names it and nothing more.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use latentd::engine::torch::TorchEngine;
use latentd::engine::torch::denoise::graphs::{CaptureCounters, FakeCapture};
use latentd::engine::{Engine, Picture, Ticket};
use latentd::job::{Code, JobError, Lora, Spec};
use latentd::sampler::Sampler;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use crate::torch::drawing::{engine, finish, furthest, only, spec};

/// Widths of the tiny model: 16 channels everywhere, 16 wide text.
const WIDTH: usize = 16;
const QUERY: &str = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
const TEXT: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";

/// An engine with a folder of LoRA files of its own.
struct Studio {
    engine: TorchEngine,
    folder: TempDir,
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl Studio {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { engine: engine("tiny").with_loras(Some(folder.path().to_owned())), folder }
    }

    /// The same with two LoRAs that are easily told from each other and from none.
    fn furnished() -> Self {
        let studio = Self::new();
        studio.write("ink", &[module(QUERY, WIDTH, WIDTH, 3.0), module(TEXT, WIDTH, 2 * WIDTH, 2.0)].concat());
        studio.write("wool", &module("lora_unet_conv_in", 4 * 9, WIDTH, -0.5));
        studio
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.safetensors"))
    }

    fn write(&self, name: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
        let named: Tensors = tensors.iter().cloned().map(|(name, shape, values)| (name, (shape, values))).collect();
        fs::write(self.path(name), file(&named)).unwrap();
    }

    fn draw(&mut self, spec: &Spec) -> Result<Picture, JobError> {
        self.engine.admit(Ticket(0), spec)?;
        Ok(self.finish().remove(&Ticket(0)).unwrap())
    }

    fn finish(&mut self) -> BTreeMap<Ticket, Picture> {
        finish(&mut self.engine).into_iter().map(|(ticket, outcome)| (ticket, only(outcome))).collect()
    }

    /// What a job with a file of these tensors fails with.
    fn complaint(&mut self, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> String {
        self.write("bad", tensors);
        self.refusal()
    }

    fn refusal(&mut self) -> String {
        let cause = self.draw(&with("bad", 1.0)).unwrap_err();
        assert_eq!((cause.code, cause.field.as_deref()), (Code::LoraFailed, Some("lora")), "{cause}");
        assert!(
            !cause.message.contains(self.folder.path().to_str().unwrap()),
            "the server's folders are told: {cause}"
        );
        assert!(!self.engine.busy());
        cause.message
    }
}

/// The tensors of one module: rank 2, the same numbers every time. Convolutions of 3×3 have 9 inputs a channel.
fn module(stem: &str, inputs: usize, outputs: usize, strength: f32) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let waves = |count: usize, factor: f32| (0..count).map(|i| factor * (i as f32 * 0.7).sin()).collect();
    let down = if inputs == 4 * 9 { vec![2, 4, 3, 3] } else { vec![2, inputs] };
    let up = if inputs == 4 * 9 { vec![outputs, 2, 1, 1] } else { vec![outputs, 2] };
    vec![
        (format!("{stem}.lora_down.weight"), down, waves(2 * inputs, 1.0)),
        (format!("{stem}.lora_up.weight"), up, waves(2 * outputs, strength)),
        (format!("{stem}.alpha"), vec![], vec![1.0]),
    ]
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name.as_str(), (shape.clone(), values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        })
        .collect();
    let views =
        bytes.iter().map(|(name, (shape, bytes))| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn plain() -> Spec {
    spec(Sampler::EulerA, 3, 7)
}

fn with(name: &str, scale: f64) -> Spec {
    Spec { lora: Some(Lora { name: name.into(), scale }), ..plain() }
}

#[test]
fn a_lora_changes_the_picture_and_never_the_next_one() {
    let mut studio = Studio::furnished();
    let before = studio.draw(&plain()).unwrap();
    let ink = studio.draw(&with("ink", 1.0)).unwrap();
    assert_eq!(studio.draw(&plain()).unwrap(), before, "the LoRA leaked");
    let wool = studio.draw(&with("wool", 1.0)).unwrap();
    let half = studio.draw(&with("ink", 0.5)).unwrap();
    assert_eq!(studio.draw(&plain()).unwrap(), before, "the LoRA leaked");
    assert_eq!(studio.draw(&with("ink", 1.0)).unwrap(), ink, "a remembered LoRA is another");
    for (a, b) in [(&before, &ink), (&before, &wool), (&ink, &wool), (&ink, &half), (&before, &half)] {
        assert!(furthest(a, b) > 3);
    }
}

#[test]
fn a_scale_of_nothing_is_no_lora_to_the_byte() {
    let mut studio = Studio::furnished();
    let before = studio.draw(&plain()).unwrap();
    assert_eq!(studio.draw(&with("ink", 0.0)).unwrap(), before);
}

#[test]
fn loras_in_flight_at_once_are_what_they_are_alone() {
    let mut studio = Studio::furnished();
    let specs = [with("ink", 1.0), plain(), with("wool", 1.0), with("ink", 0.5), with("ink", 1.0), with("wool", 0.25)];
    for (i, spec) in (0..).zip(&specs) {
        studio.engine.admit(Ticket(i), spec).unwrap();
    }
    let mut together = studio.finish();
    for (i, spec) in (0..).zip(&specs) {
        // An engine of its own: nothing to remember, no job to mix with.
        let alone = Studio::furnished().draw(spec).unwrap();
        let apart = furthest(&alone, &together.remove(&Ticket(i)).unwrap());
        assert!(apart <= 1, "job {i} differs by {apart}");
    }
}

#[test]
fn a_lora_outlives_its_file_in_the_jobs_that_draw_with_it() {
    let mut studio = Studio::furnished();
    let ink = studio.draw(&with("ink", 1.0)).unwrap();
    studio.engine.admit(Ticket(1), &with("ink", 1.0)).unwrap();
    fs::remove_file(studio.path("ink")).unwrap();
    // More than are remembered.
    for scale in [0.1, 0.2, 0.3, 0.4, 0.6] {
        studio.engine.admit(Ticket((scale * 100.0) as u64), &with("wool", scale)).unwrap();
    }
    assert_eq!(studio.finish().remove(&Ticket(1)).map(|picture| furthest(&picture, &ink) <= 1), Some(true));
    let gone = studio.draw(&with("ink", 1.0)).unwrap_err();
    assert!(gone.message.contains("ink.safetensors: No such file"), "{gone}");
}

#[test]
fn graphs_are_of_their_networks_and_go_with_them() {
    let (mut plain, mut studio) = (Studio::furnished(), Studio::furnished());
    let counters = Rc::new(CaptureCounters::default());
    studio.engine = studio.engine.with_graphs(Box::new(FakeCapture::new(&counters)));
    let jobs = [with("ink", 1.0), with("wool", 1.0), spec(Sampler::KLms, 5, 1), with("ink", 0.5)];
    let jobs = jobs.map(|job| Spec { steps: 9, ..job });
    for job in jobs.iter().chain(&jobs) {
        assert_eq!(studio.draw(job).unwrap(), plain.draw(job).unwrap(), "{:?}", job.lora);
    }
    assert_eq!((counters.recorded.get(), counters.dropped.get()), (4, 0));
    // As many as are remembered: with those, all that jobs have had before are forgotten.
    for scale in [0.1, 0.2, 0.3] {
        studio.draw(&Spec { steps: 1, ..with("wool", scale) }).unwrap();
    }
    assert_eq!(counters.alive(), 1, "the model's own is left");
    assert_eq!(studio.draw(&jobs[0]).unwrap(), plain.draw(&jobs[0]).unwrap());
    assert_eq!(counters.alive(), 2);
}

#[test]
fn a_file_that_was_exchanged_is_read_again() {
    let mut studio = Studio::furnished();
    let ink = studio.draw(&with("ink", 1.0)).unwrap();
    let wool = studio.draw(&with("wool", 1.0)).unwrap();
    fs::rename(studio.path("wool"), studio.path("ink")).unwrap();
    let exchanged = studio.draw(&with("ink", 1.0)).unwrap();
    assert_eq!(exchanged, wool);
    assert_ne!(exchanged, ink);
}

#[test]
fn what_a_file_has_beyond_the_model_is_named() {
    let mut studio = Studio::new();
    let good = module(QUERY, WIDTH, WIDTH, 1.0);
    let one = |name: &str| [good.clone(), vec![(name.to_owned(), vec![1], vec![1.0])]].concat();
    for name in [
        "lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight",
        "lora_te_text_model_encoder_layers_7_mlp_fc1.alpha",
        "unet.mid_block.attentions.0.norm.lora_A.weight",
        "unet.conv_in.lora_B.bias",
        "something",
        // The same module in another spelling: which of the two counts?
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
    ] {
        let told = studio.complaint(&one(name));
        let expected = format!("this model has no place for 1 of its tensors, such as {name}");
        assert!(told.starts_with("lora \"bad\": bad.safetensors: ") && told.ends_with(&expected), "{told}");
    }
    for (name, kind) in [
        ("lora_unet_conv_in.dora_scale", "DoRA"),
        ("unet.conv_in.lora_magnitude_vector", "DoRA"),
        ("lora_unet_conv_in.hada_w1_a", "LoHa"),
        ("lora_unet_conv_in.lokr_w2", "LoKr"),
        ("lora_unet_conv_in.lora_mid.weight", "LoCon with a core"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "SDXL"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "SDXL"),
    ] {
        let told = studio.complaint(&one(name));
        assert!(told.contains(&format!("tensor {name} is one of ")) && told.contains(kind), "{told}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_both_shapes() {
    let mut studio = Studio::new();
    let told = studio.complaint(&module(QUERY, 2 * WIDTH, WIDTH, 1.0));
    assert!(told.contains(&format!("tensor {QUERY}.lora_down.weight has shape [2, 32]")), "{told}");
    assert!(told.contains("asks for [2, 16]"), "{told}");
    let told = studio.complaint(&module(QUERY, WIDTH, 3 * WIDTH, 1.0));
    assert!(told.contains(&format!("tensor {QUERY}.lora_up.weight has shape [48, 2]")), "{told}");

    for (missing, left) in [("lora_up", "lora_down"), ("lora_down", "lora_up"), ("lora_down", "alpha")] {
        let mut some = module(QUERY, WIDTH, WIDTH, 1.0);
        some.retain(|(name, ..)| name.contains(left));
        let told = studio.complaint(&some);
        assert!(told.contains(&format!("tensor {QUERY}.{missing}.weight is missing")), "{told}");
    }
    let none = [(format!("{QUERY}.lora_down.weight"), vec![0, WIDTH], vec![])];
    assert!(studio.complaint(&none).contains("has shape [0, 16]"));

    let mut broken = module(QUERY, WIDTH, WIDTH, 1.0);
    broken[1].2[5] = f32::NAN;
    assert!(studio.complaint(&broken).contains("lora_up.weight hold no finite numbers"));
    let mut broken = module(QUERY, WIDTH, WIDTH, 1.0);
    broken[2].2[0] = f32::INFINITY;
    assert!(studio.complaint(&broken).contains("alpha is inf"));
}

#[test]
fn broken_files_fail_their_job_and_leave_the_engine_sound() {
    let mut studio = Studio::furnished();
    let ink = studio.draw(&with("ink", 1.0)).unwrap();
    let intact = fs::read(studio.path("ink")).unwrap();
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let huge = format!(r#"{{"a":{{"dtype":"F32","shape":[{0},{0}],"data_offsets":[0,8]}}}}"#, u64::MAX / 2);
    let noted =
        r#"{"__metadata__":{"lora_adapter_metadata":"[]"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    for bytes in [
        Vec::new(),
        b"\x80\x02.".to_vec(),
        u64::MAX.to_le_bytes().to_vec(),
        header("{}"),
        header(&"[".repeat(10_000)),
        [header(&huge), vec![0; 8]].concat(),
        [header(noted), vec![0; 4]].concat(),
        intact[..intact.len() - 1].to_vec(),
        [intact.clone(), vec![0]].concat(),
    ] {
        fs::write(studio.path("bad"), bytes).unwrap();
        let told = studio.refusal();
        assert!(told.starts_with("lora \"bad\": bad.safetensors: "), "{told}");
    }
    assert_eq!(studio.draw(&with("ink", 1.0)).unwrap(), ink);
}

#[test]
fn without_a_folder_there_is_no_lora() {
    let mut studio = Studio::furnished();
    studio.engine = studio.engine.with_loras(None);
    let cause = studio.draw(&with("ink", 1.0)).unwrap_err();
    assert_eq!(cause.message, "lora \"ink\": lora_dir is not set");
}

#[test]
fn strengths_noted_in_the_header_count() {
    let studio = &mut Studio::new();
    let stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let tensors = |strength: f32| -> Tensors {
        let [down, up, _] = &module("x", WIDTH, WIDTH, strength)[..] else { unreachable!() };
        let named = |end: &str, tensor: &(String, Vec<usize>, Vec<f32>)| {
            (format!("{stem}.{end}.weight"), (tensor.1.clone(), tensor.2.clone()))
        };
        [named("lora_A", down), named("lora_B", up)].into()
    };
    fs::write(studio.path("plain"), file(&tensors(6.0))).unwrap();
    // Twice the rank over the rank.
    let mut noted = file(&tensors(3.0));
    let length = u64::from_le_bytes(noted[..8].try_into().unwrap()) as usize;
    let note = r#"{"__metadata__":{"lora_adapter_metadata":"{\"unet.lora_alpha\":4,\"unet.r\":2}"},"#;
    let text = format!("{note}{}", std::str::from_utf8(&noted[9..8 + length]).unwrap());
    noted.splice(..8 + length, [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat());
    fs::write(studio.path("noted"), noted).unwrap();
    let (plain, noted) = (studio.draw(&with("plain", 1.0)).unwrap(), studio.draw(&with("noted", 1.0)).unwrap());
    assert!(furthest(&plain, &noted) <= 1);
}
