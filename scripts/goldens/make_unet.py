#!/usr/bin/env python3
"""Makes tests/data/unet: small random UNets and what diffusers computes with them. See README.md.

make_unet.py             writes the folder anew
make_unet.py --check     writes it elsewhere and compares the bytes; exit status 1 where they differ
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from golden_folder import Tensors, relative_error, run_script, save
from tiny_tokenizers import write_json
from tiny_unets import UNETS

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "unet"
NAMES = ("tiny-sdxl", "tiny-sd15", "tiny-sd21", "shallow", "hollow")  # the refiner's is tested with its pictures
SIZE_LIMIT = 2_400_000  # bytes committed
INPUTS = {
    "seeds": list(range(2024, 2036)),
    "sizes": [[16, 16], [13, 9], [6, 11], [1, 3]],  # rows and columns of the latents
    "error_size": [12, 10],
    "timesteps": [999.0, 481.25, 1.0],
    "text_tokens": 9,
    "size_ids": [512.0, 768.0, 0.0, 16.0, 1024.0, 640.0],
}


def forward(unet: UNet2DConditionModel, seed: int, size: list[int]) -> torch.Tensor:
    """[timesteps, C, h, w] from latents [C, h, w], text [S, D] and, where the model takes it, pooled text [P], drawn in
    this order."""
    config, ids, kind = unet.config, INPUTS["size_ids"], {"device": unet.device, "dtype": unet.dtype}
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(config.in_channels, *size, generator=generator).to(**kind)
    text = torch.randn(INPUTS["text_tokens"], config.cross_attention_dim, generator=generator).to(**kind)
    added = None
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - len(ids) * config.addition_time_embed_dim
        pooled = torch.randn(width, generator=generator).to(**kind)
        added = {"text_embeds": pooled[None], "time_ids": torch.tensor([ids], device=unet.device)}
    outputs = [unet(latents[None], t, text[None], added_cond_kwargs=added).sample[0] for t in INPUTS["timesteps"]]
    return torch.stack(outputs)


def make_errors(unet: UNet2DConditionModel) -> dict[str, float]:
    """diffusers' error in bf16 and fp16: root mean square over the seeds."""
    errors = {}
    for dtype in (torch.bfloat16, torch.float16):
        rounded = copy.deepcopy(unet).to(dtype)
        squares = []
        for seed in INPUTS["seeds"]:
            value, reference = (forward(network, seed, INPUTS["error_size"]) for network in (rounded, unet))
            squares.append(relative_error(value, reference) ** 2)
        errors[str(dtype).removeprefix("torch.")] = np.mean(squares).item() ** 0.5
    return errors


def make(folder: Path) -> None:
    """Writes everything under folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    errors = {}
    for name in NAMES:
        unet = UNETS[name]()
        config = {k: v for k, v in unet.config.items() if k != "_use_default_values"}
        write_json(folder / name / "config.json", {"_class_name": "UNet2DConditionModel"} | config)
        weights = {k: v.bfloat16() for k, v in unet.state_dict().items()}
        save(weights, folder / name / "diffusion_pytorch_model.safetensors")
        seed = INPUTS["seeds"][0]
        outputs = {f"{rows}x{columns}": forward(unet, seed, [rows, columns]) for rows, columns in INPUTS["sizes"]}
        report(name, outputs)
        save(outputs, folder / f"{name}.safetensors")
        errors[name] = make_errors(unet)
    print(json.dumps(errors))
    write_json(folder / "errors.json", {"inputs": INPUTS, "errors": errors})


def report(name: str, outputs: Tensors) -> None:
    """Prints, and asserts, that the numbers are lively and move with the time."""
    for size, values in outputs.items():
        moved = relative_error(values[1], values[0])
        print(f"{name} {size}: std {values.std():.2f}, moves with the time by {moved:.3f}")
        assert 0.3 < values.std() < 3 and moved > 0.01, (name, size)


if __name__ == "__main__":
    sys.exit(run_script(__doc__, make, FOLDER, SIZE_LIMIT))
