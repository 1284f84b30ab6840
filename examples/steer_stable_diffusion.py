"""Pictures from Stable Diffusion in a few network calls, by the sampler's programs, in one grid: a row per prompt.

Install: ``pip install torch diffusers transformers pillow`` and this project (``pip install .``), or in place of it put
``steered_scheduler.py`` and ``steering_callback.py`` of ``vernissage/sampler/use`` beside this file and import them.

    python examples/steer_stable_diffusion.py --model stable-diffusion-v1-5/stable-diffusion-v1-5 \
        --programs models/sampler/programs.json --steps 8 --prompt "a lighthouse at dawn" --seeds 1 2 3 4 --out grid.png

`--model` may be a folder that `save_pretrained` wrote; then nothing is asked of the network. `--programs` is JSON: what
`Program.to_json` writes, a list of it, or several by their number of steps, as the stage `train@sampler` leaves them
where `sampler.model` names the same pipeline. Without it, or for a number of steps that it does not have,
DPM-Solver++ 2M runs. Pipelines of the kind of v1 and v2 are meant.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.pil_utils import make_image_grid

from vernissage.sampler.use.steered_scheduler import SteeredScheduler
from vernissage.sampler.use.steering_callback import SteeringCallback

log = logging.getLogger("steer")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description="Stable Diffusion in a few network calls.")
    parser.add_argument("--model", required=True, help="hub name or local folder")
    parser.add_argument("--programs", type=Path, help="JSON of one or several programs")
    parser.add_argument("--prompt", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--steps", type=int, default=8, help="network calls per picture")
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--interval", type=float, nargs=2, help="noise levels with guidance, such as 0.28 5.42")
    parser.add_argument("--stop-below", type=float, help="end where the picture changes by less, such as 0.02")
    parser.add_argument("--out", type=Path, default=Path("grid.png"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    kind = torch.float16 if asked.device.startswith("cuda") else torch.float32
    load: Any = StableDiffusionPipeline.from_pretrained
    pipe = load(asked.model).to(asked.device, kind)
    programs = json.loads(asked.programs.read_text(encoding="utf-8")) if asked.programs else None
    pipe.scheduler = SteeredScheduler.from_config(pipe.scheduler.config, programs=programs)
    pipe.scheduler.set_timesteps(asked.steps)
    callback = SteeringCallback(asked.guidance, asked.interval, stop_below=asked.stop_below)
    scale = callback.first_scale(float(pipe.scheduler.sigmas[0]))

    images = []
    for prompt in asked.prompt:
        for seed in asked.seeds:
            images += pipe(
                prompt,
                num_inference_steps=asked.steps,
                guidance_scale=scale,
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=callback,
            ).images
            steps = len(callback.trace)
            log.info("%s, seed %d: %d steps, last change %.4f", prompt, seed, steps, callback.trace[-1]["change"])
    make_image_grid(images, rows=len(asked.prompt), cols=len(asked.seeds)).save(asked.out)
    log.info("%s", asked.out)


if __name__ == "__main__":
    main()
