//! Why a job failed, as a word for programs.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// Why a job failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// The word.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

codes! {
    /// The worker met a bug in itself.
    Bug = "bug";
    /// The client or a signal ended it.
    Cancelled = "cancelled";
    /// An embedding that its prompt names cannot be used.
    EmbeddingFailed = "embedding_failed";
    /// An image cannot be made a PNG file.
    EncodeFailed = "encode_failed";
    /// The engine met an error while it drew.
    EngineError = "engine_error";
    /// The engine was lost under it; another can run it again.
    EngineLost = "engine_lost";
    /// An image that it names cannot be fetched.
    ImageFetchFailed = "image_fetch_failed";
    /// An image that it names cannot be read.
    ImageInvalid = "image_invalid";
    /// Its input is not what its contract takes.
    InvalidInput = "invalid_input";
    /// The bucket that it names cannot be used.
    InvalidS3Config = "invalid_s3_config";
    /// Its LoRA cannot be used.
    LoraFailed = "lora_failed";
    /// There is no engine for its model.
    NoEngine = "no_engine";
    /// It could not even be read.
    NoJob = "no_job";
    /// This build has no engine.
    NotBuilt = "not_built";
    /// Its picture has values that are no numbers.
    NotFinite = "not_finite";
    /// Memory does not suffice.
    OutOfMemory = "out_of_memory";
    /// An image cannot be put into its bucket.
    UploadFailed = "upload_failed";
    /// Its images cannot be written to files.
    WriteFailed = "write_failed";
}

/// The word.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
