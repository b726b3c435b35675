"""Images to begin from: what img2img and inpainting are given, and how the reference is asked."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from diffusers import AutoencoderTiny, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image, ImageOps


@dataclass(frozen=True)
class Start:
    """`init_image` and what belongs to it, as a job has them; files beside the list of cases."""

    image: str
    strength: float
    mask: str | None = None
    repaint: str = "black"


def start(width: int, height: int, strength: float, mask: bool, number: int) -> Start:
    """The start of a case; `number` turns through pictures, masks and shades."""
    name = f"starts/{width}x{height}-{number % 3}"
    if not mask:
        return Start(f"{name}.png", strength)
    return Start(f"{name}.png", strength, f"{name}-mask.png", ("black", "white")[number % 2])


def paint(start: Start, folder: Path) -> None:
    """Makes the files that `start` names, where they are not there yet; the same ones each time."""
    for name, make in ((start.image, picture), (start.mask, mask)):
        if name and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            size, number = Path(name).stem.removesuffix("-mask").split("-")
            make(*map(int, size.split("x")), int(number)).save(folder / name, optimize=True)


def picture(width: int, height: int, number: int) -> Image.Image:
    """Slopes, a disc with a hard edge, and grain: what is easy and what is hard for an autoencoder."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    values = np.stack([np.sin(3 * x + number) * 0.5 + 0.5, y, 1 - x * y], -1)
    values[(x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.06] = random.random(3)
    values[:, : width // 4] += random.normal(0, 0.1, (height, width // 4, 1))
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))


def mask(width: int, height: int, number: int) -> Image.Image:
    """A disc off the latents' grid on a slope of grey, and two greys beside the middle, in colour and not."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.repeat((255 * x / width).astype(np.uint8)[..., None], 3, -1)
    values[(x - width * 0.6) ** 2 + (y - height * 0.4) ** 2 < (0.3 * height + number) ** 2] = 255 * (number % 2)
    values[: height // 5] = 127
    values[height // 5 : height // 3] = 128
    values[-height // 6 :] = (200, 90, 160)
    return Image.fromarray(values)


@cache
def pipelines(pipe: StableDiffusionPipeline) -> tuple[StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline]:
    """The pipelines that share a model's parts."""
    found = tuple(kind(**pipe.components, requires_safety_checker=False) for kind in (StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline))
    for one in found:
        one.set_progress_bar_config(disable=True)
    return found


def draw(pipe: StableDiffusionPipeline, start: Start, folder: Path, asked: dict) -> np.ndarray:
    """What the reference draws: f32 [outputs, height, width, 3]. `asked` is what text to image would be asked."""
    image_to_image, inpaint = pipelines(pipe)
    width, height, generators = asked.pop("width"), asked.pop("height"), asked.pop("generator")
    asked |= {"image": Image.open(folder / start.image), "strength": start.strength}
    if start.mask is None:
        image_to_image.scheduler = pipe.scheduler
        return image_to_image(generator=generators, **asked).images
    inpaint.scheduler = pipe.scheduler
    found = Image.open(folder / start.mask).convert("L")
    asked |= {"mask_image": found if start.repaint == "white" else ImageOps.invert(found), "width": width, "height": height}
    if isinstance(pipe.vae, AutoencoderTiny):
        return inpaint(generator=generators, **asked).images
    # Of several outputs the reference draws the image's latents once, from the first generator: asked one by one, each has its own.
    asked |= {"num_images_per_prompt": 1}
    return np.concatenate([inpaint(generator=[generator], **asked).images for generator in generators])
