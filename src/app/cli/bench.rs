//! What `latentd bench` is asked.

use clap::Args;
use serde_json::Value;

use super::field::field as read_field;
use crate::job::{Contract, Size};

#[derive(Debug, Clone, Args)]
pub(in crate::app) struct BenchArgs {
    /// Sizes of one image, if not that of the model's jobs which name none; the first is that of everything else.
    #[arg(long = "size", value_name = "WIDTHxHEIGHT", value_delimiter = ',', value_parser = size)]
    pub(in crate::app) sizes: Vec<Size>,
    /// Steps of one image.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(in crate::app) steps: u32,
    /// One more field of the input of one image and of several, such as `guidance_scale=0`; the value is JSON if it reads as JSON, else text.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = field)]
    pub(in crate::app) fields: Vec<(String, Value)>,
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

/// Fields that have flags of their own, as what is measured is told by them.
const FLAGS: [(&str, &str); 5] = [
    ("width", "--size"),
    ("height", "--size"),
    ("num_inference_steps", "--steps"),
    ("num_outputs", "--images"),
    ("num_images", "--images"),
];

fn field(text: &str) -> Result<(String, Value), String> {
    let (key, value) = read_field(text)?;
    match FLAGS.iter().find(|(field, _)| *field == key) {
        Some((_, flag)) => Err(format!("{key} is set by {flag}")),
        None => Ok((key, value)),
    }
}

fn size(text: &str) -> Result<Size, String> {
    let read = || -> Option<Size> {
        let (width, height) = text.split_once('x')?;
        let size = Size { width: width.parse().ok()?, height: height.parse().ok()? };
        let drawn = |contract: &Contract| [size.width, size.height].iter().all(|side| contract.sides().contains(*side));
        Contract::ALL.iter().any(drawn).then_some(size)
    };
    read().ok_or_else(|| {
        let sides = |contract: &Contract| format!("for {contract} {}", contract.sides());
        let sides = Contract::ALL.iter().map(sides).collect::<Vec<_>>();
        format!("no WIDTHxHEIGHT, each side being {}", sides.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_has_a_flag_is_set_by_it() {
        assert_eq!(field("guidance_scale=0"), Ok(("guidance_scale".to_owned(), 0.into())));
        assert_eq!(field("scheduler=EULER-A"), Ok(("scheduler".to_owned(), "EULER-A".into())));
        assert_eq!(field("num_inference_steps=1"), Err("num_inference_steps is set by --steps".to_owned()));
        for contract in Contract::ALL {
            let table = contract.table();
            for field in [table.steps, table.count] {
                assert!(FLAGS.iter().any(|(name, _)| *name == field), "{contract}: {field}");
            }
        }
    }

    #[test]
    fn a_size_is_one_of_the_api() {
        assert_eq!(size("512x768"), Ok(Size { width: 512, height: 768 }));
        assert_eq!(size("1024x2048"), Ok(Size { width: 1024, height: 2048 }));
        let refused = size("100x100").unwrap_err();
        assert!(
            refused
                .ends_with("for sdxl a multiple of 8 from 64 to 2048; for sdxl_turbo a multiple of 8 from 64 to 1024"),
            "{refused}"
        );
        for wrong in ["512", "512x", "512x500", "2056x512", "x512", "512X512", "512x512x512"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
