//! The values that settings can have.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use ipnet::IpNet;

/// A type of value that a setting can have.
pub(super) trait Setting: Sized {
    /// What may be written, for people.
    const ALLOWED: &'static str;
    /// Reads what was written; variables and flags are always text.
    fn read(value: &Value) -> Option<Self>;
    /// What people see of what was written.
    fn show(value: &Value) -> serde_json::Value {
        serde_json::to_value(value).unwrap_or_default()
    }
}

impl Setting for String {
    const ALLOWED: &'static str = "a text that is not empty";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().filter(|text| !text.is_empty()).map(Self::from)
    }
}

impl Setting for Option<String> {
    const ALLOWED: &'static str = "a text, or an empty one for none";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(|text| (!text.is_empty()).then(|| text.into()))
    }
}

impl Setting for Option<PathBuf> {
    const ALLOWED: &'static str = "a folder, or an empty text for none";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(|text| (!text.is_empty()).then(|| text.into()))
    }
}

impl Setting for bool {
    const ALLOWED: &'static str = "true or false";
    fn read(value: &Value) -> Option<Self> {
        value.to_bool().or_else(|| value.as_str()?.parse().ok())
    }
}

impl Setting for u64 {
    const ALLOWED: &'static str = "a whole number above 0";
    fn read(value: &Value) -> Option<Self> {
        let number = whole(value).and_then(|number| number.try_into().ok());
        number.or_else(|| value.as_str()?.parse().ok()).filter(|number| *number > 0)
    }
}

/// The number that was written without a fraction.
fn whole(value: &Value) -> Option<i128> {
    value.to_i128().or_else(|| value.to_u128()?.try_into().ok())
}

impl Setting for Duration {
    const ALLOWED: &'static str = "a number of seconds above 0";
    fn read(value: &Value) -> Option<Self> {
        let seconds = match value.as_str() {
            Some(text) => text.parse().ok()?,
            None => value.to_f64().or_else(|| Some(whole(value)? as f64))?,
        };
        Self::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
    }
}

/// A time that may have no end.
impl Setting for Option<Duration> {
    const ALLOWED: &'static str = "a number of seconds above 0, or off";
    fn read(value: &Value) -> Option<Self> {
        if value.as_str() == Some("off") { Some(None) } else { Duration::read(value).map(Some) }
    }
}

/// A number that may be left to us.
impl Setting for Option<u64> {
    const ALLOWED: &'static str = "a whole number above 0, or auto";
    fn read(value: &Value) -> Option<Self> {
        if value.as_str() == Some("auto") { Some(None) } else { u64::read(value).map(Some) }
    }
}

/// An amount that may be left to us.
impl Setting for Option<f64> {
    const ALLOWED: &'static str = "a number, 0 or above, or auto";
    fn read(value: &Value) -> Option<Self> {
        let amount = match value.as_str() {
            Some("auto") => return Some(None),
            Some(text) => text.parse().ok()?,
            None => value.to_f64().or_else(|| Some(whole(value)? as f64))?,
        };
        (amount.is_finite() && amount >= 0.0).then_some(Some(amount))
    }
}

/// An address to listen on.
impl Setting for Option<SocketAddr> {
    const ALLOWED: &'static str = "an address and a port such as 127.0.0.1:9090, or off";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "off" => Some(None),
            address => address.parse().ok().map(Some),
        }
    }
}

/// An address that must be one.
impl Setting for SocketAddr {
    const ALLOWED: &'static str = "an address and a port such as 127.0.0.1:8000";
    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl Setting for Vec<String> {
    const ALLOWED: &'static str = "a list of texts that are not empty, in a text separated by commas";
    fn read(value: &Value) -> Option<Self> {
        let texts: Vec<&str> = match (value.as_array(), value.as_str()) {
            (Some(texts), _) => texts.iter().map(Value::as_str).collect::<Option<_>>()?,
            (None, Some(text)) => text.split(',').collect(),
            (None, None) => return None,
        };
        let texts = texts.into_iter().map(|text| text.trim().to_owned());
        texts.map(|text| (!text.is_empty()).then_some(text)).collect()
    }
}

impl Setting for Vec<IpNet> {
    const ALLOWED: &'static str = "a list of addresses and ranges such as 10.1.0.0/16, in a text separated by commas";
    fn read(value: &Value) -> Option<Self> {
        let range = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match (value.as_array(), value.as_str()) {
            (Some(ranges), _) => ranges.iter().map(|text| range(text.as_str()?)).collect(),
            (None, Some(text)) => text.split(',').map(|text| range(text.trim())).collect(),
            (None, None) => None,
        }
    }
}

/// Who delivers webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookDelivery {
    /// The queue where it does, else the worker.
    Auto,
    /// The worker.
    Worker,
    /// The queue.
    Gateway,
    /// Neither.
    Off,
}

impl Setting for WebhookDelivery {
    const ALLOWED: &'static str = "auto, worker, gateway or off";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "auto" => Some(Self::Auto),
            "worker" => Some(Self::Worker),
            "gateway" => Some(Self::Gateway),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The first GPU where there is one, else the processor.
    Auto,
    /// The processor, GPU or not.
    Cpu,
    /// The GPU of this number; without that GPU it is an error.
    Cuda(usize),
    /// All GPUs, for who can use several; else the first.
    AllCuda,
}

impl Setting for Device {
    const ALLOWED: &'static str = "auto, cpu, cuda, cuda:N or cuda:all";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            "cuda:all" => Some(Self::AllCuda),
            // `parse` alone would take `+1`.
            other => other
                .strip_prefix("cuda:")
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda),
        }
    }
}

/// What numbers are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// What suits the device.
    Auto,
    /// IEEE single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Setting for Dtype {
    const ALLOWED: &'static str = "auto, f32, bf16 or f16";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "auto" => Some(Self::Auto),
            "f32" => Some(Self::F32),
            "bf16" => Some(Self::Bf16),
            "f16" => Some(Self::F16),
            _ => None,
        }
    }
}

/// How much is logged. The words are those of the RunPod SDK, in any case, and `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything: `notset` and `trace`.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to see.
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong.
    Error,
    /// Nothing.
    Off,
}

impl Setting for LogLevel {
    const ALLOWED: &'static str = "notset, trace, debug, info, warn, error or off";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()?.to_ascii_lowercase().as_str() {
            "notset" | "trace" => Some(Self::Trace),
            "debug" => Some(Self::Debug),
            "info" => Some(Self::Info),
            "warn" => Some(Self::Warn),
            "error" => Some(Self::Error),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For machines on an endpoint, for people elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Setting for LogFormat {
    const ALLOWED: &'static str = "auto, text or json";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "auto" => Some(Self::Auto),
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<S: Setting>(text: &str) -> Option<S> {
        S::read(&Value::from(text))
    }

    #[test]
    fn devices_are_named_as_in_torch() {
        assert_eq!(read("auto"), Some(Device::Auto));
        assert_eq!(read("cpu"), Some(Device::Cpu));
        assert_eq!(read("cuda"), Some(Device::Cuda(0)));
        assert_eq!(read("cuda:3"), Some(Device::Cuda(3)));
        for wrong in ["", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:1x", "cuda:99999999999999999999", "mps"] {
            assert_eq!(read::<Device>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn levels_have_the_words_of_the_sdk_in_any_case() {
        let words = ["NOTSET", "trace", "Debug", "INFO", "warn", "ERROR", "off"];
        let levels = [
            LogLevel::Trace,
            LogLevel::Trace,
            LogLevel::Debug,
            LogLevel::Info,
            LogLevel::Warn,
            LogLevel::Error,
            LogLevel::Off,
        ];
        for (word, level) in words.into_iter().zip(levels) {
            assert_eq!(read(word), Some(level), "{word}");
        }
        assert_eq!(read::<LogLevel>("warning"), None);
    }

    #[test]
    fn a_folder_may_be_none() {
        assert_eq!(read::<Option<PathBuf>>(""), Some(None));
        assert_eq!(read("a/b"), Some(Some(PathBuf::from("a/b"))));
        assert_eq!(Option::<PathBuf>::read(&Value::from(false)), None);
    }

    #[test]
    fn numbers_are_above_zero() {
        assert_eq!((read("5"), u64::read(&Value::from(5))), (Some(5_u64), Some(5)));
        assert_eq!(
            (read("0.5"), Duration::read(&Value::from(2))),
            (Some(Duration::from_millis(500)), Some(Duration::from_secs(2)))
        );
        assert_eq!(Duration::read(&Value::from(1.5)), Some(Duration::from_millis(1500)));
        for wrong in ["0", "-1", "", "x", "1e400", "nan", "18446744073709551616000000"] {
            assert_eq!((read::<u64>(wrong), read::<Duration>(wrong)), (None, None), "{wrong}");
        }
        assert_eq!(
            (u64::read(&Value::from(-1)), u64::read(&Value::from(1.5)), u64::read(&Value::from(true))),
            (None, None, None)
        );
    }

    #[test]
    fn a_number_or_a_time_may_be_left_open() {
        assert_eq!([read("auto"), read("7")], [Some(None), Some(Some(7_u64))]);
        assert_eq!([read("off"), read("2")], [Some(None), Some(Some(Duration::from_secs(2)))]);
        assert_eq!((read::<Option<u64>>("off"), read::<Option<Duration>>("auto")), (None, None));
        assert_eq!((read::<Option<u64>>("0"), read::<Option<Duration>>("")), (None, None));
    }

    #[test]
    fn an_amount_may_be_zero_or_left_open() {
        assert_eq!([read("auto"), read("0"), read("2.5")], [Some(None), Some(Some(0.0)), Some(Some(2.5))]);
        assert_eq!(Option::<f64>::read(&Value::from(4)), Some(Some(4.0)));
        for wrong in ["", "-1", "inf", "nan", "4 GB"] {
            assert_eq!(read::<Option<f64>>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_is_named_with_its_address_or_off() {
        assert_eq!(read("off"), Some(None::<SocketAddr>));
        assert_eq!(read("[::1]:0"), Some(Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)))));
        for wrong in ["", "9090", ":9090", "localhost:9090", "127.0.0.1", "127.0.0.1:65536"] {
            assert_eq!(read::<Option<SocketAddr>>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn texts_come_as_a_list_or_a_text() {
        assert_eq!(read("a, b"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(Vec::read(&Value::from(vec!["a"])), Some(vec!["a".to_owned()]));
        assert_eq!(Vec::<String>::read(&Value::from(Vec::<String>::new())), Some(Vec::new()));
        for wrong in ["", "a,", "a,,b"] {
            assert_eq!(read::<Vec<String>>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ranges_of_addresses_come_as_a_list_or_a_text() {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().ok()).collect::<Option<Vec<IpNet>>>();
        assert_eq!(read("10.1.0.0/16, ::1"), ranges(&["10.1.0.0/16", "::1/128"]));
        assert_eq!(Vec::read(&Value::from(vec!["127.0.0.1"])), ranges(&["127.0.0.1/32"]));
        assert_eq!(Vec::<IpNet>::read(&Value::from(Vec::<String>::new())), Some(Vec::new()));
        for wrong in ["", "10.1.0.0/33", "localhost", "10.1.0.0/16 10.2.0.0/16", "10.1.0.0/16,"] {
            assert_eq!(read::<Vec<IpNet>>(wrong), None, "{wrong}");
        }
        assert_eq!(Vec::<IpNet>::read(&Value::from(vec![10])), None);
    }

    #[test]
    fn a_switch_is_a_boolean_or_its_name() {
        assert_eq!(bool::read(&Value::from(true)), Some(true));
        assert_eq!(read("false"), Some(false));
        assert_eq!(read::<bool>("yes"), None);
        assert_eq!(bool::read(&Value::from(1)), None);
    }
}
