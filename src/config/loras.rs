//! Which LoRA files there are.

use std::fs;
use std::io;
use std::path::Path;

/// Names of the `.safetensors` files in `folder`, without that ending, in ascending order. What is not Unicode is left
/// out: no job could name it.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Through links, but nothing that is no file: a pipe would be waited for.
        let named = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".safetensors"));
        if let Some(name) = named.filter(|name| !name.is_empty() && path.is_file()) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lora_is_called_what_its_file_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in
            ["wool.safetensors", "ink v1.2.safetensors", "README.md", ".safetensors", "old.ckpt", "X.SAFETENSORS"]
        {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at("folder.safetensors")).unwrap();
        std::os::unix::fs::symlink(at("wool.safetensors"), at("linked.safetensors")).unwrap();
        std::os::unix::fs::symlink(at("gone"), at("dangling.safetensors")).unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["ink v1.2", "linked", "wool"]);
        assert!(names(&at("gone")).is_err());
    }
}
