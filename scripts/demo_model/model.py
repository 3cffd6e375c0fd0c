"""What the demo models share: the contract of an architecture, the VAE, its pictures, and the diffusers folder."""

import copy
import shutil
import tarfile
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LATENT_SIZE = 16  # the VAE divides 128 by 8


def new_vae(**config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1,
        norm_num_groups=8, sample_size=128, force_upcast=False, **config)


class Architecture(nn.Module, ABC):
    """What is trained together: the denoiser and both text encoders, on the latents of a VAE trained before."""

    MODEL_INDEX: ClassVar[dict]  # model_index.json
    SCHEDULER: ClassVar[dict]  # scheduler_config.json
    CALL: ClassVar[dict]  # the pipeline's recommended arguments
    TEXTS: ClassVar[tuple[str, str]]  # the data's names of the two tokenizers

    @staticmethod
    @abstractmethod
    def save_tokenizers(texts: list[str], model: Path) -> dict[str, tuple[Any, int]]:
        """Trains both in the model's folder; name of TEXTS -> tokenizer, tokens of a row of the data."""

    @staticmethod
    @abstractmethod
    def new_vae() -> AutoencoderKL: ...

    @staticmethod
    @abstractmethod
    def normalize(vae: AutoencoderKL, means: Tensor) -> None:
        """Gives the VAE whose posteriors have these means [N, C, 16, 16] the shift and scale to unit variance."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The trained components by their folder's name."""

    @abstractmethod
    def to_latents(self, means: Tensor, vae: AutoencoderKL) -> Tensor:
        """Means of posteriors as the denoiser's x0."""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, *ids: Tensor) -> Tensor:
        """The denoiser's output for x at times t [B] under the prompts' ids [B, L], one of each of TEXTS."""

    @abstractmethod
    def loss(self, x0: Tensor, u: Tensor, ids: list[Tensor]) -> Tensor:
        """Mean loss of a batch at times of the uniform numbers u [B] in 0..1."""

    @abstractmethod
    def samples(self, vae: AutoencoderKL, names: list[Tensor], empty: list[Tensor]) -> dict[str, Tensor]:
        """What the pipeline makes of each prompt with seed 0, by settings: pictures as to_pictures gives them."""


def seed_noise(channels: int) -> Tensor:
    """The pipelines' first noise of seed 0, [1, C, 16, 16]."""
    return torch.randn(1, channels, LATENT_SIZE, LATENT_SIZE, generator=torch.Generator().manual_seed(0))


def to_pictures(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents as the VAE gave them [B, C, 16, 16] -> pictures [B, 128, 128, 3] uint8 on the CPU."""
    pictures = torch.cat([vae.decode(part, return_dict=False)[0].float() for part in latents.split(64)])
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()


def save(net: Architecture, vae: AutoencoderKL, skeleton: Path, archive: Path) -> None:
    """The diffusers folder in fp16 as one tar; skeleton holds its tokenizers, scheduler and model_index.json."""
    folder = archive.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(skeleton, folder)
    for name, part in {"vae": vae, **net.parts()}.items():
        copy.deepcopy(part).cpu().half().save_pretrained(folder / name)
        if getattr(part.config, "model_type", None) == "clip_text_model":
            rename_clip(folder / name / "model.safetensors")
    for path in folder.glob("*/*.safetensors"):
        path.chmod(0o644)
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    partial.replace(archive)
    shutil.rmtree(folder)


def rename_clip(path: Path) -> None:
    """Gives the tensors the names of the published files, whose prefix transformers 5 leaves out."""
    prefix = "text_model."
    tensors = {name if name.startswith("text_projection.") else prefix + name.removeprefix(prefix): tensor
               for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def load(net: Architecture, archive: Path) -> AutoencoderKL:
    """Fills net from a saved tar and returns its VAE, both in fp32."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        for name, part in net.parts().items():
            part.load_state_dict(type(part).from_pretrained(Path(folder) / name).state_dict())
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(Path(folder) / "vae"))
        vae.load_state_dict(load_file(Path(folder) / "vae" / "diffusion_pytorch_model.safetensors"))
        return vae
