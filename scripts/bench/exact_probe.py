#!/usr/bin/env python3
"""Do the rows of Torch's products and attention on a GPU keep their bits when a rank computes only some of them?

exact_probe.py [SECONDS]
Each shape that a plan can cut is computed at every row count; counts whose rows have the same bits form a class, named
by its counts. One class and no moved row: exact. Otherwise the classes, their largest difference to the first one
(relative to its largest element) and the kernels that made them.
"""

import itertools
import sys
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

CUDA = "cuda"
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
NAMES = {BF16: "bf16", FP16: "fp16", FP32: "fp32"}
START = time.monotonic()
SHOWN = 6  # classes
BUDGET = float(sys.argv[1]) if len(sys.argv) > 1 else 110
aten = torch.ops.aten


def spent():
    return time.monotonic() - START


def ranges(counts):
    """1-3 5 7-9 of counts."""
    parts = []
    for _, group in itertools.groupby(enumerate(sorted(counts)), lambda p: p[1] - p[0]):
        run = [count for _, count in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    if len(parts) > 24:
        parts[12:-12] = [f"...{len(parts) - 24} more..."]
    return " ".join(parts)


def cuts(full):
    """The counts of even and nearly even cuts over 1 to 8 ranks, of a long and of a short last part."""
    found = {full}
    for degree in range(2, 9):
        part = full // degree
        found |= {part - 1, part, part + 1, full - (degree - 1) * part, full - (degree - 1) * (part + 1)}
    return {count for count in found if 0 < count <= full} | {full - full // 8 + 1}


FULL = (512, 4096, 4608, 16384, 16896)
SMALL = {*range(1, 71), *range(100, 131), *range(190, 201), *range(250, 261), 511, 513, 575, 576, 577}
ROWS = sorted(SMALL.union(*(cuts(full) for full in FULL)), reverse=True)


def kernels(calls):
    """The kernels that each call starts, by the beginnings of their names."""
    marker = torch.empty(1, device=CUDA)
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for call in calls:
                call()
                marker.fill_(0)
            torch.cuda.synchronize()
        events = sorted((e for e in profile.events() if e.device_type.name == "CUDA"), key=lambda e: e.time_range.start)
        names = [[]]
        for event in events:
            if "FillFunctor" in event.name:
                names.append([])
            else:
                names[-1].append(event.name[:120])
        return [" + ".join(of_call) for of_call in names]
    except Exception as error:  # no CUPTI
        return [f"({type(error).__name__}: {error})"[:80]] * len(calls)


@dataclass
class Class:
    rows: torch.Tensor  # the longest result
    counts: list
    difference: float


def classes(function, rows, counts):
    """function(first, count) computes some of `rows` rows. Returns the classes, the counts whose last rows differ from
    those of all rows though their first ones do not, and the errors."""
    found, moved, failed = [], [], {}
    for count in counts:
        try:
            y = function(0, count)
            last = function(rows - count, count)
        except RuntimeError as error:
            failed[count] = str(error).splitlines()[0][:100]
            continue
        for known in found:
            if torch.equal(known.rows[:count], y):
                known.counts.append(count)
                break
        else:
            whole = found[0].rows if found else y
            error = (whole[:count].double() - y.double()).abs().max() / whole.abs().max()
            found.append(Class(y, [count], error.item()))
        if count in found[0].counts and not torch.equal(last, found[0].rows[rows - count :]):
            moved.append(count)
    return found, moved, failed


def report(name, function, rows, counts):
    """Returns whether any count could be computed."""
    if spent() > BUDGET:
        print(f"{name}: SKIPPED, {BUDGET:.0f} s are over")
        return False
    start = time.monotonic()
    found, moved, failed = classes(function, rows, counts)
    exact = len(found) == 1 and not moved and not failed
    print(f"{name}: {'exact' if exact else 'DIFFERS'} ({len(counts)} counts, {time.monotonic() - start:.1f} s)")
    if moved:
        print(f"    last rows differ: {ranges(moved)}")
    for message, group in itertools.groupby(failed.items(), lambda item: item[1]):
        print(f"    fails: {ranges([count for count, _ in group])}: {message}")
    if len(found) > 1 or moved:
        shown = found[:SHOWN]
        names = kernels([lambda m=known.counts[0]: function(0, m) for known in shown])
        for known, name in itertools.zip_longest(shown, names[: len(shown)]):
            print(f"    {known.difference:.1e}  {ranges(known.counts)}  [{name}]")
        if len(found) > SHOWN:
            print(f"    and {len(found) - SHOWN} more classes of {sum(len(k.counts) for k in found[SHOWN:])} counts")
    sys.stdout.flush()
    return bool(found)


def random(*shape, dtype, scale=1.0):
    return (torch.randn(shape, device=CUDA, dtype=FP32) * scale).to(dtype)


def linears():
    flux = {
        "qkv": (9216, 3072),
        "proj": (3072, 3072),
        "mlp_in": (12288, 3072),
        "mlp_out": (3072, 12288),
        "linear1": (21504, 3072),
        "linear2": (3072, 15360),
        "x_embedder": (3072, 64),
        "context": (3072, 4096),
        "proj_out": (64, 3072),
        "vae attention": (512, 512),
        "time_in.1": (3072, 256),
        "pooled_in.1": (3072, 768),
    }
    small = {  # the models of configs/demo and tests/data
        "demo qkv": (384, 128),
        "demo linear2": (128, 640),
        "demo proj_out": (32, 128),
        "tiny qkv": (90, 30),
        "tiny mlp_in": (120, 30),
        "tiny linear2": (30, 150),
        "tiny proj_out": (64, 30),
    }
    for dtype in (BF16, FP16, FP32):
        for name, (n, k) in (flux | small).items():
            rows = 700 if n * k < 1e5 else 4608 if dtype == FP32 else 16896
            x, w, b = random(rows, k, dtype=dtype), random(n, k, dtype=dtype, scale=k**-0.5), random(n, dtype=dtype)
            counts = sorted({rows, *(count for count in ROWS if count < rows)})
            label = f"{NAMES[dtype]} {name} {n}x{k}"
            report(label, lambda i, m, x=x, w=w, b=b: F.linear(x[i : i + m], w, b), rows, counts)
            if name.endswith(("mlp_in", "time_in.1")):
                gelu = lambda i, m, x=x, w=w, b=b: aten._addmm_activation(b, x[i : i + m], w.t(), use_gelu=True)  # noqa: E731
                report(label + " gelu", gelu, rows, counts)
            if name == "qkv":
                report(label + " no bias", lambda i, m, x=x, w=w: F.linear(x[i : i + m], w), rows, counts)
            if name in ("proj", "linear2"):  # a strided input
                wide = random(rows, k + 3072, dtype=dtype)[:, :k]
                report(label + " strided", lambda i, m, x=wide, w=w, b=b: F.linear(x[i : i + m], w, b), rows, counts)


def equal_columns(x, w, b, degrees):
    """Do a rank's outputs keep their bits where the ranks share the outputs? (In multiples of 8.)"""
    y, n, words = F.linear(x, w, b), len(w), []
    for degree in degrees:
        edges = [n * i // degree // 8 * 8 for i in range(degree)] + [n]
        same = all(torch.equal(F.linear(x, w[a:z], b[a:z]), y[:, a:z]) for a, z in itertools.pairwise(edges))
        words.append(f"{degree}:{'equal' if same else 'differs'}")
    return " ".join(words)


def columns():
    """Tensor parallelism cuts outputs; it need not be exact."""
    for dtype, (n, k), m in itertools.product((BF16, FP16, FP32), ((9216, 3072), (12288, 3072)), (4608, 4096, 512)):
        if spent() < BUDGET:
            x, w, b = random(m, k, dtype=dtype), random(n, k, dtype=dtype, scale=k**-0.5), random(n, dtype=dtype)
            print(f"{NAMES[dtype]} columns of {n}x{k}, M={m}: {equal_columns(x, w, b, (2, 3, 4, 6, 8))}", flush=True)


def modulation():
    """All steps in one product, whose outputs the ranks may share."""
    n, k = 344 * 3072, 3072
    w, b = torch.empty(n, k, device=CUDA, dtype=BF16).normal_(std=k**-0.5), random(n, dtype=BF16)
    x = random(50, k, dtype=BF16)
    report(f"bf16 modulation {n}x{k}", lambda i, m: F.linear(x[i : i + m], w, b), 50, list(range(50, 0, -1)))
    for m in (1, 4, 28, 50):
        print(f"bf16 columns of the modulation, M={m}: {equal_columns(x[:m], w, b, range(2, 9))}", flush=True)


def cudnn(q, k, v, log_sum_exp=False):
    scale = q.shape[-1] ** -0.5
    return aten._scaled_dot_product_cudnn_attention(q, k, v, None, log_sum_exp, 0.0, False, False, scale=scale)[0]


def attention_rows(name, call, dtype, heads, tokens, dim, counts):
    """Query rows over all keys, in the layout of the program: [T, H, D] seen as [1, H, T, D]."""
    q, k, v = (random(tokens, heads, dim, dtype=dtype) for _ in range(3))
    as_heads = lambda x: x[None].transpose(1, 2)  # noqa: E731
    one = lambda *heads_of: call(*map(as_heads, heads_of))[0].transpose(0, 1)  # noqa: E731
    function = lambda i, m: one(q[i : i + m], k, v)  # noqa: E731
    label = f"{NAMES[dtype]} {name} rows, {heads} x {dim}, T={tokens}"
    counts = sorted({count for count in counts if count <= tokens}, reverse=True)
    if not report(label, function, tokens, counts):
        return
    whole = function(0, tokens)
    equal = []
    for degree in (2, 3, 4, 6, 8, 12, 24):
        if heads % degree == 0:
            size = heads // degree
            parts = [one(*(x[:, h : h + size].contiguous() for x in (q, k, v))) for h in range(0, heads, size)]
            equal.append(f"{degree}:{'equal' if torch.equal(torch.cat(parts, 1), whole) else 'DIFFERS'}")
    reference = F.scaled_dot_product_attention(*(as_heads(x).double() for x in (q[:64], k, v)))[0].transpose(0, 1)
    error = ((whole[:64].double() - reference).norm() / reference.norm()).item()
    print(f"    heads {' '.join(equal)}; relative error {error:.1e}", flush=True)


def attention():
    counts = (4608, 4607, 2304, 1153, 1152, 922, 640, 577, 576, 513, 512, 511, 300, 257, 256, 193)
    counts += (192, 129, 128, 127, 100, 65, 64, 63, 33, 32, 16, 3, 2, 1)
    sdpa = F.scaled_dot_product_attention
    for dtype in (BF16, FP16):
        attention_rows("cudnn", cudnn, dtype, 24, 4608, 128, counts)
    with_sums = lambda q, k, v: cudnn(q, k, v, True)  # noqa: E731
    attention_rows("cudnn with log-sum-exp", with_sums, BF16, 24, 4608, 128, (4608, 2304, 577, 100, 64, 3, 1))
    flash = lambda q, k, v: aten._scaled_dot_product_flash_attention(q, k, v)[0]  # noqa: E731
    efficient = lambda q, k, v: aten._scaled_dot_product_efficient_attention(q, k, v, None, False)[0]  # noqa: E731
    attention_rows("flash", flash, BF16, 24, 4608, 128, counts)
    attention_rows("efficient", efficient, BF16, 24, 4608, 128, counts)
    for dtype, heads, tokens, dim in (
        (FP32, 24, 4608, 128),
        (FP32, 4, 333, 32),
        (FP32, 3, 97, 10),
        (FP32, 3, 97, 16),
        (BF16, 3, 97, 10),
        (FP16, 3, 97, 10),
        (BF16, 1, 4096, 512),
        (FP32, 1, 4096, 512),
        (BF16, 1, 1023, 8),
        (FP32, 1, 1023, 8),
    ):
        q = random(1, heads, tokens, dim, dtype=dtype)
        backend = torch.nn.attention.SDPBackend(torch._fused_sdp_choice(q, q, q)).name
        attention_rows(f"Torch's choice ({backend})", sdpa, dtype, heads, tokens, dim, (tokens, *counts))
    for dim, heads, tokens in ((16, 3, 97), (32, 4, 333), (64, 6, 1023), (64, 6, 97), (8, 1, 1023)):
        attention_rows("cudnn", cudnn, BF16, heads, tokens, dim, (tokens, 511, 257, 128, 97, 64, 49, 33, 32, 16, 3, 1))
    attention_rows("cudnn", cudnn, BF16, 24, 16896, 128, (16896, 8448, 2112, 577, 64, 3))


def main():
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "cuDNN", torch.backends.cudnn.version())
    for part in (linears, attention, columns, modulation):
        part()
        torch.cuda.empty_cache()
        print(f"-- {part.__name__} done at {spent():.0f} s", flush=True)


main()
