"""Small random UNets of the kinds that SDXL, Stable Diffusion 1.5 and 2.1 publish, and of others."""

from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from tiny_models import random_weights

# What the published config.json files agree on.
COMMON = {
    "act_fn": "silu",
    "center_input_sample": False,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 4,
    "out_channels": 4,
    "sample_size": 16,
}


def make_unet(config: dict, seed: int) -> UNet2DConditionModel:
    """The network in float32, its weights rounded to bfloat16 so that files of either dtype hold the same numbers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    weights = random_weights({k: v.shape for k, v in unet.state_dict().items()}, "unet", seed)
    unet.load_state_dict({k: v.bfloat16().float() for k, v in weights.items()}, assign=True)
    return unet.eval()


def sdxl_unet(seed: int = 300, cross_attention_dim: int = 20, pooled_width: int = 12) -> UNet2DConditionModel:
    """SDXL's: size ids, no attention at full resolution, deeper transformers below, heads of one size."""
    channels, time_channels = [8, 16, 24], 6
    return make_unet(
        COMMON
        | {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": time_channels,
            "attention_head_dim": [1, 2, 3],
            "block_out_channels": channels,
            "cross_attention_dim": cross_attention_dim,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "layers_per_block": 2,
            "projection_class_embeddings_input_dim": 6 * time_channels + pooled_width,
            "transformer_layers_per_block": [1, 1, 2],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "use_linear_projection": True,
        },
        seed,
    )


def refiner_unet(seed: int = 330, cross_attention_dim: int = 12, pooled_width: int = 10) -> UNet2DConditionModel:
    """SDXL's refiner's: five ids, no attention at the first and last resolution but in the middle."""
    time_channels = 4
    return make_unet(
        COMMON
        | {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": time_channels,
            "attention_head_dim": [1, 2, 2],
            "block_out_channels": [8, 16, 16],
            "cross_attention_dim": cross_attention_dim,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "layers_per_block": 1,
            "projection_class_embeddings_input_dim": 5 * time_channels + pooled_width,
            "transformer_layers_per_block": 2,
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "use_linear_projection": True,
        },
        seed,
    )


def sd15_unet(seed: int = 310, cross_attention_dim: int = 12) -> UNet2DConditionModel:
    """Stable Diffusion 1.5's: projections are 1x1 convolutions, as many heads at every level."""
    return make_unet(
        COMMON
        | {
            "attention_head_dim": 2,
            "block_out_channels": [8, 12, 16, 16],
            "cross_attention_dim": cross_attention_dim,
            "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
            "layers_per_block": 2,
            "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        },
        seed,
    )


def sd21_unet(seed: int = 320, cross_attention_dim: int = 16) -> UNet2DConditionModel:
    """Stable Diffusion 2.1's (v prediction): linear projections, heads of one size."""
    return make_unet(
        COMMON
        | {
            "attention_head_dim": [1, 2, 4, 4],
            "block_out_channels": [8, 16, 24, 24],
            "cross_attention_dim": cross_attention_dim,
            "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
            "use_linear_projection": True,
        },
        seed,
    )


def shallow_unet(seed: int = 344, cross_attention_dim: int = 12) -> UNet2DConditionModel:
    """Two levels, and layers that differ in number and depth between them."""
    return make_unet(
        COMMON
        | {
            "attention_head_dim": [2, 3],
            "block_out_channels": [8, 12],
            "cross_attention_dim": cross_attention_dim,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "layers_per_block": [1, 2],
            "transformer_layers_per_block": [1, 2],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        },
        seed,
    )


def hollow_unet(seed: int = 350, cross_attention_dim: int = 12) -> UNet2DConditionModel:
    """No block in the middle, as in Stable Diffusions distilled by Segmind (Kim et al. 2023)."""
    return make_unet(
        COMMON
        | {
            "attention_head_dim": 2,
            "block_out_channels": [8, 12, 16],
            "cross_attention_dim": cross_attention_dim,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3,
            "layers_per_block": 1,
            "mid_block_type": None,
            "up_block_types": ["CrossAttnUpBlock2D"] * 3,
        },
        seed,
    )


UNETS: dict[str, Callable[..., UNet2DConditionModel]] = {
    "tiny-sdxl": sdxl_unet,
    "tiny-refiner": refiner_unet,
    "tiny-sd15": sd15_unet,
    "tiny-sd21": sd21_unet,
    "shallow": shallow_unet,
    "hollow": hollow_unet,
}
