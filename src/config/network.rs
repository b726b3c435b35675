//! The part of the configuration that is for calling others.

use figment::value::Value;
use ipnet::IpNet;
use serde_json::Value as JsonValue;

use super::reader::Reader;
use super::setting::Setting;
use crate::net::{self, Proxies, Proxy};

/// Who may be called, and which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// Addresses beside the public ones that jobs may have called.
    pub allow_private: Vec<IpNet>,
    /// On the way to what the configuration names.
    pub proxies: Proxies,
}

impl Setting for Option<Proxy> {
    const ALLOWED: &'static str =
        "the http or https URL of a proxy such as http://proxy.example:3128, or an empty text for none";
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        if text.is_empty() { Some(None) } else { Proxy::parse(text).map(Some) }
    }
    fn show(value: &Value) -> JsonValue {
        value.as_str().map_or_else(|| "hidden".into(), |text| net::shown(text).into())
    }
}

impl Reader {
    pub(super) fn net(&mut self) -> Option<NetConfig> {
        let (http, https) = (self.read("net.http_proxy"), self.read("net.https_proxy"));
        let (none, allow_private) = (self.read("net.no_proxy"), self.read("net.allow_private"));
        let proxies = Proxies { http: http?, https: https?, none: none? };
        Some(NetConfig { allow_private: allow_private?, proxies })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Config, Environment, Flags};
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let flags = Flags { file: Some("/dev/null".into()), ..Flags::default() };
        Config::load(&flags, &variables.collect::<Environment>()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn proxies_are_those_of_the_environment() {
        let proxies = |variables: &[(&str, &str)]| config(variables).unwrap().net.proxies;
        assert_eq!(proxies(&[]), Proxies::default());
        let (one, other) = (Proxy::parse("http://one:1"), Proxy::parse("http://other:2"));
        let both = [("HTTP_PROXY", "one:1"), ("HTTPS_PROXY", "one:1"), ("NO_PROXY", "a.example")];
        let found = proxies(&both);
        assert_eq!((&found.http, &found.https, found.none.as_deref()), (&one, &one, Some("a.example")));
        let lower = [("http_proxy", "other:2"), ("no_proxy", "*")];
        let found = proxies(&[&both[..], &lower].concat());
        assert_eq!((&found.http, &found.https, found.none.as_deref()), (&other, &one, Some("*")));
        assert_eq!(proxies(&[("HTTP_PROXY", "one:1"), ("LATENTD_NET__HTTP_PROXY", "other:2")]).http, other);
        let error = config(&[("https_proxy", "socks5://me:pa55@one")]).unwrap_err();
        assert!(error.contains("https_proxy") && error.contains("http or https URL of a proxy"), "{error}");
        assert!(!error.contains("pa55"), "{error}");
    }

    #[test]
    fn a_proxy_s_password_is_shown_to_nobody() {
        let config = config(&[("https_proxy", "http://me:pa55@one:1")]).unwrap();
        let shown = config.entries().iter().find(|entry| entry.key == "net.https_proxy").unwrap();
        assert_eq!(shown.value, "http://***@one:1");
        assert!(!format!("{config:?}").contains("pa55"));
    }
}
