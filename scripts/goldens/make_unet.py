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

import torch
from diffusers import UNet2DConditionModel
from golden_folder import Tensors, half_errors, relative_error, run_script, save
from tiny_tokenizers import write_json
from tiny_unets import UNETS

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "unet"
NAMES = tuple(UNETS)
SIZE_LIMIT = 2_600_000  # bytes committed
INPUTS = {
    "seeds": list(range(2024, 2036)),
    "sizes": [[16, 16], [13, 9], [6, 11], [1, 3]],  # rows and columns of the latents
    "error_size": [12, 10],
    "timesteps": [999.0, 481.25, 1.0],
    "text_tokens": 9,
    "size_ids": {
        "tiny-sdxl": [512.0, 768.0, 0.0, 16.0, 1024.0, 640.0],
        "tiny-refiner": [512.0, 768.0, 0.0, 16.0, 6.0],  # an aesthetic score in place of the final size
    },
}


def forward(name: str, unet: UNet2DConditionModel, seed: int, size: list[int]) -> torch.Tensor:
    """[timesteps, C, h, w] from latents [C, h, w], text [S, D] and, where the model takes it, pooled text [P], drawn in
    this order."""
    config, kind = unet.config, {"device": unet.device, "dtype": unet.dtype}
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(config.in_channels, *size, generator=generator).to(**kind)
    text = torch.randn(INPUTS["text_tokens"], config.cross_attention_dim, generator=generator).to(**kind)
    added = None
    if config.addition_embed_type == "text_time":
        ids = INPUTS["size_ids"][name]
        width = config.projection_class_embeddings_input_dim - len(ids) * config.addition_time_embed_dim
        pooled = torch.randn(width, generator=generator).to(**kind)
        added = {"text_embeds": pooled[None], "time_ids": torch.tensor([ids], device=unet.device)}
    outputs = [unet(latents[None], t, text[None], added_cond_kwargs=added).sample[0] for t in INPUTS["timesteps"]]
    return torch.stack(outputs)


def make_errors(name: str, unet: UNet2DConditionModel) -> dict[str, float]:
    """diffusers' error in bf16 and fp16: root mean square over the seeds."""

    def outputs(dtype: torch.dtype) -> dict[str, list[torch.Tensor]]:
        network = copy.deepcopy(unet).to(dtype)
        return {"sample": [forward(name, network, seed, INPUTS["error_size"]) for seed in INPUTS["seeds"]]}

    return half_errors(outputs)[1]["sample"]


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
        outputs = {f"{rows}x{columns}": forward(name, unet, seed, [rows, columns]) for rows, columns in INPUTS["sizes"]}
        report(name, outputs)
        save(outputs, folder / f"{name}.safetensors")
        errors[name] = make_errors(name, unet)
    print(json.dumps(errors))
    write_json(folder / "errors.json", {"inputs": INPUTS, "errors": errors})


def report(name: str, outputs: Tensors) -> None:
    """Prints, and asserts, that the numbers are lively and move with the time."""
    for size, values in outputs.items():
        moved = relative_error(values[1], values[0])
        print(f"{name} {size}: std {values.std():.2f}, moves with the time by {moved:.3f}")
        assert 0.2 < values.std() < 3 and moved > 0.01, (name, size)


if __name__ == "__main__":
    sys.exit(run_script(__doc__, make, FOLDER, SIZE_LIMIT))
