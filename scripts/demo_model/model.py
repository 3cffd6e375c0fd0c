"""The demo model: a small FLUX in diffusers' and transformers' own classes, its folder, and a batch sampler."""

import copy
import shutil
import tarfile
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

LATENT_CHANNELS = 8
LATENT_SIZE = 16  # the VAE divides 128 by 8
GRID = LATENT_SIZE // 2  # 2 x 2 latents are one token
TEXT_WIDTH = 96
STEPS = 16


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(24, 48, 64, 80), layers_per_block=1, latent_channels=LATENT_CHANNELS, norm_num_groups=8,
        sample_size=128, use_quant_conv=False, use_post_quant_conv=False, force_upcast=False,
        scaling_factor=1.0, shift_factor=0.0)


class Flux(nn.Module):
    """What is trained together: the transformer and both text encoders."""

    def __init__(self, clip_vocabulary: int, t5_vocabulary: int):
        super().__init__()
        self.transformer = FluxTransformer2DModel(
            in_channels=4 * LATENT_CHANNELS, num_layers=2, num_single_layers=9, attention_head_dim=32,
            num_attention_heads=4, axes_dims_rope=(8, 12, 12), joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH, guidance_embeds=False)
        self.clip = CLIPTextModel(CLIPTextConfig(
            vocab_size=clip_vocabulary, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=2,
            num_attention_heads=4, projection_dim=TEXT_WIDTH, max_position_embeddings=77,
            bos_token_id=clip_vocabulary - 2, eos_token_id=clip_vocabulary - 1, pad_token_id=clip_vocabulary - 1))
        self.t5 = T5EncoderModel(T5Config(
            vocab_size=t5_vocabulary, d_model=TEXT_WIDTH, d_kv=24, num_heads=4, d_ff=2 * TEXT_WIDTH, num_layers=2,
            num_decoder_layers=0, feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False,
            is_encoder_decoder=False, use_cache=False))
        # The transformer rounds times to the dtype of its input: that stays fp32 up to its first layer.
        self.transformer.x_embedder.register_forward_pre_hook(
            lambda layer, inputs: (inputs[0].to(layer.weight.dtype),))

    def forward(self, x: Tensor, t: Tensor, clip_ids: Tensor, t5_ids: Tensor) -> Tensor:
        """Velocity of x [B, 64, 32] at times t [B] under the prompts' ids [B, L]."""
        text = self.t5(t5_ids).last_hidden_state  # [B, L, 96]
        pooled = self.clip(clip_ids).pooler_output  # [B, 96]
        return self.transformer(
            hidden_states=x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t,
            img_ids=image_ids(x.device), txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
            return_dict=False)[0]


def image_ids(device: torch.device) -> Tensor:
    """Row and column of each token, [64, 3]."""
    rows, columns = torch.meshgrid(*(torch.arange(GRID, device=device, dtype=torch.float32),) * 2, indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


def pack(latents: Tensor) -> Tensor:
    """[B, C, 16, 16] -> [B, 64, 4 C], as FluxPipeline packs."""
    b, c = latents.shape[:2]
    return latents.view(b, c, GRID, 2, GRID, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, GRID * GRID, 4 * c)


def unpack(tokens: Tensor) -> Tensor:
    """[B, 64, 4 C] -> [B, C, 16, 16]."""
    b, _, c = tokens.shape
    return tokens.view(b, GRID, GRID, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, 2 * GRID, 2 * GRID)


@torch.no_grad()
def sample(flux: Flux, vae: AutoencoderKL, clip_ids: Tensor, t5_ids: Tensor, steps: int = STEPS) -> Tensor:
    """What FluxPipeline makes of each prompt with seed 0: pictures [B, 128, 128, 3] uint8 on the CPU."""
    noise = torch.randn(1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=torch.Generator().manual_seed(0))
    x = pack(noise).repeat(len(t5_ids), 1, 1).to(t5_ids.device)
    for i in range(steps):
        t = torch.full((len(x),), 1 - i / steps, device=x.device)
        x = x - flux(x, t, clip_ids, t5_ids).float() / steps
    latents = unpack(x) / vae.config.scaling_factor + vae.config.shift_factor
    pictures = torch.cat([vae.decode(part, return_dict=False)[0].float() for part in latents.split(64)])
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()


def save(flux: Flux, vae: AutoencoderKL, skeleton: Path, archive: Path) -> None:
    """The diffusers folder in fp16 as one tar; skeleton holds its tokenizers, scheduler and model_index.json."""
    folder = archive.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(skeleton, folder)
    parts = {"vae": vae, "transformer": flux.transformer, "text_encoder": flux.clip, "text_encoder_2": flux.t5}
    for name, part in parts.items():
        copy.deepcopy(part).cpu().half().save_pretrained(folder / name)
    rename_clip(folder / "text_encoder" / "model.safetensors")
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
    tensors = {prefix + name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def load(flux: Flux, archive: Path) -> AutoencoderKL:
    """Fills flux from a saved tar and returns its VAE, both in fp32."""
    parts = {"transformer": (FluxTransformer2DModel, flux.transformer), "text_encoder": (CLIPTextModel, flux.clip),
             "text_encoder_2": (T5EncoderModel, flux.t5)}
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        for name, (kind, part) in parts.items():
            part.load_state_dict(kind.from_pretrained(Path(folder) / name).state_dict())
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(Path(folder) / "vae"))
        vae.load_state_dict(load_file(Path(folder) / "vae" / "diffusion_pytorch_model.safetensors"))
        return vae
