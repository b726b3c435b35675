//! Weight files that are holes: as long as they would be, and empty on the disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

const BYTES: u64 = 2; // of a number in f16

/// Tensors of a part, by name.
#[derive(Default)]
pub(crate) struct Part(Vec<(String, Vec<u64>)>);

impl Part {
    pub(crate) fn add(&mut self, name: String, shape: &[u64]) {
        self.0.push((name, shape.to_vec()));
    }

    /// A weight and its bias.
    pub(crate) fn map(&mut self, name: impl std::fmt::Display, weight: &[u64]) {
        self.add(format!("{name}.weight"), weight);
        self.add(format!("{name}.bias"), &weight[..1]);
    }

    pub(crate) fn conv(&mut self, name: impl std::fmt::Display, inputs: u64, outputs: u64, kernel: u64) {
        self.map(name, &[outputs, inputs, kernel, kernel]);
    }
}

/// Writes `part` as safetensors: a header, and a hole of the size of its tensors.
pub(crate) fn write_weights(path: &Path, part: &Part) {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in &part.0 {
        let begin = end;
        end += shape.iter().product::<u64>() * BYTES;
        header.insert(name.clone(), json!({"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = Value::Object(header).to_string();
    let header = format!("{header}{}", " ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

/// Writes a folder of a model in diffusers layout.
pub(crate) fn write_part(folder: &Path, name: &str, config: &Value, file: &str, part: &Part) {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    write_weights(&folder.join(file), part);
}
