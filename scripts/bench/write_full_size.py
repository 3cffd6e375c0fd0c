#!/usr/bin/env python3
"""Writes FLUX.1-dev (34 GB) or SDXL base (7 GB) at full size with random weights, in the published layout, dtypes
and shard sizes.

write_full_size.py OUT [--model flux|sdxl] --tokenizer FOLDER --tokenizer-2 FOLDER [--device cuda]
Any tokenizers of the kinds will do: the model's vocabularies are not needed for timing. Needs diffusers, transformers.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

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
UNET = {
    "sample_size": 128,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_VAE = VAE | {
    "latent_channels": 4,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "scaling_factor": 0.13025,
    "shift_factor": None,
}
SDXL_CLIP = CLIP | {"projection_dim": 768}
OPEN_CLIP = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "hidden_act": "gelu",
    "projection_dim": 1280,
    "eos_token_id": 2,
}
FLUX_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_dynamic_shifting": True}
SDXL_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def flux_parts() -> dict[str, tuple[torch.nn.Module, dict]]:
    return {
        "transformer": (FluxTransformer2DModel(**TRANSFORMER), TRANSFORMER),
        "vae": (AutoencoderKL(**VAE), VAE),
        "text_encoder": (CLIPTextModel(CLIPTextConfig(**CLIP)), CLIP),
        "text_encoder_2": (T5EncoderModel(T5Config(**T5)), T5),
    }


def sdxl_parts() -> dict[str, tuple[torch.nn.Module, dict]]:
    return {
        "unet": (UNet2DConditionModel(**UNET), UNET),
        "vae": (AutoencoderKL(**SDXL_VAE), SDXL_VAE | {"force_upcast": True}),
        "text_encoder": (CLIPTextModel(CLIPTextConfig(**SDXL_CLIP)), SDXL_CLIP),
        "text_encoder_2": (CLIPTextModelWithProjection(CLIPTextConfig(**OPEN_CLIP)), OPEN_CLIP),
    }


MODELS = {
    "flux": ("FluxPipeline", flux_parts, FLUX_SCHEDULER, torch.bfloat16, "T5TokenizerFast"),
    "sdxl": ("StableDiffusionXLPipeline", sdxl_parts, SDXL_SCHEDULER, torch.float16, "CLIPTokenizer"),
}


def drawn(name: str, shape: torch.Size, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Weights that keep activations near unit variance."""
    noise = torch.randn(shape, device=device, dtype=dtype)
    if len(shape) == 1:
        return 1 + 0.02 * noise if name.endswith("weight") else 0.02 * noise
    table = name.endswith("embedding.weight") or name == "shared.weight"
    return noise if table else noise / shape[1:].numel() ** 0.5


def write_component(folder: Path, stem: str, shapes: dict[str, torch.Size], dtype: torch.dtype, device: str) -> None:
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
        save_file(
            {n: drawn(n, shapes[n], dtype, device).cpu() for n in names}, folder / file, metadata={"format": "pt"}
        )
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(2 * s.numel() for s in shapes.values())}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", choices=MODELS, default="flux")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--tokenizer-2", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    pipeline, make_parts, scheduler, dtype, tokenizer_2 = MODELS[arguments.model]

    torch.manual_seed(0)
    with torch.device("meta"):
        parts = make_parts()
    index = {
        "_class_name": pipeline,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", tokenizer_2],
    }
    for name, (module, config) in parts.items():
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": type(module).__name__} | config, indent=2))
        shapes = {k: v.shape for k, v in module.state_dict().items() if k != "encoder.embed_tokens.weight"}
        stem = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
        write_component(folder, stem, shapes, dtype, arguments.device)
        library = "transformers" if name.startswith("text_encoder") else "diffusers"
        index[name] = [library, type(module).__name__]
    for name, source in {"tokenizer": arguments.tokenizer, "tokenizer_2": arguments.tokenizer_2}.items():
        shutil.copytree(source, arguments.out / name, dirs_exist_ok=True)
    (arguments.out / "scheduler").mkdir(exist_ok=True)
    (arguments.out / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (arguments.out / "model_index.json").write_text(json.dumps(index, indent=2))


if __name__ == "__main__":
    main()
