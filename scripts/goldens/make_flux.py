#!/usr/bin/env python3
"""Makes tests/data/flux: small random FLUX pipelines and what diffusers computes with them. See README.md.

make_flux.py             writes the folder anew and prints how lively the numbers are
make_flux.py --check     writes it elsewhere and compares the bytes; exit status 1 where they differ
"""

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.utils.torch_utils import randn_tensor
from golden_folder import Tensors, half_errors, relative_error, run_script, save
from tiny_models import MODELS, TINY_DEV, TinyModel, write_bfl, write_model
from tiny_tokenizers import write_json
from transformers import T5EncoderModel

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "flux"
SIZE_LIMIT = 3_500_000  # bytes committed

LIGHTHOUSE = "a lighthouse on a cliff at dawn"
FOX = "a photograph of a red fox asleep in fresh snow"
LONG = " ".join(["an old map of an island with two harbours, seven hills and a lighthouse, drawn in brown ink,"] * 6)
UNICODE = "Ｆull ﬁne  Café №５\tПривет 灯台 🦊 it's ☕\u200d"  # noqa: RUF001


@dataclass(frozen=True)
class Case:
    """One call of the pipeline. Image i is prompts[i] with seeds[i]; all images are one batch."""

    name: str
    model: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    width: int
    height: int
    steps: int
    guidance: float = 3.5
    negative_prompt: str | None = None
    cfg_scale: float = 1.0
    max_sequence_length: int = 32
    shift: float | None = None  # replaces the scheduler's
    dtype: str = "float32"
    rng_dtype: str = "float32"
    noise_only: bool = False


DEV, SCHNELL = (model.name for model in MODELS)
CASES = (
    Case("dev-base", DEV, (LIGHTHOUSE,), (42,), 80, 48, 4),
    Case("dev-batch", DEV, (LIGHTHOUSE, FOX), (7, 8), 32, 48, 3, guidance=2.0),
    Case("dev-cfg", DEV, (FOX,), (3,), 48, 32, 3, negative_prompt="blurry, low quality", cfg_scale=2.5),
    Case("dev-cfg-batch", DEV, (FOX, LIGHTHOUSE), (11, 12), 48, 32, 2, negative_prompt="text", cfg_scale=1.5),
    Case("dev-sequence-16", DEV, (LIGHTHOUSE + ", soft light over a sea",), (1,), 32, 48, 2, max_sequence_length=16),
    Case("dev-sequence-512", DEV, (FOX,), (2,), 32, 48, 2, max_sequence_length=512),
    Case("dev-cut", DEV, (LONG,), (4,), 32, 48, 2, max_sequence_length=64),
    Case("dev-unicode", DEV, (UNICODE,), (5,), 32, 48, 2, max_sequence_length=48),
    Case("dev-empty", DEV, ("",), (0,), 32, 48, 2),
    Case("dev-large", DEV, (LIGHTHOUSE,), (42,), 96, 112, 3, guidance=5.0),
    Case("schnell-base", SCHNELL, (LIGHTHOUSE,), (42,), 48, 80, 4, guidance=0.0),
    Case("schnell-shift", SCHNELL, (LIGHTHOUSE,), (42,), 48, 48, 4, guidance=0.0, shift=3.0),
    Case("schnell-batch", SCHNELL, (FOX, FOX), (20, 21), 48, 32, 1, guidance=0.0),
    Case("schnell-cfg", SCHNELL, (FOX,), (6,), 48, 32, 2, guidance=0.0, negative_prompt="", cfg_scale=3.0),
    Case("schnell-sequence-256", SCHNELL, (FOX,), (2,), 48, 32, 2, guidance=0.0, max_sequence_length=256),
    Case("schnell-cut", SCHNELL, (LONG,), (4,), 48, 32, 2, guidance=0.0, max_sequence_length=64),
    Case("schnell-unicode", SCHNELL, (UNICODE,), (5,), 48, 32, 2, guidance=0.0, max_sequence_length=48),
    Case("noise-bfloat16", DEV, ("", ""), (42, 43), 48, 80, 0, rng_dtype="bfloat16", noise_only=True),
    Case("noise-float16", DEV, ("", ""), (42, 43), 48, 80, 0, rng_dtype="float16", noise_only=True),
    Case("noise-bfloat16-schnell", SCHNELL, ("",), (7,), 48, 48, 0, rng_dtype="bfloat16", noise_only=True),
)


def load_pipeline(folder: Path, model: TinyModel) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder / model.name, variant=model.variant, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generators(case: Case) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed) for seed in case.seeds]


def draw_noise(pipeline: FluxPipeline, case: Case) -> torch.Tensor:
    """What the loop starts from: drawn in rng_dtype, one generator an image, packed to [B, T, C], as float32."""
    channels = pipeline.transformer.config.in_channels // 4
    dtype = getattr(torch, case.rng_dtype)
    count = len(case.seeds)
    size = (channels, case.height, case.width)
    return pipeline.prepare_latents(count, *size, dtype, torch.device("cpu"), generators(case))[0].float()


def run_case(pipeline: FluxPipeline, case: Case) -> Tensors:
    """The tensors of `xdit-gen --trace`. latents.N and noise [B, T, C], image [B, 3, H, W] in 0..1."""
    tensors = {"noise": draw_noise(pipeline, case)}
    if case.noise_only:
        return tensors
    prompts = list(case.prompts)
    negatives = None if case.negative_prompt is None else [case.negative_prompt] * len(prompts)
    length = case.max_sequence_length
    padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    tensors["clip_ids"] = pipeline.tokenizer(prompts, max_length=77, **padded).input_ids
    tensors["t5_ids"] = pipeline.tokenizer_2(prompts, max_length=length, **padded).input_ids
    embeds, pooled, _ = pipeline.encode_prompt(prompts, max_sequence_length=length)
    tensors |= {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    if negatives:
        embeds, pooled, _ = pipeline.encode_prompt(negatives, max_sequence_length=length)
        tensors |= {"negative_prompt_embeds": embeds, "negative_pooled_prompt_embeds": pooled}

    def keep_latents(_, step: int, __, values: Tensors) -> Tensors:
        tensors[f"latents.{step + 1}"] = values["latents"].clone()
        return values

    scheduler = pipeline.scheduler
    if case.shift is not None:
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config, shift=case.shift)
    tensors["image"] = pipeline(
        prompts,
        negative_prompt=negatives,
        true_cfg_scale=case.cfg_scale,
        width=case.width,
        height=case.height,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        generator=generators(case),
        max_sequence_length=length,
        output_type="pt",
        callback_on_step_end=keep_latents,
    ).images
    pipeline.scheduler = scheduler
    return tensors


def make_schedules(folder: Path) -> list[dict]:
    """Sigmas (steps + 1, the last 0) and timesteps that the pipeline hands to the loop, at many lengths."""
    wanted = [(DEV, t, n, None) for t in (15, 63, 256, 1024, 4096, 6480) for n in (1, 4, 28)]
    wanted += [(SCHNELL, 1024, n, shift) for n in (1, 4, 50) for shift in (None, 3.0)]
    schedules = []
    for model, image_tokens, steps, shift in wanted:
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / model, subfolder="scheduler")
        config = scheduler.config
        if shift is not None:
            scheduler = FlowMatchEulerDiscreteScheduler.from_config(config, shift=shift)
        limits = (config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
        mu = calculate_shift(image_tokens, *limits)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        values = {"sigmas": scheduler.sigmas.tolist(), "timesteps": scheduler.timesteps.tolist()}
        schedules.append({"model": model, "image_tokens": image_tokens, "steps": steps, "shift": shift} | values)
    return schedules


# Inputs of the forwards whose error in bf16 and fp16 is measured, drawn anew for each seed. The timesteps and guidance
# scales, and a thousand times them, are exact in bf16: else diffusers' rounding of them hides every other error.
ERROR_INPUTS = {
    "seeds": list(range(2024, 2040)),
    "transformer_batch": 6,
    "image_tokens": [3, 5],
    "text_tokens": 24,
    "timesteps": [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125],
    "guidance": [1.0, 2.0, 4.0, 8.0, 1.0, 2.0],
    "t5_batch": 3,
    "t5_tokens": 32,
    "t5_ids": {model.name: [3, model.t5_pieces] for model in MODELS},  # first, and one past the last
    "vae_batch": 2,
    "vae_latent": [4, 6],
}


def transformer_forward(transformer: FluxTransformer2DModel, model: TinyModel, seed: int) -> torch.Tensor:
    """[B, T, C] from hidden states [B, T, C], text [B, S, D] and pooled text [B, P], drawn in this order."""
    inputs, sizes, dtype = ERROR_INPUTS, model.transformer, transformer.dtype
    batch, text_tokens, (rows, columns) = inputs["transformer_batch"], inputs["text_tokens"], inputs["image_tokens"]
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, rows * columns, sizes["in_channels"], generator=generator)
    text = torch.randn(batch, text_tokens, sizes["joint_attention_dim"], generator=generator)
    pooled = torch.randn(batch, sizes["pooled_projection_dim"], generator=generator)
    device = transformer.device
    return transformer(
        hidden_states=hidden.to(device, dtype),
        encoder_hidden_states=text.to(device, dtype),
        pooled_projections=pooled.to(device, dtype),
        timestep=torch.tensor(inputs["timesteps"], dtype=dtype, device=device),
        guidance=torch.tensor(inputs["guidance"], device=device) if sizes["guidance_embeds"] else None,
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, rows, columns, device, dtype),
        txt_ids=torch.zeros(text_tokens, 3, dtype=dtype, device=device),
    ).sample


def t5_forward(encoder: T5EncoderModel, model: TinyModel, seed: int) -> torch.Tensor:
    """[B, S, D] from uniform ids [B, S], none of them special."""
    shape = (ERROR_INPUTS["t5_batch"], ERROR_INPUTS["t5_tokens"])
    ids = torch.randint(*ERROR_INPUTS["t5_ids"][model.name], shape, generator=torch.Generator().manual_seed(seed))
    return encoder(ids.to(encoder.device))[0]


def vae_forward(vae: AutoencoderKL, model: TinyModel, seed: int) -> torch.Tensor:
    """The picture [B, 3, 8 h, 8 w], not clamped, of latents [B, C, h, w] that are not scaled or shifted any more."""
    shape = (ERROR_INPUTS["vae_batch"], model.vae["latent_channels"], *ERROR_INPUTS["vae_latent"])
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return vae.decode(latents.to(vae.device, vae.dtype)).sample


PARTS = {
    "transformer": (FluxTransformer2DModel, transformer_forward),
    "text_encoder_2": (T5EncoderModel, t5_forward),
    "vae": (AutoencoderKL, vae_forward),
}


def make_errors(folder: Path, model: TinyModel, device: str = "cpu") -> tuple[Tensors, dict]:
    """float32 outputs for the first seed, and diffusers' error in bf16 and fp16: root mean square over the seeds."""

    def outputs(dtype: torch.dtype) -> dict[str, list[torch.Tensor]]:
        results = {}
        for part, (kind, forward) in PARTS.items():
            # transformers keeps T5's `wo` in float32 when it loads in float16
            module = kind.from_pretrained(folder / model.name, subfolder=part, variant=model.variant, dtype=dtype)
            results[part] = [forward(module.to(device), model, seed) for seed in ERROR_INPUTS["seeds"]]
        return results

    return half_errors(outputs)


def report_case(case: Case, tensors: Tensors) -> None:
    """Prints, and asserts, that the case's numbers are neither constant nor saturated."""
    if case.noise_only:
        print(f"{case.name:24} noise std {tensors['noise'].std():.2f}")
        return
    stds = [tensors[f"latents.{i}"].std().item() for i in range(1, case.steps + 1)]
    image = tensors["image"]
    clipped = ((image == 0) | (image == 1)).float().mean().item()
    steps = " ".join(f"{s:.2f}" for s in stds)
    print(f"{case.name:24} latents std {steps}, image std {image.std():.3f}, at 0 or 1 {clipped:.1%}")
    assert all(0.3 < s < 3 for s in stds) and image.std() > 0.05 and clipped < 0.05, case.name
    assert all(t.isfinite().all() for t in tensors.values()), case.name


def report_influence(pipeline: FluxPipeline, name: str) -> None:
    """Prints, and asserts, how far the velocity moves (relative) when one input is exchanged."""
    embeds, pooled, text_ids = pipeline.encode_prompt([LIGHTHOUSE], max_sequence_length=32)
    other_embeds, other_pooled, _ = pipeline.encode_prompt([FOX], max_sequence_length=32)
    channels = pipeline.transformer.config.in_channels
    latents = randn_tensor((1, 15, channels), generator=torch.Generator().manual_seed(0))
    image_ids = pipeline._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32)

    def velocity(**changes: torch.Tensor) -> torch.Tensor:
        inputs = {
            "hidden_states": latents,
            "encoder_hidden_states": embeds,
            "pooled_projections": pooled,
            "timestep": torch.tensor([0.7]),
            "img_ids": image_ids,
            "txt_ids": text_ids,
        }
        if pipeline.transformer.config.guidance_embeds:
            inputs["guidance"] = torch.tensor([3.5])
        return pipeline.transformer(**(inputs | changes)).sample

    changes = {
        "encoder_hidden_states": other_embeds,
        "pooled_projections": other_pooled,
        "timestep": torch.tensor([0.6]),
        "img_ids": image_ids[:, [0, 2, 1]],
    }
    if pipeline.transformer.config.guidance_embeds:
        changes["guidance"] = torch.tensor([5.0])
    influence = {k: relative_error(velocity(**{k: v}), velocity()) for k, v in changes.items()}
    print(f"{name}: velocity moves by", ", ".join(f"{k} {v:.3f}" for k, v in influence.items()))
    assert min(influence.values()) > 0.01, name


def make(folder: Path) -> None:
    """Writes everything under folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "goldens").mkdir(parents=True)
    (folder / "errors").mkdir()
    errors = {}
    for model in MODELS:
        weights = write_model(model, folder)
        if model is TINY_DEV:
            write_bfl(model, weights, folder / f"{model.name}-bfl.safetensors")
        pipeline = load_pipeline(folder, model)
        report_influence(pipeline, model.name)
        for case in CASES:
            if case.model == model.name:
                tensors = run_case(pipeline, case)
                report_case(case, tensors)
                save(tensors, folder / "goldens" / f"{case.name}.safetensors")
        tensors, errors[model.name] = make_errors(folder, model)
        save(tensors, folder / "errors" / f"{model.name}.safetensors")
    print(json.dumps(errors))
    write_json(folder / "cases.json", {"cases": [asdict(case) for case in CASES]})
    write_json(folder / "errors.json", {"inputs": ERROR_INPUTS, "errors": errors})
    schedules = {"schedules": make_schedules(folder)}
    (folder / "schedules.json").write_text(json.dumps(schedules) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_script(__doc__, make, FOLDER, SIZE_LIMIT))
