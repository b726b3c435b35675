//! Prompts as people write them: emphasis, BREAK, and what is read as text.

mod brackets;
mod emphasis;
mod syntax;
mod told;

pub use emphasis::{Emphasized, WeightError, emphasized};
pub use syntax::PromptSyntax;
pub use told::warnings;
