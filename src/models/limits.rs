//! What a file of a model may have, whoever offers it.

use super::error::PullError;
use super::place::RelativePath;

/// The ending of files that load.
pub(super) const ENDING: &str = ".safetensors";

/// Bytes that a file of a model may have: several times those of any that loads.
pub(super) fn most(path: &RelativePath) -> u64 {
    if path.as_str().ends_with(ENDING) { 64 << 30 } else { 64 << 20 }
}

/// Refuses a file of so many `bytes` that it can be no part of a model, before the disk is full of it.
pub(super) fn plausible(path: &RelativePath, bytes: u64) -> Result<(), PullError> {
    let most = most(path);
    if bytes > most { Err(PullError::Implausible { file: path.to_string(), bytes, most }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_is_larger_than_any_is_refused() {
        let place = |text: &str| RelativePath::parse(text).unwrap();
        assert!(plausible(&place("a.safetensors"), 64 << 30).is_ok() && plausible(&place("a.json"), 64 << 20).is_ok());
        for (path, bytes, size) in [("a.safetensors", (64 << 30) + 1, "64.0 GiB"), ("vocab.json", u64::MAX, "64.0 MiB")]
        {
            let error = plausible(&place(path), bytes).unwrap_err().to_string();
            assert!(error.starts_with(path) && error.contains(&format!("no more than {size}")), "{error}");
        }
    }
}
