#!/usr/bin/env python3
"""The floor of a UNet's step on one GPU: its convolutions, products and attentions alone, one CUDA graph, random data.

unet_floor.py [sdxl|sd15] [--pixels N] [--dtype float16] [--list]: the operations are those that diffusers' network
runs on both branches of a guided step, without what does not depend on the latents (embeddings of time, the prompt's
keys and values). Prints 20 steps back to back and one step after a rest times 20; --list prints the operations
instead and needs no GPU. Needs torch, diffusers and transformers.
"""

import argparse
import collections
import time

import torch
from diffusers import UNet2DConditionModel
from torch.overrides import TorchFunctionMode
from write_full_size import UNET

CONFIGS = {"sdxl": UNET, "sd15": {"sample_size": 64, "cross_attention_dim": 768}}
TEXT_TOKENS = 77
WIDEST = 128  # head of cuDNN's kernel


class Recorder(TorchFunctionMode):
    """What a forward calls of convolutions, products [rows, inputs] x [outputs, inputs] and attentions."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d:
            x, weight, _, stride, padding = args[:5]
            self.operations.append(("convolution", tuple(x.shape), tuple(weight.shape), stride[0], padding[0]))
        elif function is torch.nn.functional.linear:
            x, weight = args[:2]
            self.operations.append(("product", x.numel() // x.shape[-1], *weight.shape[::-1]))
        elif function is torch.nn.functional.scaled_dot_product_attention:
            query, key = args[:2]
            self.operations.append(("attention", tuple(query.shape), tuple(key.shape)))
        return function(*args, **kwargs)


def operations_of(name: str, pixels: int, dtype: torch.dtype) -> list[tuple]:
    config = CONFIGS[name]
    with torch.device("meta"):
        unet = UNet2DConditionModel(in_channels=4, out_channels=4, **config).to(dtype).eval()
        unet.fuse_qkv_projections()
        side = pixels // 8
        added = {"text_embeds": torch.empty(2, 1280, dtype=dtype), "time_ids": torch.empty(2, 6, dtype=dtype)}
        inputs = {
            "sample": torch.empty(2, 4, side, side, dtype=dtype),
            "timestep": torch.empty((), dtype=torch.int64),
            "encoder_hidden_states": torch.empty(2, TEXT_TOKENS, config["cross_attention_dim"], dtype=dtype),
            "added_cond_kwargs": added if "addition_embed_type" in config else None,
        }
        with Recorder() as recorder, torch.no_grad():
            unet(**inputs)
    few = 2 * TEXT_TOKENS  # rows of what is the prompt's or the time's
    return [op for op in recorder.operations if op[0] != "product" or op[1] > few]


def runner_of(operation: tuple, dtype: torch.dtype):
    """The operation on tensors of its own."""

    def drawn(*shape):
        return torch.randn(*shape, device="cuda", dtype=dtype) * 0.1

    kind = operation[0]
    if kind == "convolution":
        _, x_shape, weight_shape, stride, padding = operation
        x = drawn(*x_shape).contiguous(memory_format=torch.channels_last)
        weight = drawn(*weight_shape).contiguous(memory_format=torch.channels_last)
        return lambda: torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    if kind == "product":
        _, rows, inputs, outputs = operation
        x, weight = drawn(rows, inputs), drawn(outputs, inputs)
        return lambda: torch.nn.functional.linear(x, weight)
    _, query_shape, key_shape = operation
    batch, heads, queries, width = query_shape
    query = drawn(batch, queries, heads, width).transpose(1, 2)
    key, value = (drawn(batch, key_shape[2], heads, width).transpose(1, 2) for _ in range(2))
    if width > WIDEST:
        return lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return lambda: torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, False)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", choices=CONFIGS, default="sdxl")
    parser.add_argument("--pixels", type=int)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    pixels = arguments.pixels or CONFIGS[arguments.model]["sample_size"] * 8
    operations = operations_of(arguments.model, pixels, dtype)
    if arguments.list:
        for operation, count in collections.Counter(operations).items():
            print(count, *operation)
        return
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    runners = [runner_of(operation, dtype) for operation in operations]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            for run in runners:
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for run in runners:
                run()
        times = []
        for _ in range(10):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(20):
                graph.replay()
            torch.cuda.synchronize()
            times.append(round(time.perf_counter() - start, 4))
        time.sleep(2)
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        rested = 20 * (time.perf_counter() - start)
    kinds = collections.Counter(operation[0] for operation in operations)
    print(
        f"floor {arguments.model} {pixels} {arguments.dtype} ({dict(kinds)}): 20 steps {times[5:]} s, "
        f"one rested step x 20 {rested:.4f} s"
    )


if __name__ == "__main__":
    main()
