//! A small repository on a hub, and a client of that hub.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use latentd::clock::UnixTime;
use latentd::models::{Hub, Order, PullError, Seen, Watch, plan, pull};
use latentd::net::{DownloadClient, Url};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::models_pull::server::{Answer, Request, announced, said};

/// What revision `main` stands for.
pub(crate) const COMMIT: &str = "c0ffee";

/// The file that tests do harm to.
pub(crate) const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// A weight file with one tensor of so many bytes, all alike.
pub(crate) fn weights(bytes: usize, of: u8) -> Vec<u8> {
    let header = json!({"a": {"dtype": "U8", "shape": [bytes], "data_offsets": [0, bytes]}}).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![of; bytes]].concat()
}

/// Every file of the repository.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"x".to_vec()),
        ("README.md", b"# Words\n".to_vec()),
        ("model_index.json", br#"{"_class_name": "StableDiffusionPipeline"}"#.to_vec()),
        ("safety_checker/model.safetensors", weights(5, 0)),
        ("scheduler/scheduler_config.json", b"{}".to_vec()),
        ("text_encoder/config.json", b"{}".to_vec()),
        ("text_encoder/model.safetensors", weights(3000, 1)),
        ("tokenizer/merges.txt", b"#version: 0.2\n".to_vec()),
        ("unet/config.json", br#"{"in_channels": 4, "cross_attention_dim": 768}"#.to_vec()),
        ("unet/diffusion_pytorch_model.bin", b"\x80\x02.".to_vec()),
        (UNET, weights(100_000, 2)),
        ("vae/config.json", b"{}".to_vec()),
        ("vae/diffusion_pytorch_model.safetensors", weights(2000, 3)),
    ]
}

/// One of them.
pub(crate) fn file(path: &str) -> Vec<u8> {
    files().into_iter().find(|(name, _)| *name == path).unwrap().1
}

/// What of it is pulled.
pub(crate) const PULLED: usize = 9;

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The API's answer for these files.
pub(crate) fn listing(files: &[(&str, Vec<u8>)]) -> serde_json::Value {
    let sibling = |(path, bytes): &(&str, Vec<u8>)| {
        let large = [".safetensors", ".bin"].iter().any(|ending| path.ends_with(ending));
        let lfs = large.then(|| json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134}));
        json!({"rfilename": path, "size": bytes.len(), "blobId": sha256(bytes)[..40], "lfs": lfs})
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    json!({"sha": COMMIT, "cardData": {"license": "creativeml-openrail-m"}, "siblings": siblings})
}

/// Weights in two files, and their index.
pub(crate) fn shards(folder: &str, stem: &str) -> Vec<(String, Vec<u8>)> {
    let [first, second] = [1, 2].map(|number| format!("{stem}-0000{number}-of-00002.safetensors"));
    let index = json!({"metadata": {"total_size": 30}, "weight_map": {"a": second, "b": first}}).to_string();
    vec![
        (format!("{folder}/{stem}.safetensors.index.json"), index.into_bytes()),
        (format!("{folder}/{first}"), weights(20, 4)),
        (format!("{folder}/{second}"), weights(10, 5)),
    ]
}

/// A hub that has `files` of `repository` at `revision`.
pub(crate) fn answer(repository: &str, revision: &str, files: &[(String, Vec<u8>)], request: &Request) -> Answer {
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    if request.target == format!("/api/models/{repository}/revision/{revision}?blobs=true") {
        return said("200 OK", "", listing(&files).to_string().as_bytes());
    }
    let path = request.target.strip_prefix(&format!("/{repository}/resolve/{COMMIT}/"));
    match path.and_then(|path| files.iter().find(|(name, _)| *name == path)) {
        Some((path, bytes)) => part(bytes, path, request.from()),
        None => said("404 Not Found", "X-Error-Code: EntryNotFound\r\n", b""),
    }
}

/// What a hub that behaves answers.
pub(crate) fn behaved(request: &Request) -> Answer {
    if request.target == "/api/models/o/small/revision/main?blobs=true" {
        return said("200 OK", "", listing(&files()).to_string().as_bytes());
    }
    if request.target.starts_with("/api/") {
        return said("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", b"");
    }
    let prefix = format!("/o/small/resolve/{COMMIT}/");
    let path = request.target.strip_prefix(&prefix);
    match path.and_then(|path| files().into_iter().find(|(name, _)| *name == path)) {
        Some((path, bytes)) => part(&bytes, path, request.from()),
        None => said("404 Not Found", "X-Error-Code: EntryNotFound\r\n", b""),
    }
}

/// The bytes of a file from `from` on, with its path as tag.
pub(crate) fn part(bytes: &[u8], path: &str, from: usize) -> Answer {
    broken(bytes, path, from, bytes.len())
}

/// The same, but the connection ends before byte `until`.
pub(crate) fn broken(bytes: &[u8], path: &str, from: usize, until: usize) -> Answer {
    let (all, rest) = (bytes.len(), bytes.len() - from);
    let tag = format!("ETag: \"{path}\"\r\n");
    let (status, headers) = match from {
        0 => ("200 OK", tag),
        _ => ("206 Partial Content", format!("{tag}Content-Range: bytes {from}-{}/{all}\r\n", all - 1)),
    };
    announced(status, &headers, rest, &bytes[from..until.max(from)], crate::models_pull::server::Then::Close)
}

/// What became of a pull.
pub(crate) struct Outcome {
    pub(crate) ended: Result<(), PullError>,
    pub(crate) seen: Vec<Seen>,
}

impl Outcome {
    /// Why it failed, for people.
    pub(crate) fn fault(&self) -> String {
        self.ended.as_ref().unwrap_err().to_string()
    }
}

/// Pulls the repository into `models`.
pub(crate) async fn pull_small(endpoint: &str, models: &Path) -> Outcome {
    pull_order(endpoint, models, None, Order { what: "o/small".into(), ..Order::default() }).await
}

/// Pulls what `order` asks for.
pub(crate) async fn pull_order(endpoint: &str, models: &Path, token: Option<&str>, order: Order) -> Outcome {
    let endpoint: Url = endpoint.parse().unwrap();
    let downloads = DownloadClient::new(token.map(|token| (&endpoint, token))).unwrap();
    let hub = Hub::new(endpoint, downloads);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watch: Watch = {
        let seen = Arc::clone(&seen);
        Arc::new(move |_, event| seen.lock().unwrap().push(event))
    };
    let ended = async {
        let plan = plan(&hub, order).await?;
        let staged = pull(&hub, &plan, models, 2, UnixTime::from_millis(1_795_000_000_000), &watch).await?;
        staged.settle().map(drop)
    };
    let ended = ended.await;
    let seen = seen.lock().unwrap().clone();
    Outcome { ended, seen }
}

/// Whether `models` has the whole repository under `name` and nothing else.
pub(crate) fn assert_whole(models: &Path, name: &str) {
    let names: Vec<_> = fs::read_dir(models).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [name]);
    let folder = models.join(name);
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), PULLED, "{sums}");
    for line in sums.lines() {
        let (sum, path) = line.split_once("  ").unwrap();
        let found = fs::read(folder.join(path)).unwrap();
        assert!(found == file(path) && sha256(&found) == sum, "{path}");
    }
    assert_eq!(count(&folder), PULLED + 2);
}

/// Files in `folder` and below.
pub(crate) fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}
