//! Settings that are never shown, and some that may contain one.

use std::fmt;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use figment::value::Value;
use serde_json::Value as JsonValue;

use super::setting::Setting;
use crate::net::{self, Url};

/// What must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Setting for Option<Secret> {
    const ALLOWED: &'static str = "a text, or an empty one for none";
    fn read(value: &Value) -> Option<Self> {
        Option::<String>::read(value).map(|text| text.map(Secret))
    }
    fn show(value: &Value) -> JsonValue {
        if value.as_str() == Some("") { "".into() } else { "hidden".into() }
    }
}

impl Setting for Vec<Secret> {
    const ALLOWED: &'static str = "texts that are not empty, separated by commas, or an empty text for none";
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?.trim();
        let keys = || text.split(',').map(|key| Some(key.trim()).filter(|key| !key.is_empty()).map(Secret::new));
        if text.is_empty() { Some(Vec::new()) } else { keys().collect() }
    }
    fn show(value: &Value) -> JsonValue {
        if value.as_str() == Some("") { "".into() } else { "hidden".into() }
    }
}

/// What webhooks are signed with, after the Standard Webhooks specification.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// Reads `whsec_` and 24 to 64 bytes in base64.
    pub fn parse(text: &str) -> Option<Self> {
        let key = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        (24..=64).contains(&key.len()).then_some(Self(key))
    }

    /// The key itself.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl Setting for Option<SigningKey> {
    const ALLOWED: &'static str = "whsec_ and 24 to 64 bytes in base64, or an empty text for none";
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        if text.is_empty() { Some(None) } else { SigningKey::parse(text).map(Some) }
    }
    fn show(value: &Value) -> JsonValue {
        Option::<Secret>::show(value)
    }
}

/// The base of somebody's URLs.
impl Setting for Url {
    const ALLOWED: &'static str = "an http or https URL of a host, with neither user, password nor query";
    fn read(value: &Value) -> Option<Self> {
        net::base(value.as_str()?).ok()
    }
    /// Where a password or a token could be.
    fn show(value: &Value) -> JsonValue {
        match value.as_str() {
            Some(text) if !text.contains(['@', '?']) => text.into(),
            _ => "hidden".into(),
        }
    }
}

/// One that need not be.
impl Setting for Option<Url> {
    const ALLOWED: &'static str =
        "an http or https URL of a host, with neither user, password nor query, or an empty text for none";
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        if text.is_empty() { Some(None) } else { Url::read(value).map(Some) }
    }
    fn show(value: &Value) -> JsonValue {
        Url::show(value)
    }
}

/// A URL, or a template of one, that may have a password in it: shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(String);

impl From<String> for RedactedUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// As whoever calls it needs it.
impl Deref for RedactedUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&net::shown(&self.0), f)
    }
}

impl Setting for Option<RedactedUrl> {
    const ALLOWED: &'static str = "a text, or an empty one for none";
    fn read(value: &Value) -> Option<Self> {
        Option::<String>::read(value).map(|text| text.map(RedactedUrl))
    }
    fn show(value: &Value) -> JsonValue {
        value.as_str().map_or_else(|| "hidden".into(), |text| net::shown(text).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<S: Setting>(text: &str) -> Option<S> {
        S::read(&Value::from(text))
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = read::<Option<Secret>>("s3cret").flatten();
        assert_eq!(secret.as_ref().map(Secret::reveal), Some("s3cret"));
        assert_eq!(format!("{secret:?}"), "Some(Secret)");
    }

    #[test]
    fn a_signing_key_is_what_the_specification_says() {
        let key = read::<Option<SigningKey>>("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").flatten();
        assert_eq!(key.as_ref().map(|key| key.reveal().len()), Some(24));
        assert_eq!(format!("{key:?}"), "Some(SigningKey)");
        assert_eq!(read::<Option<SigningKey>>(""), Some(None));
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        for wrong in ["whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjU", "whsec_!", &long] {
            assert_eq!(read::<Option<SigningKey>>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_base_is_told_unless_it_may_hold_a_password() {
        assert_eq!(read::<Option<Url>>(""), Some(None));
        assert_eq!(read("https://s3.example/x"), Some("https://s3.example/x".parse::<Url>().ok()));
        for wrong in ["s3.example", "ftp://h", "http://", "http://a:s3cret@h", "http://h?s3cret", "5"] {
            assert_eq!(read::<Option<Url>>(wrong), None, "{wrong}");
            assert_eq!(Option::<Url>::show(&Value::from(wrong)) == "hidden", wrong.contains("s3cret"), "{wrong}");
        }
    }
}
