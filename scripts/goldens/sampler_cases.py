"""The runs of samplers that tests/data/samplers holds: every sampler, spacing, prediction and setting."""

from collections.abc import Iterator
from dataclasses import dataclass, field

# What scheduler_config.json of Stable Diffusion says, and what counts where it says nothing.
LATENT_DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
SPREADS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
SPACINGS = ("linspace", "leading", "trailing")
EPSILON, VELOCITY, SAMPLE = "epsilon", "v_prediction", "sample"


@dataclass(frozen=True)
class Sampler:
    """A sampler of ours and its class; `has` names what the class's config knows."""

    name: str
    kind: str
    has: frozenset[str] = frozenset()
    settings: dict = field(default_factory=dict)  # that the name fixes


def sampler(name: str, kind: str, has: str, **settings: object) -> Sampler:
    return Sampler(name, kind, frozenset(has.split()), settings)


SAMPLERS = (
    sampler("euler", "EulerDiscreteScheduler", "spread sample snr final"),
    sampler("euler-ancestral", "EulerAncestralDiscreteScheduler", "snr k-spread"),
    sampler("heun", "HeunDiscreteScheduler", "spread sample clip"),
    sampler("dpm++-2m", "DPMSolverMultistepScheduler", "spread sample snr final solver"),
    sampler(
        "dpm++-2m-sde",
        "DPMSolverMultistepScheduler",
        "spread sample snr final solver",
        algorithm_type="sde-dpmsolver++",
    ),
    sampler("dpm++-2s-ancestral", "k-diffusion", "k-spread snr"),
    sampler("dpm-2", "KDPM2DiscreteScheduler", "spread"),
    sampler("ddim", "DDIMScheduler", "sample snr clip whole"),
    sampler("ddpm", "DDPMScheduler", "sample snr clip variance whole"),
    sampler("pndm", "PNDMScheduler", "prk whole"),
    sampler("lms", "LMSDiscreteScheduler", "spread sample"),
    sampler("unipc", "UniPCMultistepScheduler", "spread sample snr final solver"),
    sampler("lcm", "LCMScheduler", "sample snr clip"),
)


@dataclass
class Case:
    """One run: the model's config, and what the user says over it."""

    sampler: str
    steps: int
    config: dict
    sigmas: str = "default"
    timestep_spacing: str = "auto"
    first: int = 0  # step; more than 0 begins with a picture
    image_tokens: int = 0

    def name(self) -> str:
        config = {k: v for k, v in self.config.items() if LATENT_DIFFUSION.get(k, FLOW.get(k)) != v}
        said = [f"{k}={v}" for k, v in sorted(config.items())]
        said += [f"first={self.first}"] if self.first else []
        said += [f"tokens={self.image_tokens}"] if self.image_tokens else []
        return " ".join([self.sampler, str(self.steps), self.sigmas, self.timestep_spacing, *said])


def sigmas_of(kind: Sampler) -> tuple[str, ...]:
    """What --sigmas takes with the sampler, but for default."""
    spread = tuple(SPREADS) if kind.has & {"spread", "k-spread"} else ()
    return spread if kind.name == "lcm" else (*spread, "sgm-uniform", "simple")


def cases() -> Iterator[Case]:
    """Every sampler x spacing of sigmas or timesteps x prediction over 8 and 30 steps, then one setting at a time."""
    for kind in SAMPLERS:
        for steps in (8, 30):
            for prediction in (EPSILON, VELOCITY):
                config = LATENT_DIFFUSION | {"prediction_type": prediction}
                for spacing in SPACINGS:
                    yield Case(kind.name, steps, config, timestep_spacing=spacing)
                for sigmas in sigmas_of(kind):
                    yield Case(kind.name, steps, config, sigmas)
            if "snr" in kind.has:
                yield from without_terminal_signal(kind, steps)
            yield Case(kind.name, steps, LATENT_DIFFUSION, first=steps // 3)
        yield from settings_of(kind)
    for steps in (8, 30):
        for sigmas in ("default", *SPREADS):
            for tokens in (256, 1003):
                yield Case("flow-match-euler", steps, FLOW, sigmas, image_tokens=tokens)
            yield Case("flow-match-euler", steps, FLOW | {"use_dynamic_shifting": False}, sigmas)
        yield Case("flow-match-euler", steps, FLOW, "simple", image_tokens=1003)
        yield Case("flow-match-euler", steps, FLOW, "sgm-uniform", image_tokens=1003)
        yield Case("flow-match-euler", steps, FLOW | {"time_shift_type": "linear"}, image_tokens=1003)
        yield Case("flow-match-euler", steps, FLOW | {"shift_terminal": 0.02}, image_tokens=1003)
        yield Case("flow-match-euler", steps, FLOW, first=steps // 3, image_tokens=1003)
        for shift in (1.0, 3.0):
            yield Case("flow-match-heun", steps, FLOW | {"shift": shift})
        yield Case("flow-match-heun", steps, FLOW, first=steps // 3)


def without_terminal_signal(kind: Sampler, steps: int) -> Iterator[Case]:
    """Every spacing that reaches the last level, which is then 4096."""
    config = LATENT_DIFFUSION | {"prediction_type": VELOCITY, "rescale_betas_zero_snr": True}
    yield Case(kind.name, steps, config, timestep_spacing="trailing")
    # From there an ancestral step goes down to what float32's rounding leaves of two levels: a last bit of linspace's
    # levels moves the latents, and of some of beta's it leaves nothing, where k-diffusion has one evaluation for two.
    if "ancestral" not in kind.name:
        yield Case(kind.name, steps, config, timestep_spacing="linspace")
    for sigmas in sigmas_of(kind):
        if (kind.name, sigmas) != ("dpm++-2s-ancestral", "beta"):
            yield Case(kind.name, steps, config, sigmas)


def settings_of(kind: Sampler) -> Iterator[Case]:
    """Settings of a scheduler_config.json, one at a time."""

    def with_(steps: int = 8, **settings: object) -> Case:
        return Case(kind.name, steps, LATENT_DIFFUSION | settings)

    yield Case(kind.name, 8, {})  # says nothing
    yield with_(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    yield with_(beta_schedule="squaredcos_cap_v2", timestep_spacing="leading")
    yield with_(timestep_spacing="leading", steps_offset=0)
    yield with_(timestep_spacing="trailing", use_karras_sigmas=True)
    yield with_(rescale_betas_zero_snr=True, prediction_type=VELOCITY, timestep_spacing="leading")
    if "spread" in kind.has:
        yield with_(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
        yield with_(timestep_spacing="leading", use_exponential_sigmas=True)
    if "sample" in kind.has:
        yield with_(prediction_type=SAMPLE)
    if "final" in kind.has:
        yield with_(final_sigmas_type="sigma_min")
        yield with_(final_sigmas_type="sigma_min", use_beta_sigmas=True)
    if "clip" in kind.has:
        yield with_(clip_sample=True)
        yield with_(clip_sample=True, clip_sample_range=2.0, set_alpha_to_one=True)
    if "variance" in kind.has:
        yield with_(variance_type="fixed_large")
    if "prk" in kind.has:
        for prediction in (EPSILON, VELOCITY):
            yield with_(skip_prk_steps=False, prediction_type=prediction)
        yield with_(set_alpha_to_one=True)
    if "solver" in kind.has:
        for steps in (8, 30):
            for order in (1, 3):
                yield with_(steps, solver_order=order)
        yield with_(20, solver_order=3, final_sigmas_type="sigma_min", lower_order_final=False)
        if kind.name == "unipc":  # bh1 ends in 0 x infinity at a last level of zero
            for order in (2, 3):
                yield with_(solver_order=order, solver_type="bh1", final_sigmas_type="sigma_min")
        else:
            for order in (2, 3):
                yield with_(solver_order=order, solver_type="heun")
            yield with_(20, euler_at_final=True, final_sigmas_type="sigma_min")
