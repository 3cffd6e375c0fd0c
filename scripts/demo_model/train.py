#!/usr/bin/env python3
"""Trains a demo model on what prepare.py wrote: first the VAE, then the denoiser and both text encoders.

train.py --model flux --data .train --out DIR --compile
Writes to DIR: model.tar (the diffusers folder, fp16), train.log, samples*.png, reconstructions.png.
"""

import argparse
import copy
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import glyphs
import model as demo
import numpy as np
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from PIL import Image
from torch import Tensor, nn

PROCESS_START = time.monotonic()
WARMUP_STEPS = 200
EMA_DECAY = 0.999
PROMPT_DROPOUT = 0.1
KL_WEIGHT = 2e-3


class Log:
    def __init__(self, path: Path):
        self.file = path.open("a")

    def __call__(self, text: str) -> None:
        line = f"{time.monotonic() - PROCESS_START:6.1f} s  {text}"
        print(line, flush=True)
        print(line, file=self.file, flush=True)


def trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


class Phase:
    """Trains a module on a loss within a number of seconds and keeps a moving average of it.

    On CUDA the module computes in bf16 beside fp32 master weights, and the whole step is one captured graph: the loss
    reads only static tensors and draws its own batch.
    """

    def __init__(self, module: nn.Module, loss: Callable[[], Tensor], peak_lr: float, log: Log):
        self.ema = copy.deepcopy(module).eval()
        self.ema_weights = trained(self.ema)
        self.masters = [p.detach().clone() for p in trained(module)]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        self.device = self.masters[0].device
        on_gpu = self.device.type == "cuda"
        self.module = module.to(torch.bfloat16 if on_gpu else torch.float32)
        self.weights = trained(self.module)
        self.loss, self.peak_lr, self.log = loss, peak_lr, log
        self.lr = torch.zeros((), device=self.device)
        self.optimizer = torch.optim.AdamW(self.masters, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01,
                                           fused=True, capturable=on_gpu)
        self.loss_sum = torch.zeros((), device=self.device)
        self.synchronize = torch.cuda.synchronize if on_gpu else lambda: None

    def step(self) -> None:
        self.module.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        with torch.no_grad():
            torch._foreach_copy_([m.grad for m in self.masters], [w.grad for w in self.weights])
            nn.utils.clip_grad_norm_(self.masters, 1.0)
            self.optimizer.step()
            torch._foreach_copy_(self.weights, self.masters)
            torch._foreach_lerp_(self.ema_weights, self.masters, 1 - EMA_DECAY)
            self.loss_sum += loss

    def captured(self) -> Callable[[], None]:
        """The step as a CUDA graph; as it is where there is no GPU."""
        if self.device.type != "cuda":
            return self.step
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(4):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.module.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def run(self, seconds: float, report: Callable[[], str], report_seconds: float = 60.0) -> nn.Module:
        """The learning rate follows the clock: linear warm-up, then a cosine to zero."""
        end = time.monotonic() + seconds
        step = self.captured()  # its warm-up steps have the rate 0 and leave the weights as they were
        self.loss_sum.zero_()
        self.synchronize()
        start = time.monotonic()
        self.log(f"steps begin, {end - start:.0f} s are left")
        good = self.snapshot()
        next_report, counted = start + report_seconds, 0
        for index in itertools.count():
            done = (time.monotonic() - start) / (end - start)
            if done >= 1:
                break
            self.lr.fill_(self.peak_lr * min(1, (index + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * done)))
            step()
            counted += 1
            if index % 10 == 9:
                self.synchronize()  # the queue of launches never runs ahead of the clock
            if time.monotonic() >= next_report:
                loss = self.loss_sum.item() / counted
                if math.isfinite(loss):
                    good = self.snapshot()
                    self.log(f"step {index + 1}, {done:.0%}, loss {loss:.5f} {report()}")
                else:
                    self.log(f"step {index + 1}: loss is not finite; back to the last report with half the rate")
                    self.restore(good)
                    self.peak_lr /= 2
                self.loss_sum.zero_()
                counted, next_report = 0, time.monotonic() + report_seconds
        self.synchronize()
        if counted and not math.isfinite(self.loss_sum.item()):
            self.restore(good)
        self.log(f"step {index}, done, loss {self.loss_sum.item() / max(counted, 1):.5f}")
        return self.ema

    def snapshot(self) -> list[Tensor]:
        return [w.detach().clone() for w in self.masters + self.ema_weights]

    @torch.no_grad()
    def restore(self, saved: list[Tensor]) -> None:
        torch._foreach_copy_(self.masters + self.ema_weights, saved)
        torch._foreach_copy_(self.weights, self.masters)
        for state in self.optimizer.state.values():
            state["exp_avg"].zero_()
            state["exp_avg_sq"].zero_()


def augment(pictures: Tensor) -> Tensor:
    """Shifts, scales, mirrors and recolours half of the pictures [B, 3, H, W] in -1..1; white stays white."""
    b, device = len(pictures), pictures.device
    scale = 1 + 0.15 * (torch.rand(b, device=device) * 2 - 1)
    mirror = torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    shift = 0.15 * (torch.rand(b, 2, device=device) * 2 - 1)
    zero = torch.zeros_like(scale)
    theta = torch.stack([torch.stack([scale * mirror, zero, shift[:, 0]], 1),
                         torch.stack([zero, scale, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    # Ink (0 is white) rather than light, so that the padding of the moved picture is white.
    ink = F.grid_sample(1 - pictures, grid, align_corners=False)
    ink = (ink * (0.7 + 0.6 * torch.rand(b, 3, 1, 1, device=device))).clamp(0, 2)
    keep = torch.rand(b, 1, 1, 1, device=device) < 0.5
    return torch.where(keep, pictures, 1 - ink)


def picture_loss(made: Tensor, real: Tensor) -> Tensor:
    """L1 of the pixels and of their differences along both axes, at full and half size."""
    total = torch.zeros((), device=made.device)
    for _ in range(2):
        error = made - real
        total = total + error.abs().mean()
        total = total + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        made, real = F.avg_pool2d(made, 2), F.avg_pool2d(real, 2)
    return total


def train_vae(vae: nn.Module, pictures: Tensor, seconds: float, batch: int, log: Log) -> nn.Module:
    device = pictures.device
    vae.to(device, memory_format=torch.channels_last)
    log(f"VAE: {sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters")

    def loss() -> Tensor:
        real = augment(pictures[torch.randint(len(pictures), (batch,), device=device)])
        dtype = vae.dtype
        mean, log_variance = moments(vae, real.to(dtype, memory_format=torch.channels_last))
        log_variance = log_variance.clamp(-20, 10)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        made = vae.decode(z.to(dtype), return_dict=False)[0].float()
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return picture_loss(made, real) + KL_WEIGHT * kl

    phase = Phase(vae, loss, peak_lr=2e-3, log=log)
    return phase.run(seconds, report=lambda: "")


def moments(vae: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Means and logarithms of the variances of the posteriors, in fp32."""
    return vae.encode(pictures, return_dict=False)[0].parameters.float().chunk(2, dim=1)


@torch.no_grad()
def encode(vae: nn.Module, pictures: Tensor) -> Tensor:
    """Means of the posteriors, [N, C, 16, 16]."""
    return torch.cat([moments(vae, part)[0] for part in pictures.split(64)])


@torch.no_grad()
def refit_output(vae: nn.Module, pictures: Tensor, means: Tensor) -> None:
    """Solves the decoder's last layer by least squares: training in bf16 leaves it a small shift of all colours."""
    layer, features = vae.decoder.conv_out, []
    hook = layer.register_forward_pre_hook(lambda _layer, inputs: features.append(inputs[0]))
    gram, target = 0, 0
    for part, real in zip(means.split(8), pictures.split(8)):
        vae.decode(part)
        patches = F.pad(F.unfold(features.pop(), 3, padding=1), (0, 0, 0, 1), value=1.0)  # [B, 9 C + 1, H W]
        x = patches.transpose(0, 1).flatten(1).double()
        gram, target = gram + x @ x.T, target + x @ real.transpose(0, 1).flatten(1).double().T
    hook.remove()
    ridge = 1e-7 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(gram + ridge, target).float()  # [9 C + 1, 3]
    layer.weight.copy_(solution[:-1].T.reshape(layer.weight.shape))
    layer.bias.copy_(solution[-1])


def train_denoiser(net: demo.Architecture, latents: Tensor, data: dict[str, Tensor], seconds: float, batch: int,
                   peak_lr: float, checkpoint: Callable[[nn.Module], str], log: Log) -> nn.Module:
    device = latents.device
    log(", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M"
                  for name, part in net.parts().items()) + " parameters")
    emoji_count, prompt_count = data[net.TEXTS[0] + "_ids"].shape[:2]
    slots = torch.arange(batch, device=device)

    def loss() -> Tensor:
        emoji = torch.randint(emoji_count, (batch,), device=device)
        prompt = torch.randint(prompt_count, (batch,), device=device)
        dropped = torch.rand(batch, 1, device=device) < PROMPT_DROPOUT
        ids = [torch.where(dropped, data[name + "_empty"], data[name + "_ids"][emoji, prompt]) for name in net.TEXTS]
        u = (slots + torch.rand(batch, device=device)) / batch  # stratified
        return net.loss(latents[emoji], u, ids)

    phase = Phase(net, loss, peak_lr=peak_lr, log=log)
    return phase.run(seconds, report=lambda: checkpoint(phase.ema), report_seconds=100)


def save_grid(path: Path, pictures: np.ndarray, columns: int = 26) -> None:
    rows = -(-len(pictures) // columns)
    grid = np.full((rows * columns, *pictures.shape[1:]), 255, np.uint8)
    grid[:len(pictures)] = pictures
    size = pictures.shape[1]
    grid = grid.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)
    Image.fromarray(grid).reduce(2).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=ARCHITECTURES, default="flux")
    parser.add_argument("--data", type=Path, required=True, help="folder written by prepare.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae-seconds", type=float, default=110)
    parser.add_argument("--seconds", type=float, default=450, help="of the denoiser's phase, compilation included")
    parser.add_argument("--deadline", type=float, default=600, help="seconds of the process by which all is written")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--vae-batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3, help="peak rate of the denoiser's phase")
    parser.add_argument("--resume", type=Path, help="model.tar to go on from; its VAE is kept")
    parser.add_argument("--compile", action="store_true", help="torch.compile the denoiser and the encoders")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    log = Log(arguments.out / "train.log")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    # Flash and plain attention alone: with the others the backward pass reads outside of its memory (torch 2.11, H100).
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    device = torch.device(arguments.device)
    arrays = np.load(arguments.data / "data.npz")
    real = arrays["glyphs"]
    pictures = torch.from_numpy(real).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    net = ARCHITECTURES[arguments.model](*arrays["sizes"].tolist())
    data = {name: torch.from_numpy(arrays[name].astype(np.int64)).to(device)
            for name in (f"{text}_{kind}" for text in net.TEXTS for kind in ("ids", "empty", "names"))}
    skeleton, archive = arguments.data / "model", arguments.out / "model.tar"
    log(f"{device}: {torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}, {len(real)} glyphs")

    if arguments.resume:
        vae = demo.load(net, arguments.resume).to(device)
    else:
        vae = train_vae(net.new_vae(), pictures, arguments.vae_seconds, arguments.vae_batch, log)
        net.normalize(vae, encode(vae, pictures))
        means = encode(vae, pictures)
        refit_output(vae, pictures, means)
        with torch.no_grad():
            made = torch.cat([vae.decode(part, return_dict=False)[0] for part in means.split(64)]).float().clamp(-1, 1)
        error = ((made - pictures) / 2).square().mean(dim=(1, 2, 3))
        log(f"VAE: PSNR {(-10 * error.log10()).mean():.2f} dB, worst {(-10 * error.log10()).min():.2f} dB; "
            f"latents' shift {vae.config.shift_factor or 0:.4f}, scale {vae.config.scaling_factor:.4f}")
        save_grid(arguments.out / "reconstructions.png",
                  ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        demo.save(net, vae, skeleton, archive)
    vae.requires_grad_(False).eval()
    net.to(device)
    if arguments.compile:
        net.compile(fullgraph=True)

    def checkpoint(ema: nn.Module) -> str:
        demo.save(ema, vae, skeleton, archive)
        samples = ema.samples(vae, *([data[f"{text}_{kind}"] for text in net.TEXTS] for kind in ("names", "empty")))
        return "; ".join(judge(settings, made.numpy()) for settings, made in samples.items())

    def judge(settings: str, made: np.ndarray) -> str:
        save_grid(arguments.out / ("-".join(["samples", *settings.split()]) + ".png"), made)
        right = glyphs.distances(made, real).argmin(1) == np.arange(len(real))
        error = np.mean((made / 255.0 - real / 255.0) ** 2, axis=(1, 2, 3))
        return (f"{settings} nearest glyph right {right.mean():.1%}, "
                f"median PSNR {np.median(-10 * np.log10(error)):.2f} dB").lstrip()

    seconds = min(arguments.seconds, arguments.deadline - 15 - (time.monotonic() - PROCESS_START))
    latents = net.to_latents(encode(vae, pictures), vae)
    ema = train_denoiser(net, latents, data, seconds, arguments.batch, arguments.lr, checkpoint, log)
    log(checkpoint(ema))
    log(f"wrote {archive.name}, {archive.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
