#!/usr/bin/env python3
"""Writes FLUX.1-dev at full size with random weights, in the published layout, dtypes and shard sizes (34 GB).

write_full_size.py OUT --clip FOLDER --t5 FOLDER [--device cuda]
The two folders hold tokenizers: the model's vocabularies are not needed for timing. Needs diffusers, transformers.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

SHARD_BYTES = {"transformer": 9_980_000_000, "text_encoder_2": 4_990_000_000}
TRANSFORMER = {"guidance_embeds": True}
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "eos_token_id": 2}
T5 = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
}
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_dynamic_shifting": True}
MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def drawn(name: str, shape: torch.Size, device: str) -> torch.Tensor:
    """Weights that keep activations near unit variance."""
    noise = torch.randn(shape, device=device, dtype=torch.bfloat16)
    if len(shape) == 1:
        return 1 + 0.02 * noise if name.endswith("weight") else 0.02 * noise
    table = name.endswith("embedding.weight") or name == "shared.weight"
    return noise if table else noise / shape[1:].numel() ** 0.5


def write_component(folder: Path, stem: str, shapes: dict[str, torch.Size], device: str) -> None:
    """Shards of at most SHARD_BYTES with their index, or one file."""
    limit = SHARD_BYTES.get(folder.name)
    shards, size = [[]], 0
    for name, shape in shapes.items():
        if limit and size + 2 * shape.numel() > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += 2 * shape.numel()
    weight_map = {}
    for i, names in enumerate(shards, start=1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file({n: drawn(n, shapes[n], device).cpu() for n in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(2 * s.numel() for s in shapes.values())}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--t5", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    with torch.device("meta"):
        parts = {
            "transformer": (FluxTransformer2DModel(**TRANSFORMER), dict(TRANSFORMER)),
            "vae": (AutoencoderKL(**VAE), VAE),
            "text_encoder": (CLIPTextModel(CLIPTextConfig(**CLIP)), CLIP),
            "text_encoder_2": (T5EncoderModel(T5Config(**T5)), T5),
        }
    for name, (module, config) in parts.items():
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": type(module).__name__} | config, indent=2))
        shapes = {k: v.shape for k, v in module.state_dict().items() if k != "encoder.embed_tokens.weight"}
        stem = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
        write_component(folder, stem, shapes, arguments.device)
    for name, source in {"tokenizer": arguments.clip, "tokenizer_2": arguments.t5}.items():
        shutil.copytree(source, arguments.out / name, dirs_exist_ok=True)
    (arguments.out / "scheduler").mkdir(exist_ok=True)
    (arguments.out / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (arguments.out / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))


if __name__ == "__main__":
    main()
