//! Textual inversions from files on tiny models: who names one draws with it, and one that does not fit fails the job that names it.

use std::path::PathBuf;

use latentd::engine::torch::TorchEngine;
use latentd::engine::{Engine, Picture, Ticket};
use latentd::job::{Code, JobError, Lora, PromptSyntax, Spec};
use latentd::sampler::Sampler;
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::torch::drawing::{engine, finish, only, spec};

/// Width of the text encoder of `tiny`, and of those of `tiny-xl`.
const WIDTH: i64 = 16;
const WIDTHS: [i64; 2] = [12, 20];

/// An engine with a folder of embeddings, which is that of LoRAs, too.
struct Library {
    engine: TorchEngine,
    folder: TempDir,
}

impl Library {
    fn new(model: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = Some(folder.path().to_owned());
        Self { engine: engine(model).with_loras(at.clone()).with_embeddings(at), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.safetensors"))
    }

    fn write(&self, name: &str, tensors: &[(&str, Tensor)]) {
        Tensor::write_safetensors(tensors, self.path(name)).unwrap();
    }

    fn try_to_draw(&mut self, job: &Spec) -> Result<Picture, JobError> {
        self.engine.admit(Ticket(0), job)?;
        Ok(only(finish(&mut self.engine).remove(&Ticket(0)).unwrap()))
    }

    fn draw(&mut self, prompt: &str) -> Picture {
        self.try_to_draw(&job(prompt)).unwrap()
    }

    /// What a job fails with that names the embedding of this file.
    fn refusal(&mut self, name: &str, tensors: &[(&str, Tensor)]) -> String {
        self.write(name, tensors);
        let cause = self.try_to_draw(&job(&format!("a {name}"))).unwrap_err();
        assert_eq!(cause.code, Code::EmbeddingFailed, "{cause}");
        assert!(
            !cause.message.contains(self.folder.path().to_str().unwrap()),
            "the server's folders are told: {cause}"
        );
        assert!(!self.engine.busy());
        cause.message
    }
}

fn job(prompt: &str) -> Spec {
    Spec { prompt: prompt.into(), ..spec(Sampler::Ddim, 2, 7) }
}

fn weighted(prompt: &str) -> Spec {
    Spec { prompt_syntax: PromptSyntax::Weighted, ..job(prompt) }
}

/// Vectors that are easily told from those of words.
fn vectors(count: i64, width: i64, factor: f64) -> Tensor {
    (Tensor::arange(count * width, (Kind::Float, tch::Device::Cpu)) * 0.7).sin().reshape([count, width]) * factor
}

#[test]
fn who_names_a_file_draws_with_its_vectors_and_who_does_not_draws_as_before() {
    let mut library = Library::new("tiny");
    let words = library.draw("a red ink");
    library.write("ink", &[("emb_params", vectors(2, WIDTH, 0.5))]);
    let drawn = library.draw("a red ink");
    assert_ne!(drawn, words, "the file was not there before");
    for same in ["a red INK", "a red ink"] {
        assert_eq!(library.draw(same), drawn, "{same}");
    }
    assert_eq!(library.draw("a red inks"), engine_alone("a red inks"), "a longer word");
    assert_eq!(library.try_to_draw(&weighted("a red (ink:1)")).unwrap(), drawn);
    assert_ne!(library.try_to_draw(&weighted("a red (ink:1.5)")).unwrap(), drawn);
    // Read again where it has changed.
    library.write("ink", &[("emb_params", vectors(2, WIDTH, -0.5))]);
    assert_ne!(library.draw("a red ink"), drawn);
}

fn engine_alone(prompt: &str) -> Picture {
    Library::new("tiny").draw(prompt)
}

#[test]
fn the_vectors_of_a_word_are_the_word() {
    let weights =
        Tensor::read_safetensors("tests/golden/torch/miniatures/tiny/text_encoder/model.safetensors").unwrap();
    let (_, table) = weights.into_iter().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap();
    let tokenizer = latentd::engine::tokenizer::Tokenizer::from_folder(std::path::Path::new(
        "tests/golden/torch/miniatures/tiny/tokenizer",
    ));
    let ids: Vec<i64> = tokenizer.unwrap().encode_all("red").unwrap().into_iter().map(i64::from).collect();
    let held = table.index_select(0, &Tensor::from_slice(&ids)).to_kind(Kind::Float);
    let mut library = Library::new("tiny");
    library.write("x-red", &[("emb_params", held)]);
    assert_eq!(library.draw("a x-red apple"), engine_alone("a red apple"));
}

#[test]
fn files_of_every_kind_are_read() {
    let held = || vectors(2, WIDTH, 0.5);
    let mut library = Library::new("tiny");
    library.write("one", &[("emb_params", held())]);
    library.write("two", &[("string_to_param.*", held())]);
    library.write("three", &[("<toy>", held())]);
    library.write("four", &[("clip_l", held()), ("clip_g", vectors(2, 20, 0.5))]);
    let drawn = library.draw("a one");
    for name in ["two", "three", "<toy>", "<TOY>", "four"] {
        assert_eq!(library.draw(&format!("a {name}")), drawn, "{name}");
    }
    library.write("single", &[("<s>", vectors(1, WIDTH, 0.5).squeeze())]);
    library.write("row", &[("emb_params", vectors(1, WIDTH, 0.5))]);
    assert_eq!(library.draw("a single"), library.draw("a row"));
    let mut of_xl = Library::new("tiny-xl");
    let words = of_xl.draw("a four");
    of_xl.write("four", &[("clip_l", vectors(2, WIDTHS[0], 0.5)), ("clip_g", vectors(2, WIDTHS[1], 0.5))]);
    assert_ne!(of_xl.draw("a four"), words);
}

#[test]
fn what_does_not_fit_is_told_to_who_names_it_by_its_file() {
    let mut library = Library::new("tiny");
    let told = library.refusal("wide", &[("emb_params", vectors(2, 20, 1.0))]);
    assert_eq!(
        told,
        "embedding \"wide\": wide.safetensors: tensor emb_params has vectors 20 wide, and this model's text encoder takes 16"
    );
    let told = library.refusal("grid", &[("emb_params", Tensor::zeros([2, 2, 16], (Kind::Float, tch::Device::Cpu)))]);
    assert!(told.ends_with("tensor emb_params of shape [2, 2, 16] is no list of vectors"), "{told}");
    let told = library.refusal("nan", &[("emb_params", vectors(2, WIDTH, f64::NAN))]);
    assert!(told.ends_with("tensor emb_params holds no finite numbers"), "{told}");
    let told = library.refusal("other", &[("a", vectors(2, WIDTH, 1.0)), ("b", vectors(2, WIDTH, 1.0))]);
    assert!(told.ends_with("it holds no emb_params or string_to_param.* or clip_l, which this model takes"), "{told}");
    std::fs::write(library.path("page"), "<html>").unwrap();
    let cause = library.try_to_draw(&job("a page")).unwrap_err();
    assert!(cause.message.starts_with("embedding \"page\": page.safetensors: "), "{cause}");
    assert_eq!(library.draw("an apple"), engine_alone("an apple"));
    let mut of_xl = Library::new("tiny-xl");
    let told = of_xl.refusal("half", &[("emb_params", vectors(2, WIDTHS[0], 1.0))]);
    assert!(told.ends_with("it holds no clip_l, which this model takes"), "{told}");
    let told =
        of_xl.refusal("uneven", &[("clip_l", vectors(2, WIDTHS[0], 1.0)), ("clip_g", vectors(3, WIDTHS[1], 1.0))]);
    assert!(told.ends_with("its text encoders have different numbers of vectors, [2, 3]"), "{told}");
}

#[test]
fn what_comes_with_a_lora_is_there_for_jobs_with_it() {
    let mut library = Library::new("tiny");
    let none = || Tensor::zeros([1, WIDTH], (Kind::Float, tch::Device::Cpu));
    let stem = "lora_te_text_model_encoder_layers_0_self_attn_q_proj";
    let (down, up) = (format!("{stem}.lora_down.weight"), format!("{stem}.lora_up.weight"));
    let lora = |bundled: &str| {
        let held = vectors(2, WIDTH, 0.5);
        [(down.clone(), none()), (up.clone(), none().reshape([WIDTH, 1])), (bundled.to_owned(), held)]
    };
    let write = |library: &Library, name: &str, bundled: &str| {
        let tensors = lora(bundled);
        let named: Vec<(&str, Tensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.copy())).collect();
        library.write(name, &named);
    };
    write(&library, "pivotal", "bundle_emb.v1.5 toy.string_to_param.*");
    let with = |prompt: &str| Spec { lora: Some(Lora { name: "pivotal".into(), scale: 1.0 }), ..job(prompt) };
    let drawn = library.try_to_draw(&with("a v1.5 toy")).unwrap();
    // The LoRA changes nothing but this.
    assert_eq!(library.try_to_draw(&with("an apple")).unwrap(), engine_alone("an apple"));
    assert_eq!(library.draw("a v1.5 toy"), engine_alone("a v1.5 toy"));
    let mut other = Library::new("tiny");
    other.write("toy", &[("emb_params", vectors(2, WIDTH, 0.5))]);
    assert_eq!(other.draw("a toy"), drawn);
    write(&library, "pivotal", "bundle_emb.toy.clip_l_out");
    let cause = library.try_to_draw(&with("a toy")).unwrap_err();
    assert!(cause.code == Code::LoraFailed && cause.message.contains("bundle_emb.toy.clip_l_out"), "{cause}");
}
