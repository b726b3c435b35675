//! What `latentd bench` is asked.

use std::collections::BTreeSet;

use clap::Args;

use crate::job::{Contract, Size};

#[derive(Debug, Args)]
pub(in crate::app) struct BenchArgs {
    /// Sizes of one image; the first is that of everything else.
    #[arg(long = "size", value_name = "WIDTHxHEIGHT", value_delimiter = ',', default_value = "512x512", value_parser = size)]
    pub(in crate::app) sizes: Vec<Size>,
    /// Steps of one image.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(in crate::app) steps: u32,
    /// How many images to draw side by side.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2, 4, 8], value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(in crate::app) images: Vec<u32>,
    /// Times that each of these is done.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub(in crate::app) rounds: u8,
    /// Jobs of all kinds after that.
    #[arg(long, default_value_t = 24)]
    pub(in crate::app) jobs: u32,
    /// How many of them are in hand at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    pub(in crate::app) at_once: u8,
    /// Leave out what the device can do at its best.
    #[arg(long = "no-rates", action = clap::ArgAction::SetFalse)]
    pub(in crate::app) rates: bool,
    /// As one JSON object.
    #[arg(long)]
    pub(in crate::app) json: bool,
}

fn size(text: &str) -> Result<Size, String> {
    let sides: BTreeSet<u32> = Contract::ALL.iter().flat_map(|contract| contract.sides()).copied().collect();
    let side = |text: &str| text.parse().ok().filter(|side| sides.contains(side));
    let size = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    let (width, height) =
        size.ok_or_else(|| format!("no WIDTHxHEIGHT, each one of {:?}", sides.iter().collect::<Vec<_>>()))?;
    Ok(Size { width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_one_of_the_api() {
        assert_eq!(size("512x768"), Ok(Size { width: 512, height: 768 }));
        for wrong in ["512", "512x", "512x500", "x512", "512X512", "512x512x512"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
