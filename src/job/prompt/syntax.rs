//! The two ways to read a prompt.

/// How a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PromptSyntax {
    /// As text, cut at what the text encoder takes.
    #[default]
    Plain,
    /// By the rules of AUTOMATIC1111's WebUI: weights, `BREAK`, and as many tokens as there are.
    Weighted,
}

impl PromptSyntax {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Weighted];

    /// That of this name, letter for letter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|syntax| syntax.name() == name)
    }

    /// What a job calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Weighted => "weighted",
        }
    }
}
