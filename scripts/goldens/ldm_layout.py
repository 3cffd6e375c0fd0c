#!/usr/bin/env python3
"""Writes a diffusers folder of Stable Diffusion or SDXL as one file in latent diffusion's layout.

ldm_layout.py FOLDER FILE [FOLDER FILE ...]
Beside the model's tensors the file holds what published files hold and pictures do not need. Needs no packages.
"""

import json
import struct
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
CLIP_LAYER = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


@dataclass
class Tensor:
    dtype: str
    shape: list[int]
    data: bytes


Tensors = dict[str, Tensor]


def read_component(folder: Path) -> Tensors:
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        raw = file.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                tensors[name] = Tensor(entry["dtype"], entry["shape"], raw[begin:end])
    return tensors


def write_file(path: Path, tensors: Tensors) -> None:
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in sorted(tensors.items()):
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.data for _, t in sorted(tensors.items())))


def renamed(tensors: Tensors, modules: dict[str, str]) -> Tensors:
    """Every tensor under the name that its longest known module has there."""
    result = {}
    for name, tensor in tensors.items():
        module = max((m for m in modules if name.startswith(m + ".")), key=len)
        result[modules[module] + name[len(module) :]] = tensor
    return result


def unet_modules(config: dict) -> dict[str, str]:
    modules = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }

    def add_resnet(here: str, there: str) -> None:
        modules.update({f"{here}.{k}": f"{there}.{v}" for k, v in RESNET.items()})

    levels = len(config["block_out_channels"])
    layers = config["layers_per_block"]
    layers = layers if isinstance(layers, list) else [layers] * levels
    numbers = count(1)
    for level in range(levels):
        here = f"down_blocks.{level}"
        for layer in range(layers[level]):
            number = next(numbers)
            add_resnet(f"{here}.resnets.{layer}", f"input_blocks.{number}.0")
            modules[f"{here}.attentions.{layer}"] = f"input_blocks.{number}.1"
        if level < levels - 1:
            modules[f"{here}.downsamplers.0.conv"] = f"input_blocks.{next(numbers)}.0.op"
    add_resnet("mid_block.resnets.0", "middle_block.0")
    modules["mid_block.attentions.0"] = "middle_block.1"
    add_resnet("mid_block.resnets.1", "middle_block.2")
    numbers = count(0)
    for level, kind in enumerate(config["up_block_types"]):
        here = f"up_blocks.{level}"
        for layer in range(layers[levels - 1 - level] + 1):
            number = next(numbers)
            add_resnet(f"{here}.resnets.{layer}", f"output_blocks.{number}.0")
            modules[f"{here}.attentions.{layer}"] = f"output_blocks.{number}.1"
        after = 2 if kind.startswith("CrossAttn") else 1
        modules[f"{here}.upsamplers.0.conv"] = f"output_blocks.{number}.{after}.conv"
    return modules


def vae_modules(config: dict) -> dict[str, str]:
    modules = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    levels = len(config["block_out_channels"])
    for side in ("encoder", "decoder"):
        for conv in ("conv_in", "conv_out"):
            modules[f"{side}.{conv}"] = f"{side}.{conv}"
        modules[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        for i in (0, 1):
            modules[f"{side}.mid_block.resnets.{i}"] = f"{side}.mid.block_{i + 1}"
        for here, there in ATTENTION.items():
            modules[f"{side}.mid_block.attentions.0.{here}"] = f"{side}.mid.attn_1.{there}"
    for level in range(levels):
        ways = ((f"encoder.down_blocks.{level}", f"encoder.down.{level}"),)
        ways += ((f"decoder.up_blocks.{level}", f"decoder.up.{levels - 1 - level}"),)
        for here, there in ways:
            for i in range(config["layers_per_block"] + 1):
                modules[f"{here}.resnets.{i}"] = f"{there}.block.{i}"
                modules[f"{here}.resnets.{i}.conv_shortcut"] = f"{there}.block.{i}.nin_shortcut"
            modules[f"{here}.downsamplers.0.conv"] = f"{there}.downsample.conv"
            modules[f"{here}.upsamplers.0.conv"] = f"{there}.upsample.conv"
    return modules


def transposed(tensor: Tensor) -> Tensor:
    rows, columns = tensor.shape
    size = SIZES[tensor.dtype]
    items = [tensor.data[i : i + size] for i in range(0, len(tensor.data), size)]
    return Tensor(
        tensor.dtype, [columns, rows], b"".join(items[c + columns * r] for c in range(columns) for r in range(rows))
    )


def openclip(tensors: Tensors, layers: int) -> Tensors:
    """transformers' CLIP as OpenCLIP has it: q, k and v in one, the projection transposed."""
    here = "text_model.encoder.layers"
    modules = {
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.embeddings.position_embedding": "positional_embedding",
        "text_model.final_layer_norm": "ln_final",
        "text_projection": "text_projection",
    }
    for i in range(layers):
        there = f"transformer.resblocks.{i}"
        modules[f"{here}.{i}.self_attn"] = f"{there}.attn"
        modules.update({f"{here}.{i}.{k}": f"{there}.{v}" for k, v in CLIP_LAYER.items()})
    result = renamed(tensors, modules)
    result["positional_embedding"] = result.pop("positional_embedding.weight")
    if "text_projection.weight" in result:
        result["text_projection"] = transposed(result.pop("text_projection.weight"))
    for i in range(layers):
        at = f"transformer.resblocks.{i}.attn"
        for kind in ("weight", "bias"):
            q, k, v = (result.pop(f"{at}.{part}_proj.{kind}") for part in "qkv")
            shape = [3 * q.shape[0], *q.shape[1:]]
            result[f"{at}.in_proj_{kind}"] = Tensor(q.dtype, shape, q.data + k.data + v.data)
    return result


def with_last_layer(tensors: Tensors, layers: int) -> Tensors:
    """With what a whole OpenCLIP has and Stable Diffusion 2 does not use."""
    last = f"transformer.resblocks.{layers - 1}."
    more = {f"transformer.resblocks.{layers}.{k[len(last) :]}": t for k, t in tensors.items() if k.startswith(last)}
    width = tensors["ln_final.weight"].shape[0]
    dtype = tensors["ln_final.weight"].dtype
    more["text_projection"] = Tensor(dtype, [width, width], bytes(width * width * SIZES[dtype]))
    return tensors | more


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def single_file(folder: Path) -> Tensors:
    def config(name: str) -> dict:
        return json.loads((folder / name / "config.json").read_text(encoding="utf-8"))

    def clip(name: str) -> Tensors:
        return read_component(folder / name)

    vae = renamed(read_component(folder / "vae"), vae_modules(config("vae")))
    for name, tensor in vae.items():
        if ".attn_1." in name and len(tensor.shape) == 2:
            tensor.shape += [1, 1]  # a convolution of single pixels
    unet = renamed(read_component(folder / "unet"), unet_modules(config("unet")))
    tensors = prefixed("model.diffusion_model.", unet) | prefixed("first_stage_model.", vae)
    scale = Tensor("F32", [], struct.pack("<f", 4.6))
    ids = Tensor("I64", [1, 77], struct.pack("<77q", *range(77)))
    if not (folder / "text_encoder").is_dir():  # SDXL's refiner
        layers = config("text_encoder_2")["num_hidden_layers"]
        return tensors | prefixed("conditioner.embedders.0.model.", openclip(clip("text_encoder_2"), layers))
    if (folder / "text_encoder_2").is_dir():
        first, second = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
        layers = config("text_encoder_2")["num_hidden_layers"]
        tensors |= prefixed(first, clip("text_encoder")) | prefixed(second, openclip(clip("text_encoder_2"), layers))
        tensors |= {first + "text_model.embeddings.position_ids": ids, second + "logit_scale": scale}
        return tensors | {"denoiser.sigmas": Tensor("F32", [4], bytes(16))}
    tensors |= {k: Tensor("F32", [4], bytes(16)) for k in ("betas", "alphas_cumprod", "sqrt_one_minus_alphas_cumprod")}
    tensors |= {"model_ema.decay": scale, "model_ema.num_updates": Tensor("I64", [], bytes(8))}
    if config("unet")["use_linear_projection"]:
        layers = config("text_encoder")["num_hidden_layers"]
        whole = with_last_layer(openclip(clip("text_encoder"), layers), layers)
        return tensors | prefixed("cond_stage_model.model.", whole | {"logit_scale": scale})
    prefix = "cond_stage_model.transformer."
    return tensors | prefixed(prefix, clip("text_encoder") | {"text_model.embeddings.position_ids": ids})


if __name__ == "__main__":
    for source, target in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        write_file(Path(target), single_file(Path(source)))
