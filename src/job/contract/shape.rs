//! What the result of a job looks like.

/// What the result of a job looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputShape {
    /// A list of `{"image", "seed"}`; an image is a PNG in base64, or a link.
    List,
    /// `{"image_url", "images", "seed", "seeds"}`: the first image and its seed, and all of them; an image is a PNG as a data URI, or a link.
    Object,
    /// `{"generation_time", "images", "parameters"}`: the seconds of the drawing, a list of `{"image", "seed"}`, and what was asked for; an image
    /// is a PNG in base64, or a link.
    Generation,
}

impl OutputShape {
    /// What stands before the base64 of a PNG.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::List | Self::Generation => "",
            Self::Object => "data:image/png;base64,",
        }
    }
}
