//! How a job may have its steps spread over the noise levels, whatever the model's scheduler file says.

/// How steps are spread over the noise levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SigmaSpacing {
    /// As the model's scheduler file says, else as the sampler has it.
    #[default]
    Default,
    /// From the last training timestep down, in even strides (diffusers' `timestep_spacing="trailing"`): what Lightning, Hyper and Turbo were
    /// distilled for.
    SgmUniform,
}

impl SigmaSpacing {
    /// Every spacing.
    pub const ALL: &[Self] = &[Self::Default, Self::SgmUniform];

    /// What jobs call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::SgmUniform => "sgm_uniform",
        }
    }

    /// The spacing of this name, letter for letter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|spacing| spacing.name() == name)
    }
}
