"""Small random pipelines of SDXL, Stable Diffusion 1.5 and 2.1 in the published file layouts."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from tiny_models import VERSION, Weights, clip_config, published_shapes, random_weights, vae_config, write_weights
from tiny_tokenizers import write_clip, write_json
from tiny_unets import UNETS
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

KINDS = {kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection)}


@dataclass(frozen=True)
class TinySd:
    """One pipeline: what differs in its configs, and how its files are laid out. Its UNet is that of the same name."""

    name: str
    seed: int
    pipeline: str
    clips: dict[str, tuple[str, dict]]  # component: class, sizes
    pads: dict[str, str]  # tokenizer: what it pads with
    vae: dict
    scheduler: dict
    merges: int
    single_file_tokenizers: bool
    dtype: torch.dtype  # of the files, but the UNet's are bfloat16
    variant: str | None
    shards: int = 1  # of the UNet
    settings: dict | None = None  # of model_index.json


# What the published scheduler_config.json files agree on.
SCHEDULER = {
    "_diffusers_version": VERSION,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
END = "<|endoftext|>"

TINY_SDXL = TinySd(
    name="tiny-sdxl",
    seed=400,
    pipeline="StableDiffusionXLPipeline",
    clips={
        "text_encoder": (
            "CLIPTextModel",
            {
                "eos_token_id": 2,
                "hidden_act": "quick_gelu",
                "hidden_size": 8,
                "intermediate_size": 20,
                "num_attention_heads": 2,
                "num_hidden_layers": 3,
                "projection_dim": 12,
            },
        ),
        "text_encoder_2": (
            "CLIPTextModelWithProjection",
            {
                "eos_token_id": 2,
                "hidden_act": "gelu",
                "hidden_size": 12,
                "intermediate_size": 28,
                "num_attention_heads": 3,
                "num_hidden_layers": 2,
                "projection_dim": 12,
            },
        ),
    },
    pads={"tokenizer": END, "tokenizer_2": "!"},
    vae={
        "block_out_channels": [4, 4, 8, 8],
        "force_upcast": True,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 2,
        "scaling_factor": 0.13025,
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    },
    scheduler={
        "_class_name": "EulerDiscreteScheduler",
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
    merges=160,
    single_file_tokenizers=False,
    dtype=torch.float16,
    variant="fp16",
    shards=2,
    settings={"force_zeros_for_empty_prompt": True},
)

TINY_REFINER = TinySd(
    name="tiny-refiner",
    seed=430,
    pipeline="StableDiffusionXLImg2ImgPipeline",
    clips={
        "text_encoder_2": (
            "CLIPTextModelWithProjection",
            {
                "eos_token_id": 2,
                "hidden_act": "gelu",
                "hidden_size": 12,
                "intermediate_size": 20,
                "num_attention_heads": 2,
                "num_hidden_layers": 2,
                "projection_dim": 10,
            },
        ),
    },
    pads={"tokenizer_2": "!"},
    vae=TINY_SDXL.vae | {"block_out_channels": [4, 4, 4, 8], "layers_per_block": 1},
    scheduler=TINY_SDXL.scheduler,
    merges=160,
    single_file_tokenizers=True,
    dtype=torch.float32,
    variant=None,
    settings={"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True},
)

TINY_SD15 = TinySd(
    name="tiny-sd15",
    seed=410,
    pipeline="StableDiffusionPipeline",
    clips={
        "text_encoder": (
            "CLIPTextModel",
            {
                "eos_token_id": 2,
                "hidden_act": "quick_gelu",
                "hidden_size": 12,
                "intermediate_size": 32,
                "num_attention_heads": 2,
                "num_hidden_layers": 2,
            },
        )
    },
    pads={"tokenizer": END},
    vae={
        "block_out_channels": [4, 6, 6, 8],
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "scaling_factor": 0.18215,
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    },
    scheduler={"_class_name": "PNDMScheduler"},
    merges=100,
    single_file_tokenizers=True,
    dtype=torch.float32,
    variant=None,
)

TINY_SD21 = TinySd(
    name="tiny-sd21",
    seed=420,
    pipeline="StableDiffusionPipeline",
    clips={
        "text_encoder": (
            "CLIPTextModel",
            {
                "eos_token_id": None,
                "hidden_act": "gelu",
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_attention_heads": 4,
                "num_hidden_layers": 3,
            },
        )
    },
    pads={"tokenizer": "!"},
    vae={
        "block_out_channels": [4, 8, 8],
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "scaling_factor": 0.18215,
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    },
    scheduler={"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    merges=120,
    single_file_tokenizers=False,
    dtype=torch.float32,
    variant=None,
)

MODELS = (TINY_SDXL, TINY_SD15, TINY_SD21, TINY_REFINER)


def write_component(folder: Path, stem: str, config: dict, weights: Weights, variant: str | None, shards: int) -> None:
    write_json(folder / "config.json", config)
    write_weights(folder, stem, weights, shards, variant)


def write_model(model: TinySd, root: Path) -> None:
    """Writes root/NAME as a diffusers folder."""
    folder = root / model.name
    index = {
        "_class_name": model.pipeline,
        "_diffusers_version": VERSION,
        **(model.settings or {}),
        "scheduler": ["diffusers", model.scheduler["_class_name"]],
        **{component: ["transformers", kind] for component, (kind, _) in model.clips.items()},
        **{tokenizer: ["transformers", "CLIPTokenizer"] for tokenizer in model.pads},
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if model.pipeline == "StableDiffusionPipeline":
        index |= {"feature_extractor": [None, None], "safety_checker": [None, None], "requires_safety_checker": False}
    if "text_encoder" not in model.clips:
        index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER | model.scheduler)
    for tokenizer, pad in model.pads.items():
        vocabulary = write_clip(folder / tokenizer, model.merges, model.single_file_tokenizers, pad)

    unet = UNETS[model.name]()
    config = {k: v for k, v in unet.config.items() if k != "_use_default_values"}
    weights = {k: v.bfloat16() for k, v in unet.state_dict().items()}
    config = {"_class_name": "UNet2DConditionModel"} | config
    stem = "diffusion_pytorch_model"
    write_component(folder / "unet", stem, config, weights, model.variant, model.shards)

    def drawn(module: torch.nn.Module, kind: str, seed: int) -> Weights:
        return {k: v.to(model.dtype) for k, v in random_weights(published_shapes(module), kind, seed).items()}

    for offset, (component, (kind, sizes)) in enumerate(model.clips.items()):
        config = clip_config(sizes, model.dtype, vocabulary, kind)
        with torch.device("meta"):
            module = KINDS[kind](CLIPTextConfig(**config))
        weights = drawn(module, "text_encoder", model.seed + offset)
        write_component(folder / component, "model", config, weights, model.variant, 1)
    config = vae_config(model.vae)
    with torch.device("meta"):
        module = AutoencoderKL.from_config(config)
    write_component(folder / "vae", stem, config, drawn(module, "vae", model.seed + 9), model.variant, 1)
