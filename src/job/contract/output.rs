//! How the answer to a job looks.

use serde_json::{Value, json};

/// The shape of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A list of [`crate::job::Image`]: an object an image, with `image` (base64 or a URL) and `seed`.
    Images,
}

impl Output {
    /// Its JSON schema.
    pub fn schema(self) -> Value {
        match self {
            Self::Images => json!({
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["image", "seed"],
                    "properties": {
                        "image": { "description": "a PNG in base64, or a URL", "type": "string" },
                        "seed": { "description": "draws this image again", "type": "integer" },
                    },
                },
            }),
        }
    }
}
