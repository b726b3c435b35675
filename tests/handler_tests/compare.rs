//! The folders of `handler-tests/`, and whether a result is what they expect; `examples/handler_tests.rs` has these rules too.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// One folder.
pub(crate) struct HandlerTest {
    /// The folder's name.
    pub(crate) name: String,
    /// What is sent, letter for letter: numbers may be beyond what a JSON library keeps.
    pub(crate) job: String,
    /// What must hold of the answer.
    pub(crate) expected: Value,
}

impl HandlerTest {
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|cause| format!("{}: {cause}", path.display()))
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let expected = serde_json::from_str(&read("expect.json")?).map_err(|cause| format!("{name}: {cause}"))?;
        Ok(Self { name, job: read("job.json")?, expected })
    }
}

/// Kinds of models beside Stable Diffusion v1, `sd1`, and what the names of their folders have in them. `refined` is an SDXL model with a refiner.
pub(crate) const KINDS: [(&str, &str); 3] = [("sdxl", "-sdxl-"), ("refined", "-refined-"), ("sdxl_turbo", "-turbo-")];

/// All folders that are for models of this kind, by their numbers.
pub(crate) fn folders(kind: &str) -> Result<Vec<PathBuf>, String> {
    let of = |name: &str| KINDS.iter().find(|(_, part)| name.contains(part)).map_or("sd1", |(kind, _)| kind);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("handler-tests");
    let all = fs::read_dir(&root).map_err(|cause| format!("{}: {cause}", root.display()))?;
    let mut folders: Vec<PathBuf> = all.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.retain(|folder| folder.file_name().is_some_and(|name| of(&name.to_string_lossy()) == kind));
    folders.sort();
    Ok(folders)
}

/// A result in the terms of `expect.json`: images are looked into instead of compared.
pub(crate) fn seen(result: &Value) -> Value {
    let (mut seen, output) = (result.clone(), &result["output"]);
    seen["parameters"] = output["parameters"].clone();
    seen["generation_time"] = output["generation_time"].is_number().into();
    if let Some(images) = output["images"].as_array().filter(|images| !images.iter().any(Value::is_object)) {
        // Not every worker tells all seeds.
        let seed = |index: usize| if index == 0 { &output["seed"] } else { &output["seeds"][index] };
        seen["images"] = images.iter().enumerate().map(|(index, image)| look_into_uri(image, seed(index))).collect();
        seen["image_url"] = look_into_uri(&output["image_url"], &output["seed"]);
    } else {
        let images = output.as_array().or_else(|| output["images"].as_array()).into_iter().flatten();
        seen["images"] = images.map(|image| look_into(image["image"].as_str(), &image["seed"])).collect();
    }
    seen
}

fn look_into_uri(image: &Value, seed: &Value) -> Value {
    look_into(image.as_str().and_then(|image| image.strip_prefix("data:image/png;base64,")), seed)
}

fn look_into(image: Option<&str>, seed: &Value) -> Value {
    let size = image.and_then(|file| {
        let file = BASE64_STANDARD.decode(file).ok()?;
        let reader = png::Decoder::new(Cursor::new(file)).read_info().ok()?;
        Some((reader.info().width, reader.info().height))
    });
    json!({"seed": seed, "width": size.map(|size| size.0), "height": size.map(|size| size.1)})
}

/// Whether all that `expected` says holds of `seen`.
pub(crate) fn holds(expected: &Value, seen: &Value) -> bool {
    match (expected, seen) {
        (Value::Object(expected), Value::Object(seen)) => {
            expected.iter().all(|(key, value)| seen.get(key).is_some_and(|seen| holds(value, seen)))
        }
        (Value::Array(expected), Value::Array(seen)) => {
            expected.len() == seen.len() && expected.iter().zip(seen).all(|(expected, seen)| holds(expected, seen))
        }
        _ => expected == seen,
    }
}
