#!/usr/bin/env python3
"""Makes tests/data/samplers: what diffusers' schedulers (k-diffusion where it has none) do. See README.md.

make_samplers.py             writes the folder anew
make_samplers.py --check     writes it elsewhere and compares; exit status 1 where they differ
"""

import functools
import importlib.util
import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from golden_folder import run_script, save
from sampler_cases import LATENT_DIFFUSION, SAMPLERS, SPREADS, VELOCITY, Case, Sampler, cases

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "samplers"
SIZE_LIMIT = 1_500_000  # bytes committed
SHAPE = (1, 2, 3, 5)
SEED = 42


def model(latents: torch.Tensor, timestep: torch.Tensor | float) -> torch.Tensor:
    """What stands for a network: the test computes the same."""
    places = torch.arange(latents.numel(), dtype=torch.float32).reshape(SHAPE)
    return torch.tanh(latents * 0.7 + torch.cos(places + torch.as_tensor(timestep).float() * 0.003))


def picture() -> torch.Tensor:
    return torch.sin(torch.arange(math.prod(SHAPE), dtype=torch.float32)).reshape(SHAPE)


def scheduler_of(case: Case, kind: Sampler) -> diffusers.SchedulerMixin:
    """diffusers' class as from_config makes it, with its levels set."""
    settings = dict(kind.settings)
    if case.sigmas in SPREADS:
        settings |= {switch: name == case.sigmas for name, switch in SPREADS.items()}
    elif case.sigmas == "sgm-uniform":
        settings["timestep_spacing"] = "trailing"
    if case.timestep_spacing != "auto":
        settings["timestep_spacing"] = case.timestep_spacing
    scheduler = getattr(diffusers, kind.kind).from_config(LATENT_DIFFUSION | case.config | settings)
    scheduler.set_timesteps(case.steps)
    if case.sigmas == "simple":
        set_simple_levels(scheduler, kind, case.steps)
    return scheduler


def set_simple_levels(scheduler: diffusers.SchedulerMixin, kind: Sampler, steps: int) -> None:
    """ComfyUI's formula: every (1000 / steps)-th level, counted from the last one."""
    timesteps = [999 - int(i * (1000 / steps)) for i in range(steps)]
    if kind.kind == "PNDMScheduler":
        scheduler.plms_timesteps = np.array([timesteps[0], *timesteps[1:2], *timesteps[1:]])
        scheduler.timesteps = torch.tensor(scheduler.plms_timesteps)
        return
    if "whole" in kind.has:
        scheduler.timesteps = torch.tensor(timesteps)
        return
    sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()[timesteps]
    steps_of = torch.tensor(timesteps, dtype=scheduler.timesteps.dtype)
    if scheduler.order == 1:
        scheduler.sigmas, scheduler.timesteps = torch.cat([sigmas, torch.zeros(1)]), steps_of
        return
    # The class's own interleaving, of other levels.
    real = np.interp
    np.interp = lambda *_: sigmas.double().numpy()
    before = np.linspace
    np.linspace = lambda *_, **__: np.array(timesteps[::-1], dtype=np.float32)
    try:
        scheduler.set_timesteps(steps)
    finally:
        np.interp, np.linspace = real, before


Run = tuple[torch.Tensor, list[torch.Tensor]]  # the model's times, latents before and after each evaluation


def run_diffusers(case: Case, kind: Sampler) -> Run:
    scheduler = scheduler_of(case, kind)
    return run_scheduler(scheduler, case, lambda noise: noise * scheduler.init_noise_sigma)


def run_flow(case: Case) -> Run:
    switch = {SPREADS[case.sigmas]: True} if case.sigmas in SPREADS else {}
    heun = case.sampler == "flow-match-heun"
    kind = diffusers.FlowMatchHeunDiscreteScheduler if heun else diffusers.FlowMatchEulerDiscreteScheduler
    scheduler = kind.from_config(case.config | switch)
    if heun:
        scheduler.set_timesteps(case.steps)
    else:
        sigmas = np.linspace(1.0, 1 / case.steps, case.steps)
        if case.sigmas == "simple":
            sigmas = np.array([(10000 - int(i * (10000 / case.steps))) / 10000 for i in range(case.steps)])
        slope = (case.config["max_shift"] - case.config["base_shift"]) / (4096 - 256)
        mu = case.config["base_shift"] + slope * (case.image_tokens - 256)
        scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    return run_scheduler(scheduler, case, lambda noise: noise)


def run_scheduler(
    scheduler: diffusers.SchedulerMixin, case: Case, begin: Callable[[torch.Tensor], torch.Tensor]
) -> Run:
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(SHAPE, generator=generator)
    latents = begin(noise)
    timesteps, first = scheduler.timesteps, case.first * scheduler.order
    if first:
        if case.sampler == "lms":  # else it takes the weights of slopes that it does not have
            scheduler.sigmas, scheduler.timesteps, timesteps = scheduler.sigmas[first:], timesteps[first:], timesteps
            scheduler.set_begin_index(0)
        elif hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        start = timesteps[first : first + 1]
        add = getattr(scheduler, "add_noise", None)
        latents = add(picture(), noise, start) if add else scheduler.scale_noise(picture(), start, noise)
    else:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
    takes_generator = "generator" in scheduler.step.__code__.co_varnames
    made = [latents]
    for timestep in timesteps[first:]:
        scale = getattr(scheduler, "scale_model_input", lambda x, _: x)
        output = model(scale(latents, timestep), timestep)
        extra = {"generator": generator} if takes_generator else {}
        latents = scheduler.step(output, timestep, latents, **extra, return_dict=False)[0]
        made.append(latents)
    return timesteps, made


@functools.cache
def load_k_diffusion() -> types.ModuleType:
    """Its samplers without what its package loads for training."""
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dimensions: x[(...,) + (None,) * (dimensions - x.ndim)]
    package.utils = utils
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    from k_diffusion import external, sampling

    return types.SimpleNamespace(external=external, sampling=sampling)


def run_k_diffusion(case: Case, kind: Sampler) -> Run:
    """On the levels that diffusers' Euler takes."""
    k = load_k_diffusion()
    euler = next(s for s in SAMPLERS if s.name == "euler")
    scheduler = scheduler_of(case, euler)
    seen, times = [], []

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        times.append(timestep)
        return model(latents, timestep)

    velocity = case.config.get("prediction_type") == VELOCITY
    wrapper = k.external.DiscreteVDDPMDenoiser if velocity else k.external.DiscreteEpsDDPMDenoiser
    denoiser = wrapper(predict, scheduler.alphas_cumprod, quantize=False)

    def denoise(latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(latents)
        return denoiser(latents, sigma)

    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(SHAPE, generator=generator)
    first = case.first
    latents = picture() + noise * scheduler.sigmas[first] if first else noise * scheduler.init_noise_sigma
    name = {"euler-ancestral": "euler_ancestral", "dpm++-2s-ancestral": "dpmpp_2s_ancestral"}[kind.name]
    final = getattr(k.sampling, f"sample_{name}")(
        denoise,
        latents,
        scheduler.sigmas[first:],
        disable=True,
        noise_sampler=lambda *_: torch.randn(SHAPE, generator=generator),
    )
    order = 2 if kind.name == "dpm++-2s-ancestral" else 1
    skipped = torch.zeros(first * order)
    return torch.cat([skipped, torch.cat([t.reshape(1) for t in times])]), [*seen, final]


def run(case: Case) -> Run:
    if case.sampler.startswith("flow"):
        return run_flow(case)
    kind = next(s for s in SAMPLERS if s.name == case.sampler)
    if kind.kind == "k-diffusion" or ("k-spread" in kind.has and case.sigmas in SPREADS):
        return run_k_diffusion(case, kind)
    return run_diffusers(case, kind)


def kept(count: int) -> list[int]:
    """Which latents of a run are kept: those of its beginning and end, and every fifth."""
    return sorted({*range(min(count, 9)), *range(0, count, 5), count - 1})


def rescaled_guidance() -> dict[str, torch.Tensor]:
    """Predictions and their guided combination at scale 7.5, rescaled by 0.7 (Lin et al. 2023, section 3.4)."""
    generator = torch.Generator().manual_seed(SEED)
    positive, negative = (torch.randn(1, 4, 24, 16, generator=generator) for _ in range(2))
    guided = negative + 7.5 * (positive - negative)
    return {
        "positive": positive[0],
        "negative": negative[0],
        "guided": rescale_noise_cfg(guided, positive, guidance_rescale=0.7)[0],
    }


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors, listed = {}, []
    for case in cases():
        if case.name() in {c["name"] for c in listed}:
            continue
        timesteps, latents = run(case)
        for stage in latents:
            assert stage.dtype == torch.float32 and stage.isfinite().all(), case.name()
        rows = kept(len(latents))
        number = str(len(listed))
        tensors[f"{number}.timesteps"] = timesteps.to(torch.float32)
        tensors[f"{number}.latents"] = torch.stack([latents[i][0] for i in rows])
        listed.append({"name": case.name(), "rows": rows} | case.__dict__)
    save(tensors, folder / "samplers.safetensors")
    save(rescaled_guidance(), folder / "guidance.safetensors")
    lines = ",\n".join(json.dumps(case) for case in listed)
    (folder / "cases.json").write_text(f'{{"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(listed)} cases")


if __name__ == "__main__":
    sys.exit(run_script(__doc__, make, FOLDER, SIZE_LIMIT))
