"""What must hold of a run of the smallest configuration and of the recipe's parts; `test` runs it.

python check.py OUT
"""

import random
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, LMSDiscreteScheduler, StableDiffusionPipeline

import config
from export import MOST
from fit import Batches, guidance, rate, shares
from latents import Store
from looks import squares_under
from main import MINIATURE
from model import kept, read_tokenizer, sampler
from nearest import ground_is, ranking, references
from pictures import COLOURS, WHITE, caption, compose, read_pictures, read_things

HERE = Path(__file__).parent


def diffusers_draws_with_it(model: Path) -> None:
    """The folder loads unchanged, and something is drawn at a size that was not trained."""
    pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, local_files_only=True)
    pipe.scheduler = LMSDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a red apple", height=128, width=256, num_inference_steps=3, guidance_scale=5).images[0]
    assert image.size == (256, 128), image.size
    assert pipe.scheduler.config.beta_end == config.read(HERE / "tiny.toml").noise.beta_end
    assert sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) < MOST
    assert "scripts/train/run tiny" in (model / "README.md").read_text()
    assert len((model / "names.txt").read_text().splitlines()) == 8


def white_is_zero(autoencoder: Path) -> None:
    """The centred encoder puts white at zero; as much of a picture comes back as from the autoencoder it was."""
    vae = AutoencoderTiny.from_pretrained(autoencoder)
    latents = vae.encode(torch.ones(1, 3, 256, 256)).latents * vae.config.scaling_factor
    assert latents[:, :, 4:12, 4:12].abs().max() < 0.05, latents[0, :, 8, 8]


def a_batch_is_what_its_step_says(out: Path) -> None:
    """The same step gets the same batch again, a pack is dealt whole, and signal and noise add up to a variance of one."""
    settings = config.read(HERE / "tiny.toml")
    things = read_things(out / "pictures.zip", settings.data.groups, settings.data.most)
    store = Store(out / "latents", AutoencoderTiny.from_pretrained(out / "autoencoder"), read_pictures(out / "pictures.zip", things), settings)
    batches = Batches(settings, things, read_tokenizer(MINIATURE / "tokenizer"), store)
    assert all(torch.equal(one, other) for one, other in zip(batches.at(3).values(), batches.at(3).values()))
    assert not torch.equal(batches.at(3)["noise"], batches.at(4)["noise"])
    assert sorted(batches.deal(0)) == list(range(len(things)))
    assert shares(settings, 0) == [1, 0] and shares(settings, 160) == [0.25, 0.75]
    assert rate(settings, 0) < rate(settings, 40) == 1 > rate(settings, 159)


def attention_is_told_where_to_look() -> None:
    """A cell belongs to the squares that it covers, at every level and shape; what is beside the picture to its nearest edge."""
    assert torch.equal(squares_under(8, 8, 32, 32), torch.eye(64))
    for rows, columns, height, width in ((16, 16, 32, 32), (4, 4, 32, 32), (1, 1, 16, 16), (32, 48, 32, 48), (6, 4, 48, 32)):
        shares = squares_under(rows, columns, height, width)
        assert shares.shape == (rows * columns, 64) and (shares.sum(1) - 1).abs().max() < 1e-6
    wide = squares_under(8, 12, 32, 48).reshape(8, 12, 8, 8)
    assert wide[0, 0].argmax() == wide[0, 2].argmax() == 0 and wide[7, 3].argmax() == 7 * 8 + 1


def guidance_grows() -> None:
    """From none to what is asked for, between the shares of the run that the settings name."""
    settings = config.read(HERE / "tiny.toml")
    strength, begin, end = settings.train.guidance
    pictures = settings.train.pictures
    assert guidance(settings, int(begin * pictures)) == 1 and guidance(settings, pictures) == strength
    assert guidance(settings, int((begin + end) / 2 * pictures)) == (1 + strength) / 2


def schedules_agree() -> None:
    """Training adds as much noise as diffusers' sampler removes."""
    settings = config.read(HERE / "cpu.toml")
    ours, theirs = kept(settings, torch.device("cpu")), sampler(settings).alphas_cumprod
    assert (ours - theirs).abs().max() < 1e-6


def a_picture_is_nearest_to_itself(data: Path) -> None:
    """Also a little moved and smaller, and not to another; the colour of its ground is seen."""
    things = read_things(data, ["food-drink/"])
    pictures = read_pictures(data, things)
    known = references(pictures)
    for place in range(0, len(things), 9):
        drawing = torch.nn.functional.pad(compose(pictures[place], COLOURS[WHITE], 480, 480), (8, 24, 24, 8), value=1.0)
        assert ranking(drawing, known)[0] == place, things[place].name
    drawing = compose(pictures[0], COLOURS["blue"], 512, 512)
    assert ground_is(drawing, "blue") and not ground_is(drawing, "turquoise") and not ground_is(drawing, WHITE)


def captions_name_the_thing(data: Path) -> None:
    """Every caption holds the name, and the ground where it is not white."""
    rng = random.Random(0)
    for thing in read_things(data, [""]):
        text = caption(thing, "pink", rng)
        assert thing.name in text and "pink" in text, text


def wrong_settings_are_named() -> None:
    """A key that is missing or unknown stops the run."""
    text = (HERE / "cpu.toml").read_text()
    for changed, complaint in ((text.replace("batch = 16\n", ""), "train.batch is missing"), (f"{text}more = 1\n", "train.more is unknown")):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(changed)
            file.flush()
            try:
                config.read(Path(file.name))
            except SystemExit as error:
                assert complaint in str(error), error
            else:
                raise AssertionError(complaint)


def main(out: Path) -> None:
    """Runs them all."""
    checks = {
        diffusers_draws_with_it: out / "model",
        white_is_zero: out / "autoencoder",
        a_batch_is_what_its_step_says: out,
        attention_is_told_where_to_look: None,
        guidance_grows: None,
        schedules_agree: None,
        a_picture_is_nearest_to_itself: out / "pictures.zip",
        captions_name_the_thing: out / "pictures.zip",
        wrong_settings_are_named: None,
    }
    for check, place in checks.items():
        check(*([place] if place else []))
        print(f"test: {check.__name__.replace('_', ' ')}")
    print(f"{len(checks)} passed, 0 failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
