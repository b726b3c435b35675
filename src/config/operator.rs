//! The part of the configuration that is for who watches the process.

use std::net::SocketAddr;

use super::Reader;

/// The admin port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens, if anywhere.
    pub listen: Option<SocketAddr>,
    /// Whether somebody asked for it, who must then be told if it cannot be.
    pub asked_for: bool,
}

/// What is asked of a machine before the first job is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitnessConfig {
    /// Whether memory and disk are looked at.
    pub machine: bool,
    /// GiB of memory that must be available; `None` is what the models want, as a warning.
    pub min_memory: Option<f64>,
    /// Percent of the disk that must be free; `None` is room for a result.
    pub min_disk: Option<f64>,
}

impl Reader {
    pub(super) fn admin(&mut self) -> Option<AdminConfig> {
        let listen = self.read("admin.listen")?;
        Some(AdminConfig { listen, asked_for: self.was_given() })
    }

    pub(super) fn fitness(&mut self) -> Option<FitnessConfig> {
        let (machine, min_memory) = (self.read("fitness.machine"), self.read("fitness.min_memory"));
        let min_disk = self.read("fitness.min_disk");
        Some(FitnessConfig { machine: machine?, min_memory: min_memory?, min_disk: min_disk? })
    }
}
