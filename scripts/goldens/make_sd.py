#!/usr/bin/env python3
"""Makes tests/data/sd: small random SDXL, SD 1.5 and SD 2.1 pipelines and diffusers' numbers. See README.md.

make_sd.py             writes the folder anew and prints how lively the numbers are
make_sd.py --check     writes it elsewhere and compares the bytes; exit status 1 where they differ
"""

import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler
from golden_folder import Tensors, half_errors, relative_error, run_script, save
from ldm_layout import single_file, write_file
from make_flux import FOX, LIGHTHOUSE, LONG, UNICODE, generators
from tiny_sd import KINDS, MODELS, TINY_REFINER, TINY_SD15, TINY_SD21, TINY_SDXL, TinySd, write_model
from tiny_tokenizers import write_json

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "sd"
SIZE_LIMIT = 4_200_000  # bytes committed


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
    cfg_scale: float
    negative_prompt: str | None = None
    original_size: tuple[int, int] | None = None  # width and height
    crop: tuple[int, int] | None = None  # left and top
    target_size: tuple[int, int] | None = None  # width and height
    refiner_start: float | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5
    guidance_rescale: float = 0.0
    scheduler: str | None = None  # xdit-gen's name; the pipeline's own


XL, SD15, SD21 = TINY_SDXL.name, TINY_SD15.name, TINY_SD21.name
CASES = (
    Case("sdxl-base", XL, (LIGHTHOUSE,), (42,), 80, 48, 4, 5.0, "blurry, low quality"),
    Case("sdxl-odd", XL, (FOX,), (3,), 72, 104, 3, 7.5),  # no negative prompt: zeros
    Case("sdxl-batch", XL, (LIGHTHOUSE, FOX), (7, 8), 56, 40, 2, 3.0, "text"),
    Case("sdxl-plain", XL, (UNICODE,), (5,), 48, 64, 2, 1.0),
    Case("sdxl-bang", XL, ("a red fox! asleep!!",), (6,), 48, 48, 2, 4.0, "snow!"),
    Case("sdxl-cut", XL, (LONG,), (4,), 32, 48, 2, 1.0),
    Case("sdxl-sizes", XL, (FOX,), (9,), 64, 48, 2, 5.0, "snow", (512, 768), (16, 4), (1024, 640)),
    Case("refined-base", XL, (LIGHTHOUSE,), (42,), 80, 48, 5, 5.0, "blurry", refiner_start=0.6),
    Case("refined-odd", XL, (FOX,), (3,), 56, 72, 4, 3.0, None, (512, 768), (16, 4), None, 0.8, 7.0, 1.5),
    Case("refined-plain", XL, (UNICODE,), (5,), 48, 40, 3, 1.0, refiner_start=0.5),
    Case("sdxl-ancestral", XL, (FOX, LIGHTHOUSE), (7, 8), 56, 40, 4, 3.0, "text", scheduler="euler-ancestral"),
    Case("sdxl-sde", XL, (LIGHTHOUSE,), (3,), 48, 64, 4, 5.0, scheduler="dpm++-2m-sde"),
    Case("refined-ancestral", XL, (FOX,), (6,), 48, 40, 5, 3.0, refiner_start=0.6, scheduler="euler-ancestral"),
    Case("refined-rescaled", XL, (FOX,), (3,), 48, 40, 4, 7.5, "text", refiner_start=0.5, guidance_rescale=0.4),
    Case("sd15-base", SD15, (LIGHTHOUSE,), (42,), 80, 48, 4, 7.5),
    Case("sd15-odd", SD15, (FOX,), (1,), 72, 88, 3, 5.0, "blurry"),
    Case("sd15-batch", SD15, (FOX, LONG), (11, 12), 40, 56, 2, 7.5, "text"),
    Case("sd15-plain", SD15, (UNICODE,), (5,), 48, 48, 3, 1.0),
    Case("sd15-sde", SD15, (FOX, UNICODE), (11, 12), 40, 56, 3, 5.0, "text", scheduler="dpm++-2m-sde"),
    Case("sd21-base", SD21, (LIGHTHOUSE,), (42,), 40, 24, 4, 7.5, "blurry"),
    Case("sd21-odd", SD21, ("a red fox! asleep",), (2,), 56, 72, 3, 3.0),
    Case("sd21-rescaled", SD21, (LIGHTHOUSE, FOX), (7, 8), 40, 24, 3, 9.0, guidance_rescale=0.7),
)
SCHEDULERS = {XL: "euler", SD15: "pndm", SD21: "ddim"}  # xdit-gen's names of the pipelines' own
OTHERS = {
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpm++-2m-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
}


def load_pipeline(folder: Path, model: TinySd) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(folder / model.name, variant=model.variant, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def scheduled(pipelines: list[DiffusionPipeline], name: str | None) -> Iterator[None]:
    """Another scheduler in the pipelines, from the configs of their own."""
    own = [pipeline.scheduler for pipeline in pipelines]
    for pipeline in pipelines if name else []:
        kind, settings = OTHERS[name]
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **settings)
    yield
    for pipeline, scheduler in zip(pipelines, own, strict=True):
        pipeline.scheduler = scheduler


def draw_noise(pipeline: DiffusionPipeline, case: Case) -> torch.Tensor:
    """Standard normal noise [B, C, h, w], one generator an image."""
    scale = pipeline.vae_scale_factor
    size = (1, pipeline.unet.config.in_channels, case.height // scale, case.width // scale)
    return torch.cat([torch.randn(size, generator=generator) for generator in generators(case)])


def embed(pipeline: DiffusionPipeline, case: Case) -> Tensors:
    """What the pipeline's encoders make of the prompts."""
    prompts, guided = list(case.prompts), case.cfg_scale > 1
    negatives = None if case.negative_prompt is None else [case.negative_prompt] * len(prompts)
    padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt", "max_length": 77}
    tensors = {}
    if pipeline.tokenizer is not None:
        tensors["clip_ids"] = pipeline.tokenizer(prompts, **padded).input_ids
    options = {"do_classifier_free_guidance": guided, "negative_prompt": negatives}
    options |= {"device": "cpu", "num_images_per_prompt": 1}
    if case.model != XL:
        embeds = pipeline.encode_prompt(prompts, **options)
        names = ["prompt_embeds", "negative_prompt_embeds"]
    else:
        tensors["clip2_ids"] = pipeline.tokenizer_2(prompts, **padded).input_ids
        embeds = pipeline.encode_prompt(prompts, **options)
        names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    return tensors | {k: v for k, v in zip(names, embeds, strict=True) if guided or not k.startswith("negative")}


def run_case(pipeline: DiffusionPipeline, case: Case, refiner: DiffusionPipeline | None = None) -> Tensors:
    """The tensors of `xdit-gen --trace`. latents.N and noise [B, C, h, w], image [B, 3, H, W] in 0..1."""
    tensors = {"noise": draw_noise(pipeline, case)} | embed(pipeline, case)

    def keep_latents(_, __, ___, values: Tensors) -> Tensors:
        tensors[f"latents.{sum(k.startswith('latents.') for k in tensors) + 1}"] = values["latents"].clone()
        return values

    sizes = {}
    if case.original_size:
        sizes["original_size"] = case.original_size[::-1]
    if case.crop:
        sizes["crops_coords_top_left"] = case.crop[::-1]
    if case.target_size:
        sizes["target_size"] = case.target_size[::-1]
    common = {
        "negative_prompt": None if case.negative_prompt is None else [case.negative_prompt] * len(case.prompts),
        "guidance_scale": case.cfg_scale,
        "guidance_rescale": case.guidance_rescale,
        "num_inference_steps": case.steps,
        "generator": generators(case),
        "callback_on_step_end": keep_latents,
        **sizes,
    }
    whole = {"width": case.width, "height": case.height, "output_type": "pt"}
    if case.refiner_start is not None:
        whole |= {"denoising_end": case.refiner_start, "output_type": "latent"}
    tensors["image"] = pipeline(list(case.prompts), **common, **whole).images
    if case.refiner_start is None:
        return tensors
    tensors |= {f"refiner_{k}": v for k, v in embed(refiner, case).items()}
    tensors["image"] = refiner(
        list(case.prompts),
        image=tensors["image"],
        denoising_start=case.refiner_start,
        aesthetic_score=case.aesthetic_score,
        negative_aesthetic_score=case.negative_aesthetic_score,
        output_type="pt",
        negative_original_size=sizes.get("original_size"),
        negative_crops_coords_top_left=sizes.get("crops_coords_top_left", (0, 0)),
        **common,
    ).images
    return tensors


# Inputs of the forwards whose error in bf16 and fp16 is measured, drawn anew for each seed.
ERROR_INPUTS = {
    "seeds": list(range(2024, 2040)),
    "clip_tokens": 16,
    "vae_latent": [5, 3],
}


def clip_forward(encoder: torch.nn.Module, seed: int) -> Tensors:
    """Of uniform ids [1, T], the last of them the end token's, the states [T, C] that pipelines take, and [P]."""
    end = encoder.config.vocab_size - 1
    shape, generator = (1, ERROR_INPUTS["clip_tokens"]), torch.Generator().manual_seed(seed)
    ids = torch.randint(end, shape, generator=generator)
    ids[0, -1] = end
    states = encoder(ids.to(encoder.device), output_hidden_states=True)
    pooled = states.text_embeds if "text_embeds" in states else states.pooler_output
    return {"last": states.last_hidden_state[0], "penultimate": states.hidden_states[-2][0], "pooled": pooled[0]}


def vae_forward(vae: AutoencoderKL, seed: int, upcasts: bool) -> torch.Tensor:
    """The picture [1, 3, 8 h, 8 w], not clamped, of latents [1, C, h, w] that are not scaled any more, and whether
    diffusers' pipeline decodes them in float32."""
    shape = (1, vae.config.latent_channels, *ERROR_INPUTS["vae_latent"])
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(vae.device, vae.dtype)
    if upcasts and vae.dtype == torch.float16 and vae.config.force_upcast:
        vae, latents = copy.deepcopy(vae).float(), latents.float()
    return vae.decode(latents).sample


def make_errors(folder: Path, model: TinySd, device: str = "cpu") -> tuple[Tensors, dict]:
    """float32 outputs for the first seed, and diffusers' error in bf16 and fp16: root mean square over the seeds."""
    upcasts = model.pipeline != "StableDiffusionPipeline"

    def outputs(dtype: torch.dtype) -> dict[str, list[torch.Tensor]]:
        options = {"variant": model.variant, "dtype": dtype}
        vae = AutoencoderKL.from_pretrained(folder / model.name, subfolder="vae", **options).to(device)
        results = {"vae": [vae_forward(vae, seed, upcasts) for seed in ERROR_INPUTS["seeds"]]}
        for part, (kind, _) in model.clips.items():
            encoder = KINDS[kind].from_pretrained(folder / model.name, subfolder=part, **options).to(device)
            states = [clip_forward(encoder, seed) for seed in ERROR_INPUTS["seeds"]]
            results |= {f"{part}.{name}": [state[name] for state in states] for name in states[0]}
        return results

    return half_errors(outputs)


def report_case(case: Case, tensors: Tensors) -> None:
    """Prints, and asserts, that the case's numbers are neither constant nor saturated."""
    latents = [v for k, v in tensors.items() if k.startswith("latents.")]
    image = tensors["image"]
    clipped = ((image == 0) | (image == 1)).float().mean().item()
    steps = " ".join(f"{v.std():.2f}" for v in latents)
    print(f"{case.name:12} latents std {steps}, image std {image.std():.3f}, at 0 or 1 {clipped:.1%}")
    assert all(0.05 < v.std() < 60 for v in latents) and image.std() > 0.05 and clipped < 0.1, case.name
    assert all(t.isfinite().all() for t in tensors.values()), case.name


def report_influence(pipeline: DiffusionPipeline, model: TinySd, refiner: DiffusionPipeline) -> None:
    """Prints, and asserts, how far the last latents move (relative) when one input is exchanged."""
    base = Case("", model.name, (LIGHTHOUSE,), (0,), 48, 40, 2, 3.0, "text")
    changes = {"prompt": {"prompts": (FOX,)}, "negative": {"negative_prompt": "blurry"}, "scale": {"cfg_scale": 4.0}}
    changes["rescale"] = {"guidance_rescale": 0.7}
    if model is TINY_SDXL:
        sizes = {"original_size": (512, 768), "crop": (0, 256), "target_size": (1024, 640)}
        changes |= {key: {key: value} for key, value in sizes.items()}

    def moves(changes: dict[str, dict], **common: float) -> dict[str, float]:
        def latents(**change: object) -> torch.Tensor:
            return run_case(pipeline, Case(**(asdict(base) | common | change)), refiner)["latents.2"]

        return {k: relative_error(latents(**change), latents()) for k, change in changes.items()}

    moved = moves(changes)
    if model is TINY_SDXL:
        scores = {"aesthetic_score": 9.0, "negative_aesthetic_score": 6.0, "refiner_start": 0.9}
        moved |= moves({key: {key: value} for key, value in scores.items()}, refiner_start=0.0001)
    print(f"{model.name}: latents move by", ", ".join(f"{k} {v:.3f}" for k, v in moved.items()))
    assert min(moved.values()) > 0.005, model.name


def check_single_file(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Asserts that diffusers reads the folder's weights out of ldm_layout.py's single file."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.safetensors"
        write_file(file, single_file(folder))
        read = type(pipeline).from_single_file(str(file), config=str(folder), torch_dtype=torch.float32)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(pipeline, name, None) is not None:
            expected, found = getattr(pipeline, name).state_dict(), getattr(read, name).state_dict()
            assert expected.keys() == found.keys(), name
            assert all(torch.equal(expected[k], found[k]) for k in expected), name


def make(folder: Path) -> None:
    """Writes everything under folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "goldens").mkdir(parents=True)
    (folder / "errors").mkdir()
    errors = {}
    for model in MODELS:
        write_model(model, folder)
    refiner = load_pipeline(folder, TINY_REFINER)
    for model in MODELS:
        pipeline = load_pipeline(folder, model)
        check_single_file(pipeline, folder / model.name)
        if model is not TINY_REFINER:
            report_influence(pipeline, model, refiner)
        for case in CASES:
            if case.model == model.name:
                with scheduled([pipeline, refiner], case.scheduler):
                    tensors = run_case(pipeline, case, refiner)
                report_case(case, tensors)
                save(tensors, folder / "goldens" / f"{case.name}.safetensors")
        tensors, errors[model.name] = make_errors(folder, model)
        save(tensors, folder / "errors" / f"{model.name}.safetensors")
    print(json.dumps(errors))
    write_json(folder / "errors.json", {"inputs": ERROR_INPUTS, "errors": errors})
    cases = [asdict(case) | {"scheduler": case.scheduler or SCHEDULERS[case.model]} for case in CASES]
    write_json(folder / "cases.json", {"cases": cases})


if __name__ == "__main__":
    sys.exit(run_script(__doc__, make, FOLDER, SIZE_LIMIT))
