//! SDXL from a hub: two text encoders, weights in several files, and an autoencoder from elsewhere.

use std::fs;
use std::path::Path;

use latentd::models::{Manifest, Order, PullError, recognise};
use serde_json::{Value, json};

use crate::models_pull::hub::{COMMIT, Outcome, answer, pull_order, shards, weights};
use crate::models_pull::server::{Server, said};

type Files = Vec<(String, Vec<u8>)>;

/// A small repository in the form of SDXL base 1.0's: what is loaded, in half precision, and what is not.
fn files(index: &Value, unet: &Value) -> (Files, Files) {
    let file = |path: &str, bytes: Vec<u8>| (path.to_owned(), bytes);
    let json = |path: &str, value: &Value| file(path, value.to_string().into_bytes());
    let loaded = vec![
        json("model_index.json", index),
        json("scheduler/scheduler_config.json", &json!({})),
        json("text_encoder/config.json", &json!({})),
        file("text_encoder/model.fp16.safetensors", weights(30, 1)),
        json("text_encoder_2/config.json", &json!({})),
        file("text_encoder_2/model.fp16.safetensors", weights(40, 2)),
        file("tokenizer/merges.txt", b"#version: 0.2\n".to_vec()),
        file("tokenizer_2/merges.txt", b"#version: 0.2\n".to_vec()),
        json("unet/config.json", unet),
        file("unet/diffusion_pytorch_model.fp16.safetensors", weights(50, 3)),
        json("vae/config.json", &json!({})),
        file("vae/diffusion_pytorch_model.fp16.safetensors", weights(20, 4)),
    ];
    let other = [
        "sd_xl_base_1.0.safetensors",
        "text_encoder/model.onnx",
        "text_encoder/model.safetensors",
        "text_encoder_2/flax_model.msgpack",
        "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/openvino_model.bin",
        "vae/diffusion_pytorch_model.safetensors",
        "vae_1_0/config.json",
        "vae_1_0/diffusion_pytorch_model.safetensors",
    ];
    (loaded, other.map(|path| file(path, weights(7, 9))).to_vec())
}

fn base() -> (Files, Files) {
    let index = json!({"_class_name": "StableDiffusionXLPipeline", "text_encoder": ["transformers", "CLIPTextModel"]});
    files(&index, &json!({"in_channels": 4, "cross_attention_dim": 2048, "addition_embed_type": "text_time"}))
}

async fn pull(endpoint: &str, models: &Path, what: &str, variant: Option<&str>, vae: Option<&str>) -> Outcome {
    let text = |text: &str| Some(text.to_owned());
    let order = Order {
        what: what.into(),
        variant: variant.and_then(text),
        vae: vae.and_then(text),
        name: text("m"),
        ..Order::default()
    };
    pull_order(endpoint, models, None, order).await
}

/// Whether `folder` has these files and two others, which describe them.
fn assert_holds(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (path, bytes) in files {
        assert_eq!(fs::read(folder.join(path)).unwrap(), *bytes, "{path}");
    }
    assert_eq!(crate::models_pull::hub::count(folder), files.len() + 2, "SHA256SUMS and model.json beside them");
}

#[tokio::test]
async fn of_sdxl_what_is_loaded_is_pulled() {
    let (loaded, other) = base();
    let all = [loaded.clone(), other].concat();
    let server = Server::start(move |_, request| answer("o/xl", "main", &all, request)).await;
    let models = tempfile::tempdir().unwrap();
    pull(&server.url(""), models.path(), "o/xl", Some("fp16"), None).await.ended.unwrap();
    assert_holds(&models.path().join("m"), &loaded);
    assert_eq!(recognise(&models.path().join("m")).unwrap().to_string(), "sdxl");
    let about = Manifest::read(&models.path().join("m")).unwrap().unwrap();
    assert_eq!((about.family.as_str(), about.vae), ("sdxl", None));
}

#[tokio::test]
async fn of_a_refiner_the_one_text_encoder_is_pulled() {
    let index = json!({
        "_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [null, null], "requires_aesthetics_score": true,
    });
    let (mut loaded, mut other) =
        files(&index, &json!({"in_channels": 4, "cross_attention_dim": 1280, "addition_embed_type": "text_time"}));
    for list in [&mut loaded, &mut other] {
        list.retain(|(path, _)| !path.starts_with("text_encoder/") && !path.starts_with("tokenizer/"));
    }
    let all = [loaded.clone(), other].concat();
    let server = Server::start(move |_, request| answer("o/refiner", "main", &all, request)).await;
    let models = tempfile::tempdir().unwrap();
    pull(&server.url(""), models.path(), "o/refiner", Some("fp16"), None).await.ended.unwrap();
    assert_holds(&models.path().join("m"), &loaded);
    assert_eq!(recognise(&models.path().join("m")).unwrap().to_string(), "sdxl-refiner");
}

#[tokio::test]
async fn sdxl_by_name_is_the_half_precision_of_the_base_model() {
    let known = Manifest::known("sdxl").unwrap();
    let (repository, revision) = (known.repository.unwrap(), known.revision.unwrap());
    assert_eq!(repository, "stabilityai/stable-diffusion-xl-base-1.0");
    // Without hashes, as of small files, so that those that are known are compared with what comes.
    let (loaded, other) = base();
    let all = [loaded, other].concat();
    let target = format!("/api/models/{repository}/revision/{revision}?blobs=true");
    let server = Server::start(move |_, request| {
        if request.target != target {
            return said("404 No", "", b"");
        }
        let siblings: Vec<Value> =
            all.iter().map(|(path, bytes)| json!({"rfilename": path, "size": bytes.len()})).collect();
        said("200 OK", "", json!({"sha": COMMIT, "siblings": siblings}).to_string().as_bytes())
    })
    .await;
    let order = Order { what: "sdxl".into(), ..Order::default() };
    let endpoint: latentd::net::Url = server.url("").parse().unwrap();
    let hub = latentd::models::Hub::new(endpoint, latentd::net::DownloadClient::new(None).unwrap());
    let plan = latentd::models::plan(&hub, order).await.unwrap();
    let weights: Vec<(&str, bool)> = plan
        .items
        .iter()
        .filter(|item| item.path.as_str().ends_with(".safetensors"))
        .map(|item| (item.path.as_str(), item.sha256.is_some()))
        .collect();
    assert_eq!(
        weights,
        [
            ("text_encoder/model.fp16.safetensors", true),
            ("text_encoder_2/model.fp16.safetensors", true),
            ("unet/diffusion_pytorch_model.fp16.safetensors", true),
            ("vae/diffusion_pytorch_model.fp16.safetensors", true),
        ]
    );
    assert_eq!((plan.name.as_str(), plan.about.licence.as_deref()), ("sdxl", Some("CreativeML Open RAIL++-M")));
    assert_eq!(plan.about.variant, None, "it is of known models alone");
}

#[tokio::test]
async fn weights_in_several_files_come_with_their_index() {
    let (mut loaded, _) = base();
    loaded.retain(|(path, _)| !path.starts_with("unet/diffusion"));
    loaded.extend(shards("unet", "diffusion_pytorch_model"));
    let all = loaded.clone();
    let server = Server::start(move |_, request| answer("o/xl", "main", &all, request)).await;
    let models = tempfile::tempdir().unwrap();
    pull(&server.url(""), models.path(), "o/xl", None, None).await.ended.unwrap();
    assert_holds(&models.path().join("m"), &loaded);
}

#[tokio::test]
async fn an_index_is_not_believed() {
    for (index, words) in [
        (json!({"weight_map": {"a": "../../x.safetensors"}}), "names \"../../x.safetensors\""),
        (json!({"weight_map": {"a": "x.bin"}}), "names \"x.bin\""),
        (json!({"weight_map": {}}), "has no weight_map"),
        (json!({"weight_map": {"a": "x.safetensors"}}), "no unet/x.safetensors"),
    ] {
        let (mut all, _) = base();
        all.retain(|(path, _)| !path.starts_with("unet/diffusion"));
        let place = "unet/diffusion_pytorch_model.safetensors.index.json";
        all.push((place.to_owned(), index.to_string().into_bytes()));
        let server = Server::start(move |_, request| answer("o/xl", "main", &all, request)).await;
        let models = tempfile::tempdir().unwrap();
        let outcome = pull(&server.url(""), models.path(), "o/xl", None, None).await;
        assert!(outcome.fault().starts_with("o/xl: ") && outcome.fault().contains(words), "{}", outcome.fault());
        assert_eq!(fs::read_dir(models.path()).unwrap().count(), 0, "nothing is made");
    }
}

#[tokio::test]
async fn an_autoencoder_from_elsewhere_takes_the_place_of_the_model_s_own() {
    let (mut loaded, other) = base();
    let all = [loaded.clone(), other].concat();
    let vae = [
        ("config.json", b"{\"force_upcast\": false}".to_vec()),
        ("diffusion_pytorch_model.safetensors", weights(21, 6)),
    ];
    let of_vae: Files = vae
        .iter()
        .map(|(path, bytes)| ((*path).to_owned(), bytes.clone()))
        .chain([("sdxl.vae.safetensors".into(), weights(22, 6))])
        .collect();
    let server = Server::start(move |_, request| {
        if request.target.contains("o/fixed") {
            answer("o/fixed", "v2", &of_vae, request)
        } else {
            answer("o/xl", "main", &all, request)
        }
    })
    .await;
    let models = tempfile::tempdir().unwrap();
    let with = async |vae: &str| pull(&server.url(""), models.path(), "o/xl", Some("fp16"), Some(vae)).await;
    with("o/fixed@v2").await.ended.unwrap();
    loaded.retain(|(path, _)| !path.starts_with("vae/"));
    loaded.extend(vae.map(|(path, bytes)| (format!("vae/{path}"), bytes)));
    assert_holds(&models.path().join("m"), &loaded);
    let about = Manifest::read(&models.path().join("m")).unwrap().unwrap();
    let source = about.vae.unwrap();
    assert_eq!((source.repository.as_str(), source.revision.as_str()), ("o/fixed", COMMIT));
    assert_eq!((about.repository.as_deref(), source.licence.as_deref()), (Some("o/xl"), Some("creativeml-openrail-m")));
    let outcome = with("o/fixed@v3").await;
    assert!(matches!(outcome.ended, Err(PullError::Refused { .. })), "{:?}", outcome.ended);
}

#[tokio::test]
async fn an_inpainting_model_is_pulled_as_a_base_model_is() {
    let unet = json!({"in_channels": 9, "cross_attention_dim": 2048, "addition_embed_type": "text_time"});
    let index =
        json!({"_class_name": "StableDiffusionXLInpaintPipeline", "text_encoder": ["transformers", "CLIPTextModel"]});
    let (loaded, other) = files(&index, &unet);
    let all = [loaded.clone(), other].concat();
    let server = Server::start(move |_, request| answer("o/xl", "main", &all, request)).await;
    let models = tempfile::tempdir().unwrap();
    pull(&server.url(""), models.path(), "o/xl", Some("fp16"), None).await.ended.unwrap();
    assert_holds(&models.path().join("m"), &loaded);
    let about = Manifest::read(&models.path().join("m")).unwrap().unwrap();
    assert_eq!(about.family, "sdxl-inpainting");
}

#[tokio::test]
async fn known_parts_are_told_without_a_call() {
    let server = Server::start(|_, _| said("200 OK", "", b"")).await;
    let models = tempfile::tempdir().unwrap();
    for (what, vae, words) in [
        ("sdxl-vae-fp16-fix", None, "pull that model with --vae and this repository"),
        ("o/xl", Some("nothing"), "neither a repository"),
        ("o/xl", Some("https://h/a.safetensors"), "--vae is a repository or a known name"),
        ("https://h/a.safetensors", Some("o/fixed"), "--revision, --variant and --vae are for repositories"),
    ] {
        let outcome = pull(&server.url(""), models.path(), what, None, vae).await;
        assert!(outcome.fault().contains(words), "{}", outcome.fault());
    }
    assert_eq!(server.asked(), []);
}
