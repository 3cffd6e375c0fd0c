"""Small random FLUX pipelines in the published file layouts, and black-forest-labs' layout of a transformer."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from tiny_tokenizers import write_clip, write_json, write_t5
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

VERSION = "0.30.0.dev0"  # the diffusers that wrote the published folders
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TinyModel:
    """One pipeline: the parts of each config.json in which models differ, and how its files are laid out."""

    name: str
    seed: int
    transformer: dict
    clip: dict
    t5: dict
    vae: dict
    scheduler: dict
    clip_merges: int
    t5_pieces: int
    clip_single_file: bool  # tokenizer.json alone, else vocab.json and merges.txt
    t5_single_file: bool  # tokenizer.json alone, else spiece.model alone
    dtype: torch.dtype  # the dtype of the files
    transformer_dtype: torch.dtype  # the same of the transformer's
    shards: dict[str, int]
    variant: str | None


TINY_DEV = TinyModel(
    name="tiny-dev",
    seed=100,
    transformer={
        "attention_head_dim": 10,
        "axes_dims_rope": [2, 2, 6],
        "guidance_embeds": True,
        "in_channels": 64,
        "joint_attention_dim": 40,
        "num_attention_heads": 3,
        "num_layers": 2,
        "num_single_layers": 3,
        "pooled_projection_dim": 24,
    },
    # eos_token_id 2 is what FLUX.1 publishes: transformers then pools at the largest id
    clip={
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
    },
    t5={"d_ff": 56, "d_kv": 12, "d_model": 40, "num_heads": 3, "num_layers": 2, "vocab_size": 496},
    vae={
        "block_out_channels": [4, 4, 8, 8],
        "latent_channels": 16,
        "layers_per_block": 2,
        "norm_num_groups": 2,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    },
    scheduler={"shift": 3.0, "use_dynamic_shifting": True},
    clip_merges=160,
    t5_pieces=380,
    clip_single_file=False,
    t5_single_file=True,
    dtype=torch.float32,
    transformer_dtype=torch.bfloat16,
    shards={"transformer": 3, "text_encoder_2": 2},
    variant=None,
)

TINY_SCHNELL = TinyModel(
    name="tiny-schnell",
    seed=200,
    transformer={
        "attention_head_dim": 10,
        "axes_dims_rope": [2, 4, 4],
        "guidance_embeds": False,
        "in_channels": 16,
        "joint_attention_dim": 48,
        "num_attention_heads": 4,
        "num_layers": 1,
        "num_single_layers": 3,
        "pooled_projection_dim": 20,
    },
    clip={
        "eos_token_id": None,  # the tokenizer's own: transformers then pools at the first one
        "hidden_act": "gelu",
        "hidden_size": 20,
        "intermediate_size": 36,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
    },
    t5={
        "d_ff": 40,
        "d_kv": 8,
        "d_model": 48,
        "num_heads": 5,
        "num_layers": 3,
        "relative_attention_max_distance": 64,
        "relative_attention_num_buckets": 16,
        "vocab_size": 440,
    },
    vae={
        "block_out_channels": [6, 6, 9, 12],
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 3,
        "scaling_factor": 0.75,
        "shift_factor": -0.0609,
    },
    scheduler={"shift": 1.0, "use_dynamic_shifting": False},
    clip_merges=100,
    t5_pieces=340,
    clip_single_file=True,
    t5_single_file=False,
    dtype=torch.float16,
    transformer_dtype=torch.float16,
    shards={"transformer": 2},
    variant="fp16",
)

MODELS = (TINY_DEV, TINY_SCHNELL)

# Standard deviation of biases, and of matrices times sqrt(fan-in), by the end of the name; 0.3 and 1 where none fits.
GAINS = {
    "transformer": {"proj_out.weight": 0.9, "context_embedder.weight": 1.5, "norm_out.linear.weight": 0.5},
    "text_encoder": {"position_embedding.weight": 0.5},
    "text_encoder_2": {"relative_attention_bias.weight": 0.7, "SelfAttention.q.weight": 0.4},
    "unet": {"conv2.weight": 0.7, "to_out.0.weight": 0.7, "ff.net.2.weight": 0.7, "conv_out.weight": 1.5},
    "vae": {"conv_out.weight": 0.25, "conv_out.bias": 0.1},
}
TABLES = ("token_embedding.weight", "position_embedding.weight", "shared.weight", "relative_attention_bias.weight")


def random_weights(shapes: dict[str, torch.Size], component: str, seed: int) -> Weights:
    """Normal weights that keep activations near unit variance; norm scales and biases are random too."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in sorted(shapes.items()):
        noise = torch.randn(shape, generator=generator)
        is_vector = len(shape) == 1
        if is_vector and name.endswith("weight"):
            weights[name] = 1 + 0.25 * noise
            continue
        gain = next((g for end, g in GAINS[component].items() if name.endswith(end)), 0.3 if is_vector else 1.0)
        fan_in = 1 if is_vector or name.endswith(TABLES) else shape[1:].numel()
        weights[name] = noise * (gain / fan_in**0.5)
    return weights


def published_shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    """By the names in published files: transformers 5 drops CLIP's prefix, and has T5's `shared` under two names."""
    prefix = "text_model." if isinstance(module, CLIPTextModel) else ""
    return {prefix + k: v.shape for k, v in module.state_dict().items() if k != "encoder.embed_tokens.weight"}


def write_weights(folder: Path, stem: str, weights: Weights, shards: int, variant: str | None) -> None:
    """One safetensors file, or shards of about equal bytes with their index, named as diffusers names them."""
    infix = f".{variant}" if variant else ""
    if shards == 1:
        save_file(weights, folder / f"{stem}{infix}.safetensors", metadata={"format": "pt"})
        return
    total = sum(w.nbytes for w in weights.values())
    parts: list[Weights] = [{} for _ in range(shards)]
    written = 0
    for name, weight in weights.items():
        parts[min(written * shards // total, shards - 1)][name] = weight
        written += weight.nbytes
    weight_map = {}
    for i, part in enumerate(parts, start=1):
        file = f"{stem}{infix}-{i:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / f"{stem}.safetensors.index{infix}.json", index)


def transformer_config(model: TinyModel) -> dict:
    return {"_class_name": "FluxTransformer2DModel", "_diffusers_version": VERSION, "patch_size": 1} | model.transformer


def clip_config(sizes: dict, dtype: torch.dtype, vocab_size: int, kind: str = "CLIPTextModel") -> dict:
    """`sizes`: what differs from others; an eos_token_id of None is the tokenizer's own."""
    config = {
        "architectures": [kind],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "pad_token_id": 1,
        "projection_dim": sizes["hidden_size"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "vocab_size": vocab_size,
    } | sizes
    if config["eos_token_id"] is None:
        config |= {"bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1, "pad_token_id": vocab_size - 1}
    return config


def t5_config(model: TinyModel) -> dict:
    return {
        "architectures": ["T5EncoderModel"],
        "classifier_dropout": 0.0,
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new",
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "num_decoder_layers": model.t5["num_layers"],
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        "use_cache": True,
    } | model.t5


def vae_config(sizes: dict) -> dict:
    levels = len(sizes["block_out_channels"])
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": VERSION,
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "force_upcast": True,
        "in_channels": 3,
        "latents_mean": None,
        "latents_std": None,
        "mid_block_add_attention": True,
        "out_channels": 3,
        "sample_size": 1024,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_post_quant_conv": False,
        "use_quant_conv": False,
    } | sizes


def scheduler_config(model: TinyModel) -> dict:
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": VERSION,
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
    } | model.scheduler


MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": VERSION,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_model(model: TinyModel, root: Path) -> Weights:
    """Writes root/NAME as a diffusers folder. Returns the transformer's weights as they are stored there."""
    folder = root / model.name
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(model))
    clip_vocab = write_clip(folder / "tokenizer", model.clip_merges, model.clip_single_file)
    t5_vocab = write_t5(folder / "tokenizer_2", model.t5_pieces, model.t5_single_file)
    assert t5_vocab <= model.t5["vocab_size"]

    configs = {
        "text_encoder": clip_config(model.clip, model.dtype, clip_vocab),
        "text_encoder_2": t5_config(model),
        "transformer": transformer_config(model),
        "vae": vae_config(model.vae),
    }
    with torch.device("meta"):
        modules = {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
            "text_encoder_2": T5EncoderModel(T5Config(**configs["text_encoder_2"])),
            "transformer": FluxTransformer2DModel.from_config(configs["transformer"]),
            "vae": AutoencoderKL.from_config(configs["vae"]),
        }
    for offset, (component, module) in enumerate(modules.items()):
        shapes = published_shapes(module)
        weights = random_weights(shapes, component, model.seed + offset)
        dtype = model.transformer_dtype if component == "transformer" else model.dtype
        stored = {k: v.to(dtype) for k, v in weights.items()}
        if component == "transformer":
            transformer = stored
        write_json(folder / component / "config.json", configs[component])
        stem = "model" if component.startswith("text_encoder") else "diffusion_pytorch_model"
        write_weights(folder / component, stem, stored, model.shards.get(component, 1), model.variant)
    return transformer


def to_bfl(weights: Weights, double_blocks: int, single_blocks: int) -> Weights:
    """The weights under black-forest-labs' names: q, k, v (and the single blocks' MLP) fused, shift before scale."""
    bfl = {}

    def take(name: str, *sources: str) -> None:
        for kind in ("weight", "bias"):
            bfl[f"{name}.{kind}"] = torch.cat([weights[f"{source}.{kind}"] for source in sources])

    def take_scale(name: str, source: str) -> None:
        bfl[f"{name}.scale"] = weights[f"{source}.weight"]

    take("img_in", "x_embedder")
    take("txt_in", "context_embedder")
    embedders = {"time_in": "timestep_embedder", "guidance_in": "guidance_embedder", "vector_in": "text_embedder"}
    for name, source in embedders.items():
        if f"time_text_embed.{source}.linear_1.weight" in weights:
            take(f"{name}.in_layer", f"time_text_embed.{source}.linear_1")
            take(f"{name}.out_layer", f"time_text_embed.{source}.linear_2")
    for i in range(double_blocks):
        to, at = f"double_blocks.{i}", f"transformer_blocks.{i}"
        take(f"{to}.img_mod.lin", f"{at}.norm1.linear")
        take(f"{to}.txt_mod.lin", f"{at}.norm1_context.linear")
        take(f"{to}.img_attn.qkv", f"{at}.attn.to_q", f"{at}.attn.to_k", f"{at}.attn.to_v")
        take(f"{to}.txt_attn.qkv", f"{at}.attn.add_q_proj", f"{at}.attn.add_k_proj", f"{at}.attn.add_v_proj")
        take_scale(f"{to}.img_attn.norm.query_norm", f"{at}.attn.norm_q")
        take_scale(f"{to}.img_attn.norm.key_norm", f"{at}.attn.norm_k")
        take_scale(f"{to}.txt_attn.norm.query_norm", f"{at}.attn.norm_added_q")
        take_scale(f"{to}.txt_attn.norm.key_norm", f"{at}.attn.norm_added_k")
        take(f"{to}.img_attn.proj", f"{at}.attn.to_out.0")
        take(f"{to}.txt_attn.proj", f"{at}.attn.to_add_out")
        take(f"{to}.img_mlp.0", f"{at}.ff.net.0.proj")
        take(f"{to}.img_mlp.2", f"{at}.ff.net.2")
        take(f"{to}.txt_mlp.0", f"{at}.ff_context.net.0.proj")
        take(f"{to}.txt_mlp.2", f"{at}.ff_context.net.2")
    for i in range(single_blocks):
        to, at = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        take(f"{to}.modulation.lin", f"{at}.norm.linear")
        take(f"{to}.linear1", f"{at}.attn.to_q", f"{at}.attn.to_k", f"{at}.attn.to_v", f"{at}.proj_mlp")
        take(f"{to}.linear2", f"{at}.proj_out")
        take_scale(f"{to}.norm.query_norm", f"{at}.attn.norm_q")
        take_scale(f"{to}.norm.key_norm", f"{at}.attn.norm_k")
    take("final_layer.linear", "proj_out")
    take("final_layer.adaLN_modulation.1", "norm_out.linear")
    for kind in ("weight", "bias"):
        scale, shift = bfl[f"final_layer.adaLN_modulation.1.{kind}"].chunk(2)
        bfl[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    return bfl


def from_bfl(bfl: Weights, inner_dim: int) -> Weights:
    """diffusers' own conversion, with the width that it fixes at 3072 replaced."""
    source = inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    assert "inner_dim = 3072" in source
    scope: dict = {"torch": torch}
    exec(source.replace("inner_dim = 3072", f"inner_dim = {inner_dim}"), scope)
    return scope["convert_flux_transformer_checkpoint_to_diffusers"](dict(bfl))


def write_bfl(model: TinyModel, weights: Weights, path: Path) -> None:
    """The transformer as one file in black-forest-labs' layout; diffusers must read back the same weights."""
    sizes = model.transformer
    bfl = to_bfl(weights, sizes["num_layers"], sizes["num_single_layers"])
    save_file(bfl, path)
    back = from_bfl(bfl, sizes["num_attention_heads"] * sizes["attention_head_dim"])
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[k], weights[k]) for k in weights)
