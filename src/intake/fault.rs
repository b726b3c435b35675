//! What is wrong with a file that should be an image.

/// Why a file is no image that a job can begin from.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ImageFault {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// Not base64, though its letters are.
    #[error("it is not valid base64: {0}")]
    Base64(String),
    /// An inline file beyond the limit.
    #[error("the file has more than {0} bytes (images.max_bytes)")]
    TooLarge(u64),
    /// A file of another kind.
    #[error("it is no PNG, JPEG or WebP file but {0}")]
    Kind(&'static str),
    /// More pixels than allowed.
    #[error("it has {width} x {height} pixels, more than {most} (images.max_pixels)")]
    Pixels {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
        /// How many there may be.
        most: u64,
    },
    /// A side that no picture has.
    #[error("it has {width} x {height} pixels, and a side has 1 to {most}")]
    Side {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
        /// How many a side may have.
        most: u32,
    },
    /// The end is missing.
    #[error("the file is cut short")]
    Truncated,
    /// What the decoder says.
    #[error("the file is damaged: {0}")]
    Broken(String),
}
