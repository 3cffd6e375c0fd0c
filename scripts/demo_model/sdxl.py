"""A small SDXL in diffusers' and transformers' own classes."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from model import Architecture, new_vae, seed_noise, to_pictures
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

LATENT_CHANNELS = 4
TEXT_WIDTHS = (64, 96)
TIME_ID_WIDTH = 32  # of the embedding of each of the six numbers of TIME_IDS
TIME_IDS = (128, 128, 0, 0, 128, 128)  # original size, crop, target size: what the pipeline passes at 128 x 128
TIMES = 1000
GUIDANCE_SCALES = (1.0, 2.0)  # the samples' settings
SNR_CAP = 5.0
WEIGHT_CAP = 10.0


class Sdxl(Architecture):
    MODEL_INDEX = {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.31.0",
        "add_watermarker": None,
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    SCHEDULER = {  # as stable-diffusion-xl-base-1.0
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.31.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": TIMES,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "use_karras_sigmas": False,
    }
    CALL = {"num_inference_steps": 20, "guidance_scale": 2.0}
    TEXTS = ("clip", "clip2")

    def __init__(self, vocabulary: int, vocabulary_2: int):
        super().__init__()
        self.end_token = vocabulary - 1
        self.register_buffer("time_ids", torch.tensor(TIME_IDS), persistent=False)
        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(40, 48, 64), transformer_layers_per_block=(1, 1, 2), attention_head_dim=(5, 3, 4),
            cross_attention_dim=sum(TEXT_WIDTHS), use_linear_projection=True, norm_num_groups=8,
            addition_embed_type="text_time", addition_time_embed_dim=TIME_ID_WIDTH,
            projection_class_embeddings_input_dim=TEXT_WIDTHS[1] + len(TIME_IDS) * TIME_ID_WIDTH)
        self.unet.to(memory_format=torch.channels_last)
        self.clip = CLIPTextModel(clip_config(vocabulary, TEXT_WIDTHS[0], "quick_gelu"))
        self.clip2 = CLIPTextModelWithProjection(clip_config(vocabulary_2, TEXT_WIDTHS[1], "gelu"))
        for unused in (self.clip.encoder.layers[-1], self.clip.final_layer_norm):
            unused.requires_grad_(False)

    @staticmethod
    def save_tokenizers(texts: list[str], model: Path) -> dict[str, tuple[Any, int]]:
        import tokenizers_train as tokens  # needs sentencepiece, which train.py does without

        clip = tokens.save_clip(texts, model / "tokenizer")
        clip2 = tokens.save_clip(texts, model / "tokenizer_2", pad_token="!")
        return {"clip": (clip, tokens.CLIP_LENGTH), "clip2": (clip2, tokens.CLIP_LENGTH)}

    @staticmethod
    def new_vae() -> AutoencoderKL:
        return new_vae(block_out_channels=(24, 40, 64, 64), latent_channels=LATENT_CHANNELS, scaling_factor=1.0)

    @staticmethod
    @torch.no_grad()
    def normalize(vae: AutoencoderKL, means: Tensor) -> None:
        """SDXL's VAE has a scale and no shift: the 1 x 1 convolutions on both sides of the latents take the shift."""
        shift = means.mean(dim=(0, 2, 3))
        vae.quant_conv.bias[:LATENT_CHANNELS] -= shift
        vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ shift
        vae.register_to_config(scaling_factor=1 / (means - shift[:, None, None]).std().item())

    def parts(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text_encoder": self.clip, "text_encoder_2": self.clip2}

    def to_latents(self, means: Tensor, vae: AutoencoderKL) -> Tensor:
        return means * vae.config.scaling_factor

    def conditions(self, clip_ids: Tensor, clip2_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Text states [B, 77, 160] and pooled text [B, 96]; zeros for an empty prompt, as the pipeline's."""
        first = self.clip(clip_ids, output_hidden_states=True)
        second = self.clip2(clip2_ids, output_hidden_states=True)
        asked = (clip_ids[:, 1:2] != self.end_token).to(second.text_embeds.dtype)
        text = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return text * asked[:, None], second.text_embeds * asked

    def denoise(self, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        """The noise in x [B, 4, 16, 16], whose variance is 1, at times t [B] of 0..999."""
        time_ids = self.time_ids.expand(len(x), -1)
        return self.unet(x.to(text.dtype, memory_format=torch.channels_last), t, text,
                         added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}, return_dict=False)[0]

    def forward(self, x: Tensor, t: Tensor, clip_ids: Tensor, clip2_ids: Tensor) -> Tensor:
        return self.denoise(x, t, *self.conditions(clip_ids, clip2_ids))

    def loss(self, x0: Tensor, u: Tensor, ids: list[Tensor]) -> Tensor:
        t = (u * TIMES).long().clamp(max=TIMES - 1)
        signal = alphas_cumprod(u.device)[t][:, None, None, None]
        noise = torch.randn_like(x0)
        error = self(signal.sqrt() * x0 + (1 - signal).sqrt() * noise, t, *ids).float() - noise
        # An error of the noise is one of x0 times the SNR: the weight of x0's is 1 + SNR (Salimans & Ho 2022) up to a
        # cap on the SNR (Hang et al. 2023), and the noise's is capped too, for what its prediction cannot resolve.
        snr = signal / (1 - signal)
        weight = ((1 + snr).clamp(max=SNR_CAP) / snr).clamp(max=WEIGHT_CAP)
        return (weight * error.square()).mean()

    @torch.no_grad()
    def samples(self, vae: AutoencoderKL, names: list[Tensor], empty: list[Tensor]) -> dict[str, Tensor]:
        count, device = len(names[0]), names[0].device
        asked, unasked = self.conditions(*names), self.conditions(*(row[None].expand(count, -1) for row in empty))
        made = {}
        for scale in GUIDANCE_SCALES:
            scheduler = EulerDiscreteScheduler.from_config(self.SCHEDULER)
            scheduler.set_timesteps(self.CALL["num_inference_steps"], device=device)
            x = seed_noise(LATENT_CHANNELS).to(device).expand(count, -1, -1, -1) * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                scaled = scheduler.scale_model_input(x, t)
                noise = self.denoise(scaled, t, *asked)
                if scale > 1:
                    other = self.denoise(scaled, t, *unasked)
                    noise = other + scale * (noise - other)
                x = scheduler.step(noise, t, x, return_dict=False)[0]
            made[f"guidance {scale:g}"] = to_pictures(vae, x / vae.config.scaling_factor)
        return made


def clip_config(vocabulary: int, width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2,
        num_attention_heads=4, projection_dim=width, max_position_embeddings=77, hidden_act=activation,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1)


def alphas_cumprod(device: torch.device) -> Tensor:
    """The scheduler's share of the signal's variance at each time, [1000]."""
    begin, end = Sdxl.SCHEDULER["beta_start"] ** 0.5, Sdxl.SCHEDULER["beta_end"] ** 0.5
    return (1 - torch.linspace(begin, end, TIMES, device=device) ** 2).cumprod(0)
