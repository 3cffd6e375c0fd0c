"""A small FLUX.1-schnell in diffusers' and transformers' own classes."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FluxTransformer2DModel
from model import LATENT_SIZE, Architecture, new_vae, seed_noise, to_pictures
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

LATENT_CHANNELS = 8
GRID = LATENT_SIZE // 2  # 2 x 2 latents are one token
TEXT_WIDTH = 96
TIME_SHIFT = 1.5  # times lean towards noise, where the picture is decided


class Flux(Architecture):
    MODEL_INDEX = {
        "_class_name": "FluxPipeline",
        "_diffusers_version": "0.31.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    SCHEDULER = {  # as FLUX.1-schnell: a fixed shift
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": "0.31.0",
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
    }
    CALL = {"num_inference_steps": 16, "guidance_scale": 0.0, "max_sequence_length": 32}
    TEXTS = ("clip", "t5")

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

    @staticmethod
    def save_tokenizers(texts: list[str], model: Path) -> dict[str, tuple[Any, int]]:
        import tokenizers_train as tokens  # needs sentencepiece, which train.py does without

        clip = tokens.save_clip(texts, model / "tokenizer")
        t5 = tokens.save_t5(texts, model / "tokenizer_2")
        # The causal CLIP pools at the first end token, so what follows it need not be computed in training.
        return {"clip": (clip, max(map(len, clip(texts)["input_ids"]))), "t5": (t5, tokens.T5_LENGTH)}

    @staticmethod
    def new_vae() -> AutoencoderKL:
        return new_vae(block_out_channels=(24, 48, 64, 80), latent_channels=LATENT_CHANNELS, use_quant_conv=False,
                       use_post_quant_conv=False, scaling_factor=1.0, shift_factor=0.0)

    @staticmethod
    def normalize(vae: AutoencoderKL, means: Tensor) -> None:
        vae.register_to_config(shift_factor=means.mean().item(), scaling_factor=1 / means.std().item())

    def parts(self) -> dict[str, nn.Module]:
        return {"transformer": self.transformer, "text_encoder": self.clip, "text_encoder_2": self.t5}

    def to_latents(self, means: Tensor, vae: AutoencoderKL) -> Tensor:
        return pack((means - vae.config.shift_factor) * vae.config.scaling_factor)

    def forward(self, x: Tensor, t: Tensor, clip_ids: Tensor, t5_ids: Tensor) -> Tensor:
        """Velocity of x [B, 64, 32]."""
        text = self.t5(t5_ids).last_hidden_state  # [B, L, 96]
        pooled = self.clip(clip_ids).pooler_output  # [B, 96]
        return self.transformer(
            hidden_states=x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t,
            img_ids=image_ids(x.device), txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
            return_dict=False)[0]

    def loss(self, x0: Tensor, u: Tensor, ids: list[Tensor]) -> Tensor:
        t = TIME_SHIFT * u / (1 + (TIME_SHIFT - 1) * u)
        noise = torch.randn_like(x0)
        x = torch.lerp(x0, noise, t[:, None, None])
        return F.mse_loss(self(x, t, *ids).float(), noise - x0)

    @torch.no_grad()
    def samples(self, vae: AutoencoderKL, names: list[Tensor], empty: list[Tensor]) -> dict[str, Tensor]:
        count, steps = len(names[0]), self.CALL["num_inference_steps"]
        x = pack(seed_noise(LATENT_CHANNELS)).repeat(count, 1, 1).to(names[0].device)
        for i in range(steps):
            t = torch.full((count,), 1 - i / steps, device=x.device)
            x = x - self(x, t, *names).float() / steps
        return {"": to_pictures(vae, unpack(x) / vae.config.scaling_factor + vae.config.shift_factor)}


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
