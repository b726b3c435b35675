//! The part of the configuration that is for pulling models. The variables are those of the hub's own tools.

use std::io;
use std::path::PathBuf;

use super::{Environment, Reader, Secret};
use crate::disk::whole;
use crate::net::Url;

/// Bytes of a file that holds a token.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Where models are pulled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// The hub, or a mirror of it.
    pub endpoint: Url,
    /// What it knows us by, if that is in the configuration.
    token: Option<Secret>,
    /// Where the hub's own tools keep it.
    token_file: PathBuf,
}

impl HubConfig {
    /// What the hub knows us by: the setting, else what its tools have left; `None` if there is neither.
    ///
    /// # Errors
    /// There is such a file and it cannot be read.
    pub fn token(&self) -> io::Result<Option<Secret>> {
        if self.token.is_some() {
            return Ok(self.token.clone());
        }
        match whole::read_text(&self.token_file, MAX_TOKEN_BYTES) {
            Ok(text) => Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Secret::new)),
            Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(cause) => Err(io::Error::new(cause.kind(), format!("{}: {cause}", self.token_file.display()))),
        }
    }
}

impl Reader {
    pub(super) fn hub(&mut self, environment: &Environment) -> Option<HubConfig> {
        let (endpoint, token) = (self.read("hub.endpoint"), self.read("hub.token"));
        Some(HubConfig { endpoint: endpoint?, token: token?, token_file: environment.hub_token_file() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn hub(token: Option<&str>, token_file: PathBuf) -> HubConfig {
        HubConfig { endpoint: "https://h".parse().unwrap(), token: token.map(Secret::new), token_file }
    }

    #[test]
    fn the_token_is_the_setting_or_what_the_hub_s_tools_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let revealed = |hub: &HubConfig| hub.token().unwrap().map(|token| token.reveal().to_owned());
        assert_eq!(revealed(&hub(None, file.clone())), None);
        assert_eq!(revealed(&hub(None, "/dev/null/token".into())), None);
        fs::write(&file, "hf_left\n").unwrap();
        assert_eq!(revealed(&hub(None, file.clone())).as_deref(), Some("hf_left"));
        assert_eq!(revealed(&hub(Some("hf_set"), file.clone())).as_deref(), Some("hf_set"));
        fs::write(&file, "\n").unwrap();
        assert_eq!(revealed(&hub(None, file)), None);
        assert!(
            hub(None, folder.path().into()).token().unwrap_err().to_string().contains(folder.path().to_str().unwrap())
        );
    }
}
