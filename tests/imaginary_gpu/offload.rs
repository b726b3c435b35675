//! Models of full size on GPUs of the sizes that people have.

use crate::full_size::{FullSize, SD15, SDXL, SDXL_REFINER};
use crate::gpu::{Run, draw};
use crate::holes::{Part, write_weights};

/// A picture by `model`, and a refiner after it, on a GPU of so many MiB.
fn drawn_on(
    memory: u32,
    (model, refiner): (&FullSize, Option<&FullSize>),
    variables: &[(&str, &str)],
    job: &[&str],
) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let write = |model: &FullSize, name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        model.write(&path);
        path.to_str().unwrap().to_owned()
    };
    let model = write(model, "model");
    let refiner = refiner.map(|refiner| write(refiner, "refiner"));
    let memory = memory.to_string();
    let mut words = vec!["--model", &model, "--dtype", "f16"];
    words.extend(refiner.iter().flat_map(|refiner| ["--refiner", refiner]));
    let job = [&["num_inference_steps=8"], job].concat();
    words.extend(job.iter().flat_map(|set| ["--set", set]));
    draw(&[&[("IMAGINARY_GPU_MEMORY", memory.as_str())], variables].concat(), &words)
}

/// All parts stayed where they were, and nothing else was given up.
fn assert_whole(run: &Run) {
    run.assert_drew(1);
    assert_eq!(run.told("moved to"), 0, "{}", run.stderr);
    assert_eq!(run.told("out of memory"), 0, "{}", run.stderr);
}

#[test]
fn sdxl_in_f16_is_drawn_on_12_gb() {
    assert_whole(&drawn_on(11_900, (&SDXL, None), &[], &[]));
}

#[test]
fn sdxl_with_its_refiner_is_drawn_on_24_gb() {
    assert_whole(&drawn_on(23_900, (&SDXL, Some(&SDXL_REFINER)), &[], &[]));
}

/// More than SDXL's UNet with its work, and less than the whole model.
const BETWEEN: u32 = 6_500;

/// Each of `parts` was told to have come to the GPU, aloud once.
fn assert_came(run: &Run, parts: &[&str]) {
    for part in parts {
        let told =
            format!("moved to the GPU; jobs wait as long each time that it is needed and not there part={part} ");
        assert_eq!(run.told(&told), 1, "{part}: {}", run.stderr);
    }
}

#[test]
fn parts_of_a_model_that_does_not_fit_come_in_turn() {
    let run = drawn_on(BETWEEN, (&SDXL, None), &[], &[]);
    run.assert_drew(1);
    assert_eq!(run.told("the GPU cannot hold the whole model"), 1, "{}", run.stderr);
    assert_came(&run, &["TextEncoders(0)", "Unet(0)", "Autoencoder"]);
    assert!(run.told("moved to main memory") > 0, "{}", run.stderr);
    assert!(run.log.replays() > 0, "what is recorded serves as long as the UNet stays: {}", run.stderr);
    assert_eq!(run.told("in tiles"), 0, "{}", run.stderr);
}

#[test]
fn base_model_and_refiner_come_in_turn_on_12_gb() {
    let run = drawn_on(11_900, (&SDXL, Some(&SDXL_REFINER)), &[], &[]);
    run.assert_drew(1);
    let refiner = u64::MAX;
    let parts = [format!("TextEncoders({refiner})"), format!("Unet({refiner})")];
    assert_came(&run, &["TextEncoders(0)", "Unet(0)", &parts[0], &parts[1], "Autoencoder"]);
}

#[test]
fn a_lora_is_merged_while_parts_come_in_turn() {
    let loras = tempfile::tempdir().unwrap();
    let mut lora = Part::default();
    let module = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q";
    lora.add(format!("{module}.lora_down.weight"), &[4, 640]);
    lora.add(format!("{module}.lora_up.weight"), &[640, 4]);
    write_weights(&loras.path().join("style.safetensors"), &lora);
    let folder = [("LATENTD_LORA_DIR", loras.path().to_str().unwrap())];
    let run = drawn_on(BETWEEN, (&SDXL, None), &folder, &["lora=style", "num_images=2"]);
    run.assert_drew(2);
    assert_eq!(run.told("LoRA merged"), 1, "{}", run.stderr);
    assert_came(&run, &["Unet(1)"]);
}

#[test]
fn without_offload_a_model_that_does_not_fit_is_refused() {
    let run = drawn_on(BETWEEN, (&SDXL, None), &[("LATENTD_OFFLOAD", "off")], &[]);
    assert!(!run.succeeded && run.stderr.contains("out of memory"), "{}", run.stderr);
    assert_eq!(run.told("moved to"), 0);
}

#[test]
fn memory_that_runs_out_later_moves_parts_then() {
    // All weights have room; a picture of this size has none beside them.
    let run = drawn_on(2_300, (&SD15, None), &[], &["width=768", "height=768"]);
    run.assert_drew(1);
    assert_eq!(run.told("the GPU cannot hold the whole model"), 0);
    assert!(run.told("moved to main memory") > 0, "{}", run.stderr);
}

#[test]
fn a_picture_that_is_too_large_for_one_decode_is_decoded_in_tiles() {
    let run = drawn_on(8_000, (&SDXL, None), &[], &["width=2048", "height=2048", "num_inference_steps=2"]);
    run.assert_drew(1);
    assert_eq!(run.told("decoded in tiles"), 1, "{}", run.stderr);
}
