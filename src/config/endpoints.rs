//! The endpoints of a gateway: one, or a list of them.

use std::time::Duration;

use figment::value::Value;
use serde::Deserialize;

use super::Reader;
use super::setting::Setting;
use crate::job::Contract;

/// Seconds that an attempt may take where neither job nor configuration says: those of the hosted platform.
const DEFAULT_EXECUTION_TIMEOUT: u64 = 600;

/// An endpoint that a gateway serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Its name in URLs.
    pub id: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Who works on its jobs.
    pub handler: HandlerKind,
    /// What its jobs may say, where the gateway does not know the models of its workers.
    pub contract: Contract,
    /// The memory of its workers' GPUs in GB, for workers that do not say; 0 if it is not known.
    pub gpu: u32,
    /// How long an attempt may take, if a job does not say.
    pub execution_timeout: Duration,
}

/// Whose workers an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandlerKind {
    /// Ours.
    Latentd,
    /// Somebody's own.
    External,
}

impl Setting for HandlerKind {
    const ALLOWED: &'static str = "latentd or external";
    fn read(value: &Value) -> Option<Self> {
        value.deserialize().ok()
    }
}

/// An entry of `[[endpoints]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointEntry {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    handler: Option<HandlerKind>,
    contract: Option<String>,
    #[serde(default)]
    gpu: u32,
    execution_timeout: Option<u64>,
}

impl EndpointEntry {
    fn contract(&self) -> Option<Contract> {
        self.contract.as_deref().map_or(Some(Contract::Sd1), Contract::from_name)
    }
}

impl Setting for Vec<EndpointEntry> {
    const ALLOWED: &'static str = "tables with an id and, if need be, aliases, handler (\"latentd\" or \"external\"), contract (\"sd1\", \
                                   \"sdxl\" or \"sdxl_turbo\"), gpu (GB) and execution_timeout (seconds, 5 to 604800)";
    fn read(value: &Value) -> Option<Self> {
        let listed: Self = value.deserialize().ok()?;
        let in_range = |time: u64| (5..=604_800).contains(&time);
        let right = |one: &EndpointEntry| one.execution_timeout.is_none_or(in_range) && one.contract().is_some();
        listed.iter().all(right).then_some(listed)
    }
}

impl Reader {
    /// At least one.
    pub(super) fn endpoints(&mut self) -> Option<Vec<EndpointConfig>> {
        let id: Option<String> = self.read("endpoint");
        let handler: Option<HandlerKind> = self.read("handler");
        let listed: Option<Vec<EndpointEntry>> = self.read("endpoints");
        let (id, handler, mut listed) = (id?, handler?, listed?);
        let key = if listed.is_empty() { "endpoint" } else { "endpoints" };
        if listed.is_empty() {
            listed.push(EndpointEntry { id, ..EndpointEntry::default() });
        }
        let mut names: Vec<&String> = listed.iter().flat_map(|one| one.aliases.iter().chain([&one.id])).collect();
        if let Some(odd) = names.iter().find(|name| !is_plain(name)) {
            self.refuse(key, format!("names of letters, digits, `-`, `_` and `.`, which {odd:?} is not"));
            return None;
        }
        names.sort();
        if let Some((twice, _)) = names.iter().zip(names.iter().skip(1)).find(|(one, next)| one == next) {
            self.refuse(key, format!("each name once, but {twice:?} is there twice"));
            return None;
        }
        let own =
            |one: &&EndpointEntry| one.contract.is_some() && one.handler.unwrap_or(handler) == HandlerKind::External;
        if let Some(odd) = listed.iter().find(own) {
            self.refuse(
                key,
                format!("a contract only for workers of latentd, which the handler of {:?} is not", odd.id),
            );
            return None;
        }
        let served = |one: EndpointEntry| EndpointConfig {
            contract: one.contract().unwrap_or(Contract::Sd1),
            handler: one.handler.unwrap_or(handler),
            execution_timeout: Duration::from_secs(one.execution_timeout.unwrap_or(DEFAULT_EXECUTION_TIMEOUT)),
            id: one.id,
            aliases: one.aliases,
            gpu: one.gpu,
        };
        Some(listed.into_iter().map(served).collect())
    }
}

/// Whether it can be a part of URLs, as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, Environment, Flags};

    fn read(text: &str) -> Result<Vec<EndpointConfig>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("latentd.toml");
        std::fs::write(&file, text).unwrap();
        let flags = Flags { file: Some(file), ..Flags::default() };
        let config = Config::load(&flags, &Environment::default());
        config.map(|config| config.gateway.endpoints).map_err(|faults| faults.to_string())
    }

    #[test]
    fn one_endpoint_needs_no_list() {
        let [one] = &read("endpoint = 'sd'\nhandler = 'external'").unwrap()[..] else { panic!("one") };
        assert_eq!((one.id.as_str(), one.handler, one.execution_timeout.as_secs()), ("sd", HandlerKind::External, 600));
    }

    #[test]
    fn a_list_says_what_it_says_and_the_rest_is_usual() {
        let listed = read(
            "handler = 'external'\n[[endpoints]]\nid = 'sd'\naliases = ['sd-1.5']\nhandler = 'latentd'\ncontract = 'sdxl'\ngpu = 24\nexecution_timeout = 60\n\
             [[endpoints]]\nid = 'other'",
        );
        let [first, second] = &listed.unwrap()[..] else { panic!("two") };
        let wanted = EndpointConfig {
            id: "sd".into(),
            aliases: vec!["sd-1.5".into()],
            handler: HandlerKind::Latentd,
            contract: Contract::Sdxl,
            gpu: 24,
            execution_timeout: Duration::from_mins(1),
        };
        assert_eq!(first, &wanted);
        assert_eq!((second.id.as_str(), second.handler, second.gpu), ("other", HandlerKind::External, 0));
        assert_eq!(second.contract, Contract::Sd1);
    }

    #[test]
    fn names_are_of_urls_and_of_one_endpoint_each() {
        for (text, why) in [
            ("endpoint = 'a/b'", "which \"a/b\" is not"),
            ("endpoint = 'ä'", "which \"ä\" is not"),
            ("[[endpoints]]\nid = 'a'\n[[endpoints]]\nid = 'b'\naliases = ['a']", "\"a\" is there twice"),
            ("[[endpoints]]\nid = 'a'\nexecution_timeout = 4", "5 to 604800"),
            ("[[endpoints]]\nname = 'a'", "tables with an id"),
            ("[[endpoints]]\nid = 'a'\ncontract = 'sd9'", "contract (\"sd1\", \"sdxl\" or \"sdxl_turbo\")"),
            ("[[endpoints]]\nid = 'a'\nhandler = 'external'\ncontract = 'sdxl'", "the handler of \"a\" is not"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
