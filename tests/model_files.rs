//! Model files that are not as they should be: every error names the file and what is wrong in it.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use latentd::engine::torch::{Model, Target};
use safetensors::{Dtype, SafeTensors, View};
use serde_json::{Value, json};
use tempfile::TempDir;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// A copy of the tiny model, to be broken.
struct Patient {
    folder: TempDir,
}

impl Patient {
    fn new() -> Self {
        let patient = Self { folder: tempfile::tempdir().unwrap() };
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch/miniatures/tiny"), patient.folder.path());
        patient
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn edit_json(&self, name: &str, edit: impl Fn(&mut Value)) {
        let mut value: Value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        edit(&mut value);
        fs::write(self.path(name), value.to_string()).unwrap();
    }

    fn edit_weights(&self, edit: impl Fn(&mut BTreeMap<String, Raw>)) {
        let bytes = fs::read(self.path(UNET)).unwrap();
        let mut tensors = read(&bytes);
        edit(&mut tensors);
        fs::write(self.path(UNET), safetensors::serialize(tensors, None).unwrap()).unwrap();
    }

    /// The error of loading, without the folder's own name.
    fn complaint(&self) -> String {
        let cause = self.load().unwrap_err().to_string();
        cause.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn load(&self) -> Result<Model, latentd::engine::torch::LoadError> {
        Model::load(self.folder.path(), &self.path("tokenizer"), Target::REFERENCE)
    }
}

/// A tensor as bytes.
#[derive(Clone)]
struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Raw {
    fn zeros(shape: &[usize]) -> Self {
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes: vec![0; 4 * shape.iter().product::<usize>()] }
    }
}

impl View for Raw {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.bytes.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn read(bytes: &[u8]) -> BTreeMap<String, Raw> {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let raw = |view: &safetensors::tensor::TensorView| Raw {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    tensors.tensors().into_iter().map(|(name, view)| (name, raw(&view))).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn the_patient_is_healthy_at_first() {
    Patient::new().load().unwrap();
}

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    let patient = Patient::new();
    patient.edit_weights(|tensors| drop(tensors.remove("conv_out.bias").unwrap()));
    assert_eq!(
        patient.complaint(),
        format!("{UNET}: tensor conv_out.bias is missing; its configuration asks for shape [4]")
    );
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both() {
    let patient = Patient::new();
    patient.edit_weights(|tensors| drop(tensors.insert("conv_out.bias".into(), Raw::zeros(&[7]))));
    assert_eq!(
        patient.complaint(),
        format!("{UNET}: tensor conv_out.bias has shape [7]; its configuration asks for [4]")
    );
}

#[test]
fn surplus_tensors_are_named() {
    let patient = Patient::new();
    patient.edit_weights(|tensors| drop(tensors.insert("add_embedding.bias".into(), Raw::zeros(&[2]))));
    assert_eq!(
        patient.complaint(),
        format!("{UNET}: this model has no place for 1 of its tensors, such as add_embedding.bias")
    );
}

#[test]
fn numbers_that_weights_never_are_are_refused() {
    let patient = Patient::new();
    let ints = Raw { dtype: Dtype::I32, ..Raw::zeros(&[4]) };
    patient.edit_weights(|tensors| drop(tensors.insert("conv_out.bias".into(), ints.clone())));
    assert_eq!(
        patient.complaint(),
        format!("{UNET}: tensor conv_out.bias holds I32; weights must be F32, F16 or BF16")
    );
}

#[test]
fn truncated_and_hostile_files_are_refused() {
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let huge = format!(r#"{{"a":{{"dtype":"F32","shape":[{0},{0},{0}],"data_offsets":[0,8]}}}}"#, u64::MAX / 2);
    let intact = fs::read(Patient::new().path(UNET)).unwrap();
    for bytes in [
        Vec::new(),
        vec![0; 7],
        u64::MAX.to_le_bytes().to_vec(),
        [&u64::MAX.to_le_bytes()[..], &[b'{'; 100]].concat(),
        header("not json"),
        header("{}"),
        header(&"[".repeat(10_000)),
        [header(overlapping), vec![0; 12]].concat(),
        [header(&huge), vec![0; 8]].concat(),
        intact[..intact.len() - 1].to_vec(),
        intact[..100].to_vec(),
        [intact.clone(), vec![0]].concat(),
    ] {
        let patient = Patient::new();
        fs::write(patient.path(UNET), &bytes).unwrap();
        let complaint = patient.complaint();
        assert!(complaint.starts_with(&format!("{UNET}: ")), "{complaint}");
    }
}

#[test]
fn pickles_are_never_opened() {
    let patient = Patient::new();
    fs::remove_file(patient.path(UNET)).unwrap();
    fs::write(patient.path("unet/diffusion_pytorch_model.bin"), b"\x80\x02.").unwrap();
    assert!(patient.complaint().starts_with("unet/diffusion_pytorch_model.bin: this is a pickle file"));
    let checkpoint = patient.path("model.ckpt");
    fs::write(&checkpoint, b"PK").unwrap();
    let cause = Model::load(&checkpoint, &patient.path("tokenizer"), Target::REFERENCE).unwrap_err().to_string();
    assert!(cause.contains("model.ckpt: this is a pickle file"), "{cause}");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (file, key, value, said) in [
        ("unet/config.json", "in_channels", json!(8), "unet/config.json: in_channels = 8 is not supported"),
        ("unet/config.json", "in_channels", json!(9), "conv_in.weight"),
        ("unet/config.json", "act_fn", json!("mish"), "unet/config.json: act_fn = \"mish\" is not supported"),
        ("unet/config.json", "addition_embed_type", json!("text_image"), "addition_embed_type = \"text_image\""),
        ("unet/config.json", "addition_embed_type", json!("text_time"), "addition_time_embed_dim = null"),
        ("unet/config.json", "time_cond_proj_dim", json!(7), "time_cond_proj_dim = 7 is not supported"),
        ("unet/config.json", "time_cond_proj_dim", json!(2), "an even number of at least 4"),
        ("unet/config.json", "time_cond_proj_dim", json!(8), "time_embedding.cond_proj.weight"),
        ("unet/config.json", "an_option_of_tomorrow", json!(3), "an_option_of_tomorrow = 3 is not supported"),
        ("unet/config.json", "block_out_channels", json!([]), "block_out_channels = [] is not supported"),
        ("unet/config.json", "block_out_channels", json!([16, 1.5]), "block_out_channels = [16,1.5]"),
        ("unet/config.json", "norm_num_groups", json!(7), "norm_num_groups = 7 is not supported"),
        ("unet/config.json", "attention_head_dim", json!(5), "attention_head_dim = 5 is not supported"),
        ("vae/config.json", "_class_name", json!("VQModel"), "vae/config.json: _class_name = \"VQModel\""),
        ("text_encoder/config.json", "hidden_act", json!("relu"), "text_encoder/config.json: hidden_act = \"relu\""),
        ("model_index.json", "_class_name", json!("StableDiffusion3Pipeline"), "model_index.json: _class_name = "),
        ("model_index.json", "_class_name", json!("StableDiffusionXLPipeline"), "text_encoder_2: there is neither"),
        ("scheduler/scheduler_config.json", "prediction_type", json!("flow_prediction"), "_type = \"flow_prediction\""),
    ] {
        let patient = Patient::new();
        patient.edit_json(file, |config| config[key] = value.clone());
        let complaint = patient.complaint();
        assert!(complaint.contains(said), "{complaint}");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_told() {
    let patient = Patient::new();
    fs::remove_file(patient.path("model_index.json")).unwrap();
    assert!(patient.complaint().contains("no model_index.json"));

    let patient = Patient::new();
    fs::remove_file(patient.path("vae/config.json")).unwrap();
    assert!(patient.complaint().starts_with("vae/config.json: cannot be read"));

    let patient = Patient::new();
    fs::write(patient.path("unet/config.json"), "{").unwrap();
    assert!(patient.complaint().starts_with("unet/config.json: is no JSON"));
}

#[test]
fn weight_files_are_all_or_an_error() {
    let patient = Patient::new();
    let files = Model::files(patient.folder.path(), false).unwrap();
    assert_eq!(files.len(), 3);
    assert!(files.contains(&patient.path(UNET)), "{files:?}");
    fs::remove_file(patient.path(UNET)).unwrap();
    let cause = Model::files(patient.folder.path(), false).unwrap_err().to_string();
    assert!(cause.contains("unet") && cause.contains("there is neither"), "{cause}");
}

/// Splits the UNet of a patient into two files and an index of this name.
fn shard(patient: &Patient, variant: &str, index: &str) {
    let bytes = fs::read(patient.path(UNET)).unwrap();
    let mut halves = [BTreeMap::new(), BTreeMap::new()];
    for (number, (name, tensor)) in read(&bytes).into_iter().enumerate() {
        halves[number % 2].insert(name, tensor);
    }
    let mut map = serde_json::Map::new();
    for (number, half) in halves.into_iter().enumerate() {
        let file = format!("diffusion_pytorch_model{variant}-0000{}-of-00002.safetensors", number + 1);
        map.extend(half.keys().map(|name| (name.clone(), Value::from(file.as_str()))));
        fs::write(patient.path("unet").join(file), safetensors::serialize(half, None).unwrap()).unwrap();
    }
    fs::write(patient.path("unet").join(index), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    fs::remove_file(patient.path(UNET)).unwrap();
}

/// What a model predicts for some input.
fn prediction(model: &Model) -> Vec<f32> {
    let text = model.encode_prompt(&[vec![1, 320, 2]]).unwrap();
    let latents = tch::Tensor::ones([1, 4, 8, 8], (tch::Kind::Float, tch::Device::Cpu));
    let noise = model.predict_noise(&latents, &[500.0], &text, &[]).unwrap();
    Vec::try_from(noise.flatten(0, -1)).unwrap()
}

#[test]
fn weights_in_several_files_are_those_of_one() {
    let whole = prediction(&Patient::new().load().unwrap());
    assert!(whole.iter().all(|value| value.is_finite()) && whole.iter().any(|value| *value != 0.0));
    for (variant, index) in [
        ("", "diffusion_pytorch_model.safetensors.index.json"),
        (".fp16", "diffusion_pytorch_model.safetensors.index.fp16.json"),
        (".fp16", "diffusion_pytorch_model.safetensors.fp16.index.json"),
        (".fp16", "diffusion_pytorch_model.fp16.safetensors.index.json"),
    ] {
        let patient = Patient::new();
        shard(&patient, variant, index);
        assert_eq!(prediction(&patient.load().unwrap()), whole, "{index}");
        let shards = [1, 2].map(|number| {
            patient.path(&format!("unet/diffusion_pytorch_model{variant}-0000{number}-of-00002.safetensors"))
        });
        for half in [false, true] {
            let files = Model::files(patient.folder.path(), half).unwrap();
            assert_eq!(files.len(), 4);
            assert!(files.windows(2).any(|pair| pair == shards), "in their order: {files:?}");
        }
    }
}

#[test]
fn an_index_names_what_is_there_and_nowhere_else() {
    let index = "unet/diffusion_pytorch_model.safetensors.index.json";
    let patient = Patient::new();
    shard(&patient, "", "diffusion_pytorch_model.safetensors.index.json");
    let shard = "unet/diffusion_pytorch_model-00002-of-00002.safetensors";
    let tensors = fs::read(patient.path(shard)).unwrap();
    fs::remove_file(patient.path(shard)).unwrap();
    let complaint = patient.complaint();
    assert_eq!(complaint, format!("{shard}: it is missing, and {index} names it"));
    fs::write(patient.path(shard), &tensors[..tensors.len() - 1]).unwrap();
    assert!(patient.complaint().starts_with(&format!("{shard}: not an intact safetensors file")));
    for (text, said) in [
        (
            r#"{"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}"#,
            "use the name of a .safetensors file",
        ),
        (r#"{"weight_map": {}}"#, "has no weight_map"),
        ("{", "is no JSON"),
    ] {
        fs::write(patient.path(index), text).unwrap();
        let complaint = patient.complaint();
        assert!(complaint.starts_with(&format!("{index}: ")) && complaint.contains(said), "{complaint}");
    }
}

#[test]
fn checkpoints_of_other_families_are_refused_by_name() {
    for (tensor, said) in [
        ("conditioner.embedders.0.model.ln_final.bias", "so this is no whole SDXL refiner checkpoint"),
        ("conditioner.embedders.1.model.ln_final.bias", "begins with model.diffusion_model., so this is no whole SDXL"),
        ("cond_stage_model.model.token_embedding.weight", "SD 2"),
        ("model.diffusion_model.out.2.bias", "no tensor begins with first_stage_model."),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        let tensors = BTreeMap::from([(tensor.to_owned(), Raw::zeros(&[4]))]);
        fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let cause = Model::load(&path, folder.path(), Target::REFERENCE).unwrap_err().to_string();
        assert!(cause.contains("some.safetensors") && cause.contains(said), "{cause}");
    }
}
