//! The configuration: flags, variables, file and defaults become one checked value that knows where each part came from.

mod cuda;
mod delivery;
mod endpoints;
mod entry;
mod environment;
mod error;
mod gateway;
mod hub;
mod hub_cache;
mod layers;
mod loras;
mod model;
mod model_entry;
mod models;
mod network;
mod operator;
mod queue;
mod reader;
mod secret;
mod setting;
pub mod weights;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

pub use cuda::{AttentionBackend, CudaConfig, OffloadSetting};
pub use delivery::{BucketConfig, BucketName, ObjectPath, SpoolConfig, WebhookConfig};
pub use endpoints::{EndpointConfig, HandlerKind};
pub use entry::Entry;
pub use environment::Environment;
pub use error::{ConfigError, ConfigFault};
pub use gateway::{GatewayConfig, Hosts, Limit, Origins, StoreLocation};
pub use hub::HubConfig;
pub use layers::Flags;
pub use model::ModelPath;
pub use models::{FoundModel, ServedModel};
pub use network::NetConfig;
pub use operator::{AdminConfig, FitnessConfig};
pub use queue::QueueConfig;
pub use secret::{RedactedUrl, Secret, SigningKey};
pub use setting::{Device, Dtype, LogFormat, LogLevel, WebhookDelivery};
pub use worker::WorkerConfig;

use reader::Reader;

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where models have names.
    pub models_dir: PathBuf,
    /// Where the Hugging Face tools may have laid models.
    hub_caches: Vec<PathBuf>,
    /// Where LoRA files lie, if anywhere.
    pub lora_dir: Option<PathBuf>,
    /// Where textual inversions lie; `None` is nowhere.
    pub embeddings_dir: Option<PathBuf>,
    /// Where to compute.
    pub device: Device,
    /// What to compute in.
    pub dtype: Dtype,
    /// How a GPU is used.
    pub cuda: CudaConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// What images that jobs name may cost.
    pub images: ImageLimits,
    /// Who may be called for jobs.
    pub net: NetConfig,
    /// Where models are pulled from.
    pub hub: HubConfig,
    /// How the worker behaves.
    pub worker: WorkerConfig,
    /// What is kept on disk until it has arrived.
    pub spool: SpoolConfig,
    /// How webhooks are delivered.
    pub webhook: WebhookConfig,
    /// Where images go, if not into results.
    pub bucket: Option<BucketConfig>,
    /// What the endpoint serves, and to whom.
    pub gateway: GatewayConfig,
    /// Where the process tells how it is.
    pub admin: AdminConfig,
    /// What is asked of the machine before the first job is taken.
    pub fitness: FitnessConfig,
    /// The collector of traces, if there is one.
    pub otlp_endpoint: Option<RedactedUrl>,
    queue: Option<RedactedUrl>,
    runpod: worker::RunPodConfig,
    model: String,
    refiner: Option<String>,
    listed: Vec<model_entry::ModelEntry>,
    models_memory: Option<u64>,
    entries: Vec<Entry>,
}

/// What is logged and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// How much.
    pub level: LogLevel,
    /// As JSON rather than as text.
    pub json: bool,
    /// Whether prompts may be logged.
    pub prompts: bool,
}

/// What an image that a job names may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of the file.
    pub max_bytes: u64,
    /// Pixels before it is resized.
    pub max_pixels: u64,
    /// Time to fetch it.
    pub timeout: Duration,
}

impl Config {
    /// Merges and checks all layers.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let merged = layers::merge(flags, environment, &mut faults);
        let mut reader = Reader::new(merged, faults);
        let config = reader.config(environment);
        let (entries, faults) = reader.end();
        match config {
            Some(config) if faults.is_empty() => Ok(Self { entries, ..config }),
            _ => Err(ConfigError(faults)),
        }
    }

    /// Every setting with where it came from.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The model to draw with.
    ///
    /// # Errors
    /// There is none by that name or at that path.
    pub fn model(&self) -> Result<ModelPath, ConfigError> {
        ModelPath::find(&self.model, &self.models_dir, &self.hub_caches).ok_or_else(|| {
            let models = match ModelPath::names(&self.models_dir).as_slice() {
                [] => "which has none".to_owned(),
                names => names.join(", "),
            };
            let folder = self.models_dir.display();
            let allowed = format!("a folder, a .safetensors file, a name under {folder} ({models}), or OWNER/NAME in the cache of the Hugging Face tools");
            self.refuse("model", format!("{allowed}; `latentd model pull` fetches others"))
        })
    }

    /// Names of the LoRA files that lie in `lora_dir` now.
    ///
    /// # Errors
    /// It is set and cannot be read.
    pub fn loras(&self) -> Result<Vec<String>, ConfigError> {
        let Some(folder) = &self.lora_dir else { return Ok(Vec::new()) };
        loras::names(folder).map_err(|cause| self.refuse("lora_dir", format!("a folder that can be read ({cause})")))
    }

    /// The fault of a setting that became one only when it was used.
    fn refuse(&self, key: &str, allowed: String) -> ConfigError {
        ConfigError(vec![ConfigFault::of(&self.entries, key, allowed)])
    }
}

impl Reader {
    /// The configuration without its entries; `None` comes with a fault.
    fn config(&mut self, environment: &Environment) -> Option<Config> {
        // All are read before any may end this: all faults are told at once.
        let (model, models_dir) = (self.read("model"), self.folder("models_dir", environment::default_models_dir));
        let refiner = self.read("refiner");
        let (listed, models_memory) = (self.read("models"), self.read("models_memory"));
        let (lora_dir, embeddings_dir) = (self.read("lora_dir"), self.read("embeddings_dir"));
        let queue = self.read("queue");
        let (device, dtype, cuda) = (self.read("device"), self.read("dtype"), self.cuda());
        let (log, images, net) = (self.log(environment), self.images(), self.net());
        let (hub, worker, runpod) = (self.hub(environment), self.worker(), self.runpod());
        let (spool, webhook, bucket) = (self.spool(environment), self.webhooks(), self.bucket());
        let gateway = self.gateway(environment);
        let (admin, fitness, otlp_endpoint) = (self.admin(), self.fitness(), self.read("telemetry.otlp_endpoint"));
        Some(Config {
            models_dir: models_dir?,
            hub_caches: hub_cache::folders(environment),
            lora_dir: lora_dir?,
            embeddings_dir: embeddings_dir?,
            device: device?,
            dtype: dtype?,
            cuda: cuda?,
            log: log?,
            images: images?,
            net: net?,
            hub: hub?,
            worker: worker?,
            spool: spool?,
            webhook: webhook?,
            bucket: bucket?,
            gateway: gateway?,
            admin: admin?,
            fitness: fitness?,
            otlp_endpoint: otlp_endpoint?,
            queue: queue?,
            runpod: runpod?,
            model: model?,
            refiner: refiner?,
            listed: listed?,
            models_memory: models_memory?,
            entries: Vec::new(),
        })
    }

    fn log(&mut self, environment: &Environment) -> Option<LogConfig> {
        let (level, format, prompts) = (self.read("log.level"), self.read("log.format"), self.read("log.prompts"));
        let json = match format? {
            LogFormat::Auto => environment.get("RUNPOD_ENDPOINT_ID").is_some(),
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        Some(LogConfig { level: level?, json, prompts: prompts? })
    }

    fn images(&mut self) -> Option<ImageLimits> {
        let (max_bytes, max_pixels) = (self.read("images.max_bytes"), self.read("images.max_pixels"));
        let timeout = self.read("images.timeout");
        Some(ImageLimits { max_bytes: max_bytes?, max_pixels: max_pixels?, timeout: timeout? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn load(settings: &[(&'static str, &str)], file: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        fs::write(&path, file).unwrap();
        let settings = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let loaded = Config::load(&Flags { file: Some(path.clone()), settings }, &environment(variables));
        loaded.map_err(|error| error.to_string().replace(path.to_str().unwrap(), "my.toml"))
    }

    fn source(config: &Config, key: &str) -> String {
        let entry = config.entries().iter().find(|entry| entry.key == key).unwrap();
        entry.source.rsplit('/').next().unwrap().to_owned()
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = load(&[], "", &[]).unwrap();
        assert_eq!((config.device, config.dtype), (Device::Auto, Dtype::Auto));
        assert_eq!((config.cuda.graphs, config.cuda.kernels), (true, true));
        assert_eq!((&config.cuda.helper, config.cuda.folders.len()), (&None, 2));
        assert_eq!(config.log, LogConfig { level: LogLevel::Info, json: false, prompts: false });
        assert!(config.models_dir.ends_with("models"));
        let timeout = Duration::from_secs(30);
        assert_eq!(config.images, ImageLimits { max_bytes: 20 << 20, max_pixels: 50_000_000, timeout });
        assert_eq!(config.net.allow_private, []);
        assert_eq!(config.model, "emoji");
        assert_eq!((config.loras().unwrap(), &config.lora_dir), (vec![], &None));
        assert!(config.entries().iter().all(|entry| entry.source == "default"));
    }

    #[test]
    fn every_key_of_the_default_file_is_read() {
        let mut read: Vec<String> = load(&[], "", &[]).unwrap().entries.into_iter().map(|entry| entry.key).collect();
        read.sort();
        assert_eq!(read, layers::default_keys());
    }

    #[test]
    fn the_nearest_layer_wins() {
        let file = "[log]\nlevel = 'warn'\n";
        let runpod = ("RUNPOD_LOG_LEVEL", "ERROR");
        let older = ("RUNPOD_DEBUG_LEVEL", "DEBUG");
        let ours = ("LATENTD_LOG__LEVEL", "trace");
        for (flags, file, variables, level, from) in [
            (&[][..], "", &[][..], LogLevel::Info, "default"),
            (&[], file, &[], LogLevel::Warn, "my.toml"),
            (&[], file, &[older], LogLevel::Debug, "RUNPOD_DEBUG_LEVEL"),
            (&[], file, &[older, runpod], LogLevel::Error, "RUNPOD_LOG_LEVEL"),
            (&[], file, &[older, runpod, ours], LogLevel::Trace, "LATENTD_LOG__LEVEL"),
            (&[("log.level", "off")], file, &[older, runpod, ours], LogLevel::Off, "--log-level"),
        ] {
            let config = load(flags, file, variables).unwrap();
            assert_eq!((config.log.level, source(&config, "log.level").as_str()), (level, from));
        }
    }

    #[test]
    fn the_sdk_s_switch_allows_every_address_unless_we_are_told_which() {
        let name = "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS";
        let allowed = |variables: &[(&str, &str)], file: &str| {
            load(&[], file, variables).unwrap().net.allow_private.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for yes in ["1", "true", "YES"] {
            assert_eq!(allowed(&[(name, yes)], ""), ["0.0.0.0/0", "::/0"], "{yes}");
        }
        for no in ["0", "false", "on"] {
            assert_eq!(allowed(&[(name, no)], ""), [""; 0], "{no}");
        }
        let file = "[net]\nallow_private = ['10.0.0.0/8']\n";
        assert_eq!(allowed(&[(name, "no")], file), ["10.0.0.0/8"]);
        assert_eq!(allowed(&[(name, "1"), ("LATENTD_NET__ALLOW_PRIVATE", "::1/128")], file), ["::1/128"]);
    }

    #[test]
    fn a_file_changes_only_what_it_names() {
        let config = load(&[], "device = 'cpu'\nlog.prompts = true\n[log]\n", &[]);
        assert!(config.unwrap_err().starts_with("my.toml is not valid TOML: "), "a table twice");
        let config = load(&[], "device = 'cpu'\n[log]\nprompts = true\n", &[]).unwrap();
        assert_eq!(config.device, Device::Cpu);
        assert_eq!(config.log, LogConfig { level: LogLevel::Info, json: false, prompts: true });
    }

    #[test]
    fn all_faults_come_at_once_and_say_all() {
        let file = "dtype = 'f64'\nmodel = 5\nthreads = 2\n'log.level' = 'info'\n[log]\nprompts = 'yes'\n";
        let variables = [("LATENTD_DEVISE", "cpu"), ("LATENTD_LOG", "info"), ("RUNPOD_LOG_LEVEL", "LOUD")];
        let faults = load(&[("device", "gpu")], file, &variables).unwrap_err();
        assert_eq!(
            faults.lines().collect::<Vec<_>>(),
            [
                r#""log.level" (from my.toml) is no setting; did you mean log.level?"#,
                "threads (from my.toml) is no setting; `latentd config show` lists them all",
                "devise (from LATENTD_DEVISE) is no setting; did you mean device?",
                "log (from LATENTD_LOG) is no setting; `latentd config show` lists them all",
                "model = 5 (from my.toml) is not possible: use a text that is not empty",
                r#"device = "gpu" (from --device) is not possible: use auto, cpu, cuda, cuda:N or cuda:all"#,
                r#"dtype = "f64" (from my.toml) is not possible: use auto, f32, bf16 or f16"#,
                r#"log.level = "LOUD" (from RUNPOD_LOG_LEVEL) is not possible: use notset, trace, debug, info, warn, error or off"#,
                r#"log.prompts = "yes" (from my.toml) is not possible: use true or false"#,
            ]
        );
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let named = environment(&[("LATENTD_CONFIG", "/nowhere/latentd.toml")]);
        let error = Config::load(&Flags::default(), &named).unwrap_err().to_string();
        assert!(
            error.starts_with("the configuration file /nowhere/latentd.toml (from LATENTD_CONFIG) cannot be read: ")
        );
    }

    #[test]
    fn empty_variables_are_none() {
        let variables = [("LATENTD_DEVICE", ""), ("RUNPOD_LOG_LEVEL", ""), ("LATENTD_NOTHING", "")];
        assert_eq!(load(&[], "", &variables).unwrap().device, Device::Auto);
    }

    #[test]
    fn logs_are_json_on_an_endpoint_unless_told_otherwise() {
        let endpoint = [("RUNPOD_ENDPOINT_ID", "ep1")];
        assert!(load(&[], "", &endpoint).unwrap().log.json);
        assert!(!load(&[("log.format", "text")], "", &endpoint).unwrap().log.json);
        assert!(load(&[("log.format", "json")], "", &[]).unwrap().log.json);
    }

    #[test]
    fn the_sdk_s_limits_for_a_machine_hold() {
        let fitness = |variables: &[(&str, &str)]| load(&[], "", variables).unwrap().fitness;
        let usual = FitnessConfig { machine: true, min_memory: None, min_disk: None };
        assert_eq!(fitness(&[("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "false")]), usual);
        assert_eq!(fitness(&[("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "True")]), FitnessConfig { machine: false, ..usual });
        let limits = [("RUNPOD_MIN_MEMORY_GB", "4.5"), ("RUNPOD_MIN_DISK_PERCENT", "0")];
        assert_eq!(fitness(&limits), FitnessConfig { min_memory: Some(4.5), min_disk: Some(0.0), ..usual });
        let ours = [limits[0], ("LATENTD_FITNESS__MIN_MEMORY", "auto")];
        assert_eq!(fitness(&ours), usual);
        let wrong = load(&[], "", &[("RUNPOD_MIN_MEMORY_GB", "much")]).unwrap_err();
        assert!(wrong.contains("fitness.min_memory = \"much\" (from RUNPOD_MIN_MEMORY_GB)"), "{wrong}");
    }

    #[test]
    fn a_queue_is_named_by_its_base_or_by_templates_that_win() {
        let base = ("LATENTD_QUEUE", "http://h:8000/v2/e/");
        let queue = load(&[], "", &[base]).unwrap().queue().unwrap();
        assert_eq!(&*queue.take, "http://h:8000/v2/e/job-take/$ID");
        assert_eq!(&*queue.done, "http://h:8000/v2/e/job-done/$RUNPOD_POD_ID/$ID");
        assert_eq!(queue.stream.as_deref(), Some("http://h:8000/v2/e/job-stream/$RUNPOD_POD_ID/$ID"));
        assert_eq!(queue.ping.as_deref(), Some("http://h:8000/v2/e/ping/$RUNPOD_POD_ID"));
        assert_eq!((queue.interval, queue.key, queue.worker), (Duration::from_secs(10), None, None));

        let own = [
            base,
            ("RUNPOD_WEBHOOK_GET_JOB", "http://a/$ID"),
            ("RUNPOD_WEBHOOK_JOB_STREAM", "http://old"),
            ("RUNPOD_PING_INTERVAL", "500"),
            ("RUNPOD_AI_API_KEY", "s3cret"),
            ("RUNPOD_POD_ID", "pod"),
        ];
        let config = load(&[], "", &own).unwrap();
        let queue = config.queue().unwrap();
        assert_eq!((&*queue.take, queue.stream.as_deref()), ("http://a/$ID", Some("http://old")));
        assert_eq!(&*queue.done, "http://h:8000/v2/e/job-done/$RUNPOD_POD_ID/$ID");
        assert_eq!((queue.interval, queue.worker.as_deref()), (Duration::from_secs(1), Some("pod")));
        assert_eq!(queue.key.as_ref().map(Secret::reveal), Some("s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
        let key = config.entries().iter().find(|entry| entry.key == "runpod.api_key").unwrap();
        assert_eq!((&key.value, key.source.as_str()), (&"hidden".into(), "RUNPOD_AI_API_KEY"));
    }

    #[test]
    fn a_queue_that_is_no_url_is_refused_by_name() {
        let why = load(&[], "", &[("LATENTD_QUEUE", "hello")]).unwrap().queue().unwrap_err().to_string();
        assert!(why.starts_with("queue = \"hello\"") && why.contains("a URL of http or https"), "{why}");
    }

    #[test]
    fn a_password_in_a_url_is_used_and_not_shown() {
        let url = |path: &str| format!("http://me:s3cret@h:1/{path}?gpu=x&token=s3cret");
        let (take, done, ping) = (url("job-take/$ID"), url("job-done/$ID"), url("ping"));
        let variables = [
            ("LATENTD_QUEUE", "http://me:s3cret@h:1/v2/e"),
            ("RUNPOD_WEBHOOK_GET_JOB", take.as_str()),
            ("RUNPOD_WEBHOOK_POST_OUTPUT", &done),
            ("RUNPOD_WEBHOOK_PING", &ping),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:s3cret@collector:4318"),
        ];
        let config = load(&[], "", &variables).unwrap();
        let queue = config.queue().unwrap();
        assert_eq!((&*queue.take, queue.ping.as_deref()), (take.as_str(), Some(ping.as_str())));
        assert_eq!(queue.stream.as_deref(), Some("http://me:s3cret@h:1/v2/e/job-stream/$RUNPOD_POD_ID/$ID"));
        assert!(!format!("{config:?} {queue:?}").contains("s3cret"), "{config:?} {queue:?}");
        let shown = |key: &str| config.entries().iter().find(|entry| entry.key == key).unwrap().value.clone();
        assert_eq!(shown("runpod.get_job"), "http://***@h:1/job-take/$ID?gpu=x&token=***");
        assert_eq!(
            (shown("queue"), shown("telemetry.otlp_endpoint")),
            ("http://***@h:1/v2/e".into(), "http://***@collector:4318".into())
        );
        // Nor where it is at fault.
        let half = load(&[], "", &[("RUNPOD_WEBHOOK_POST_OUTPUT", &done)]).unwrap();
        assert!(!half.queue().unwrap_err().to_string().contains("s3cret"));
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_without_its_lines() {
        let fault = load(&[], "[runpod]\napi_key = \"s3cret\nping = \"http://me:s3cret@h\"", &[]).unwrap_err();
        assert!(fault.starts_with("my.toml is not valid TOML: ") && fault.contains("line 2"), "{fault}");
        assert!(!fault.contains("s3cret"), "{fault}");
    }

    #[test]
    fn a_worker_needs_a_queue_to_take_from_and_to_answer() {
        let fault = |variables: &[(&str, &str)]| load(&[], "", variables).unwrap().queue().unwrap_err().to_string();
        assert!(fault(&[]).contains("LATENTD_QUEUE"));
        assert!(fault(&[("RUNPOD_WEBHOOK_GET_JOB", "http://a/$ID")]).contains("RUNPOD_WEBHOOK_POST_OUTPUT must be"));
        let wrong = [("RUNPOD_PING_INTERVAL", "often"), ("LATENTD_WORKER__CONCURRENCY", "0")];
        let faults = load(&[], "[worker]\ndrain = -1\n", &wrong).unwrap_err();
        for fault in ["runpod.ping_interval = \"often\"", "worker.concurrency = \"0\"", "worker.drain = -1"] {
            assert!(faults.contains(fault), "{faults}");
        }
    }

    #[test]
    fn what_is_kept_lies_in_the_folder_for_data() {
        let dir = |variables: &[(&str, &str)]| load(&[], "", variables).unwrap().spool.dir.display().to_string();
        assert_eq!(dir(&[("XDG_DATA_HOME", "/data"), ("HOME", "/me")]), "/data/latentd/spool");
        assert_eq!(dir(&[("HOME", "/me")]), "/me/.local/share/latentd/spool");
        assert_eq!(dir(&[("HOME", "me"), ("XDG_DATA_HOME", "data")]), "/var/lib/latentd/spool");
        assert_eq!(dir(&[("HOME", "/me"), ("LATENTD_SPOOL__DIR", "here")]), "here");
        let shown = load(&[], "", &[("HOME", "/me")]).unwrap();
        let shown = shown.entries().iter().find(|entry| entry.key == "spool.dir").unwrap();
        assert_eq!(shown.value, "/me/.local/share/latentd/spool");
    }

    #[test]
    fn a_bucket_has_an_endpoint_and_both_keys() {
        let all = [
            ("BUCKET_ENDPOINT_URL", "https://s3.eu-west-1.amazonaws.com"),
            ("BUCKET_ACCESS_KEY_ID", "AKs3cret"),
            ("BUCKET_SECRET_ACCESS_KEY", "s3cret"),
        ];
        let config = load(&[], "[bucket]\nname = 'pics'\n", &all).unwrap();
        let bucket = config.bucket.clone().unwrap();
        assert_eq!(
            (bucket.endpoint_url.as_str(), bucket.name),
            ("https://s3.eu-west-1.amazonaws.com/", BucketName::parse("pics"))
        );
        assert_eq!((bucket.access_key_id.reveal(), bucket.secret_access_key.reveal()), (all[1].1, all[2].1));
        assert_eq!(source(&config, "bucket.secret_access_key"), "BUCKET_SECRET_ACCESS_KEY");
        assert!(!format!("{config:?}").contains("s3cret"));
        for absent in 0..3 {
            let some: Vec<_> =
                all.into_iter().enumerate().filter(|(at, _)| *at != absent).map(|(_, set)| set).collect();
            let error = load(&[], "", &some).unwrap_err();
            let key = ["endpoint_url", "access_key_id", "secret_access_key"][absent];
            assert!(error.starts_with(&format!("bucket.{key} = \"\" (from default) is not possible")), "{error}");
            assert!(error.lines().count() == 1 && !error.contains("s3cret"), "{error}");
        }
        assert_eq!(load(&[], "", &[]).unwrap().bucket, None);
        for (key, value, shown) in [
            ("endpoint_url", "minio:9000", "\"minio:9000\""),
            ("endpoint_url", "https://me:s3cret@h", "\"hidden\""),
            ("name", "pics/../others", "\"pics/../others\""),
        ] {
            let error =
                load(&[], &format!("[bucket]\n{key} = '{value}'\n"), &all[usize::from(key == "endpoint_url")..]);
            let error = error.unwrap_err();
            assert!(error.starts_with(&format!("bucket.{key} = {shown} (from my.toml) is not possible")), "{error}");
        }
    }

    #[test]
    fn webhooks_are_told_from_each_other_and_their_key_is_checked() {
        let webhook = load(&[], "", &[]).unwrap().webhook;
        assert_eq!((webhook.deliver, webhook.attempts, webhook.secret), (WebhookDelivery::Auto, 3, None));
        assert_eq!(webhook.platform_hosts, ["api.runpod.ai"]);
        let own =
            [("LATENTD_WEBHOOK__PLATFORM_HOSTS", "a.example, b.example:8000"), ("LATENTD_WEBHOOK__DELIVER", "off")];
        let webhook = load(&[], "", &own).unwrap().webhook;
        assert_eq!(
            (webhook.deliver, webhook.platform_hosts),
            (WebhookDelivery::Off, vec!["a.example".into(), "b.example:8000".into()])
        );
        let error = load(&[], "[webhook]\nsecret = 's3cret'\n", &[]).unwrap_err();
        assert!(error.contains("webhook.secret = \"hidden\"") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_model_that_is_not_there_is_told_with_those_that_are() {
        let models_dir = tempfile::tempdir().unwrap();
        let at = models_dir.path().to_str().unwrap();
        let error =
            || load(&[("models_dir", at), ("model", "none")], "", &[]).unwrap().model().unwrap_err().to_string();
        let expected = |names: &str| {
            format!(
                "model = \"none\" (from --model) is not possible: \
                 use a folder, a .safetensors file, a name under {at} ({names}), \
                 or OWNER/NAME in the cache of the Hugging Face tools; `latentd model pull` fetches others"
            )
        };
        assert_eq!(error(), expected("which has none"));
        fs::create_dir_all(models_dir.path().join("tiny/unet")).unwrap();
        assert_eq!(error(), expected("tiny"));
    }

    #[test]
    fn a_model_may_be_one_that_other_tools_have_downloaded() {
        let cache = tempfile::tempdir().unwrap();
        let snapshot = cache.path().join("models--o--painter/snapshots/c1");
        fs::create_dir_all(snapshot.join("unet")).unwrap();
        let variables = [("HF_HUB_CACHE", cache.path().to_str().unwrap()), ("LATENTD_MODEL", "o/painter")];
        let config = load(&[], "[[models]]\nname = 'second'\npath = 'o/painter@c1'", &variables).unwrap();
        let models = config.models().unwrap();
        assert_eq!(models.iter().map(|served| served.model.name.as_str()).collect::<Vec<_>>(), ["painter", "second"]);
        assert!(models.iter().all(|served| served.model.path == snapshot));
    }

    #[test]
    fn a_lora_is_on_offer_as_soon_as_its_file_is_there() {
        let lora_dir = tempfile::tempdir().unwrap();
        let at = lora_dir.path().to_str().unwrap();
        let config = load(&[("lora_dir", at)], "", &[]).unwrap();
        assert_eq!(config.loras().unwrap(), [""; 0]);
        fs::write(lora_dir.path().join("ink.safetensors"), "").unwrap();
        assert_eq!(config.loras().unwrap(), ["ink"]);
    }

    #[test]
    fn a_folder_of_loras_that_is_not_there_is_told() {
        let config = load(&[], "lora_dir = '/nowhere'", &[]).unwrap();
        let error = config.loras().unwrap_err().to_string();
        assert!(error.starts_with("lora_dir = \"/nowhere\" (from ") && error.contains("No such file"), "{error}");
    }
}
