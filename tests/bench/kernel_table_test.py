#!/usr/bin/env python3
"""Holds kernel_table.py to traces whose steps, gaps and exchange are known."""

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import kernel_table
from kernel_table import Span, Steps, beginnings, charge, group_of

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = "_ZN4xdit4cuda40_GLOBAL__N__61803e3e_8_graph_cu_a451248c"  # nvcc's unnamed namespace
PRODUCT = "nvjet_sm90_hsh_128x256_64x4_1x2_h_bz_coopA_NTT"
ATTENTION = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3i_128x128x128_4x1x1_cga1x1x1_kernel0_0"
CONVOLUTION = "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_warpgroupsize1x1x1"
NORM = OURS + "17layer_norm_kernelI6__halfLi8ELi1ELb0EEEvNS0_9LayerNormE"
WAIT = OURS + "20await_signals_kernelENS0_5BatchINS0_6SignalEEEPKcNS0_7WaitingE"
ADD = "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIfEESt5arrayIPcLm3EEEEviT0_T1_"

GROUP_OF = {
    PRODUCT: "products",
    "cutlass_80_wmma_tensorop_f16_s161616gemm_f16_16x16_128x2_tn_align8": "products",
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64_warpgroupsize1x1x1_execute_segment_k": "products",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float>(float*)": "products",
    ATTENTION: "attention",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, cutlass::half_t> >()": "attention",
    "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::half_t>)": "attention",
    OURS + "23prompt_attention_kernelI6__halfLi2EEEvNS0_15PromptAttentionE": "prompt attention",
    OURS + "25softmax_numerators_kernelI6__halfLi4ELi8EEEvNS0_17SoftmaxNumeratorsE": "softmax",
    CONVOLUTION: "convolutions",
    "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_f16_s16816fprop_optimized_f16_128x128>()": "convolutions",
    "void nhwcAddPaddingKernel<__half>(int)": "convolutions",
    "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>()": "cat and copy",
    "void at::native::elementwise_kernel<128, 4, at::native::direct_copy_kernel_cuda()>": "cat and copy",
    "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float> >(int)": "fills",
    "void at::native::(anonymous namespace)::upsample_nearest2d_nhwc_out_frame<float>()": "upsampling",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float> >(int)": "LibTorch's",
    "fill": "fills",
    "copy": "copies",
    "copy to peer": "copies",
    "void someone_else(int)": "other",
}


def check_groups() -> None:
    for name, group in GROUP_OF.items():
        assert group_of(name) == group, (name, group_of(name))
    sources = "".join(path.read_text() for path in (ROOT / "cuda").glob("*.cu"))
    ours = re.findall(r"__global__[^;{]*?\b(\w+_kernel)\(", sources)
    assert len(ours) == sources.count("__global__"), ours
    foreign = ("other", "products", "convolutions", "attention", "LibTorch's")
    for name in ours:
        assert group_of(f"void xdit::cuda::(anonymous namespace)::{name}<float>(float*)") not in foreign, name


class Trace:
    """A rank's kernels, one after the other on stream 7; what it exchanges on stream 9."""

    def __init__(self) -> None:
        self.now, self.lines = 1_000_000, []

    def kernel(self, name: str, lasts_us: int, pause_us: int = 1) -> None:
        self.now += 1000 * pause_us
        self.lines.append(f"{self.now} {self.now + 1000 * lasts_us} 7 {name}\n")
        self.now += 1000 * lasts_us

    def beside(self, name: str, before_end_us: int, lasts_us: int) -> None:
        start = self.now - 1000 * before_end_us
        self.lines.append(f"{start} {start + 1000 * lasts_us} 9 {name}\n")

    def write(self, path: Path) -> Path:
        path.write_text("".join(reversed(self.lines)))  # CUPTI keeps no order
        return path


BLOCKS = 40  # more than there are steps: blocks repeat most


def block(trace: Trace) -> None:
    trace.kernel(NORM, 3)
    trace.kernel(PRODUCT, 20)
    trace.kernel(ATTENTION, 10)


def step(trace: Trace, fill: str, pause_us: int) -> None:
    """No kernel runs once, as in SD 1.5."""
    trace.kernel(ADD, 2, pause_us)
    trace.kernel(CONVOLUTION, 10)
    trace.kernel(CONVOLUTION, 10)
    trace.kernel(fill, 1)
    trace.kernel(fill, 1)
    for _ in range(BLOCKS):
        block(trace)
    trace.kernel(CONVOLUTION, 10)
    trace.kernel(ADD, 2)


STEP_US = 30 + 2 + 2 * 11 + 2 * 2 + BLOCKS * (4 + 21 + 11) + 11 + 3


def denoise(steps: int, each: Callable[[Trace, int], None]) -> Trace:
    trace = Trace()
    for _ in range(BLOCKS):  # a text encoder
        trace.kernel(NORM, 1)
        trace.kernel(PRODUCT, 5)
    for i in range(steps):
        each(trace, i)
    for name in (CONVOLUTION, NORM, CONVOLUTION, ADD) * 5:  # a decoder
        trace.kernel(name, 50)
    return trace


def graphed(trace: Trace, i: int) -> None:
    """The first is no graph yet, and waits for the host."""
    step(trace, "fill" if i == 0 else OURS + "11fill_kernelIhEEvPT_jm", 500 if i == 0 else 30)


def exchanging(trace: Trace, i: int) -> None:
    """A copy from before one pause of 1 us, or two, until 8 us after the last kernel, and a wait from 4 to 12 us after
    it: 13 or 14 us exposed."""
    graphed(trace, i)
    lasts_us = 24 if i % 2 else 16
    trace.beside("copy to peer", lasts_us - 8, lasts_us)
    trace.now += 4000
    trace.beside(WAIT, 0, 8)
    trace.now += 8000


def check_steps(folder: Path) -> None:
    of = Steps(str(denoise(20, graphed).write(folder / "one")), 20)
    assert {b - a for a, b in zip(of.begin, of.begin[1:])} == {1000 * STEP_US}, of.begin
    assert 15 <= of.count <= 18, of.count
    gaps = sum(gap.end - gap.start for gap in of.gaps)
    assert of.charged.total() + gaps == of.length
    assert of.us(gaps) == 30 + 6 + 3 * BLOCKS, of.us(gaps)
    assert of.us(of.charged["products"]) == 20 * BLOCKS and of.us(of.charged["convolutions"]) == 30, of.charged
    assert not of.charged["copies"] and not of.charged["other"], of.charged
    longer = {gap.end: (gap.before.group, gap.after.group) for gap in of.gaps if gap.end - gap.start > 20_000}
    assert longer == dict.fromkeys(of.begin[1:], ("LibTorch's", "LibTorch's")), longer


def check_first_steps(folder: Path) -> None:
    """Those of a run without graphs are like all, and yet wait for the host."""
    alike = denoise(10, lambda trace, i: step(trace, "fill", 500 if i < 2 else 30))
    of = Steps(str(alike.write(folder / "alike")), 10)
    assert {b - a for a, b in zip(of.begin, of.begin[1:])} == {1000 * STEP_US} and of.count == 7, of.begin


def refused(path: Path, steps: int) -> bool:
    try:
        Steps(str(path), steps)
    except SystemExit:
        return True
    return False


def check_refusals(folder: Path) -> None:
    """Blocks are not taken for steps, however often they repeat."""

    def each_differs(trace: Trace, i: int) -> None:
        step(trace, f"fill{i}", 30)

    assert refused(denoise(20, each_differs).write(folder / "none"), 20)
    assert refused(denoise(BLOCKS - 1, each_differs).write(folder / "none"), BLOCKS - 1)
    assert refused(denoise(20, graphed).write(folder / "fewer"), 60)


def check_charge() -> None:
    spans = [Span(*times, "7", "k", "other") for times in ((0, 10), (5, 20), (6, 8), (30, 40), (38, 60))]
    assert charge(spans, [(2, 35), (37, 50)]) == ([8, 10, 0, 8, 10], [(20, 30)])
    assert charge([], [(1, 2)]) == ([], [(1, 2)]) and charge(spans, []) == ([0] * 5, [])


def check_exchange(folder: Path) -> None:
    of = Steps(str(denoise(11, exchanging).write(folder / "two")), 11)
    assert of.count == 8 and of.length == 8000 * (STEP_US + 12), of.begin
    assert of.us(of.charged["copies"] + of.charged["waits"]) == 13.5, of.charged
    assert of.us(of.summed(["copies"])) == 20 and of.us(of.summed(["waits"])) == 8
    assert of.charged.total() + sum(gap.end - gap.start for gap in of.gaps) == of.length


def check_tables(folder: Path) -> None:
    for rank in "ab":
        denoise(11, exchanging).write(folder / f"kernels.{rank}")
    printed = io.StringIO()
    sys.argv = ["kernel_table.py", *(str(folder / f"kernels.{rank}") for rank in "ab"), "--steps", "11"]
    with contextlib.redirect_stdout(printed):
        kernel_table.main()
    lines = printed.getvalue().splitlines()
    assert sum(line.endswith(": 100.00 %") for line in lines) == 2, lines
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0][:4] == ["ms (%)", "products", "attention", "layer norms"], rows
    assert rows[2][1] == f"0.80 ({100 * 20 * BLOCKS / (STEP_US + 12):.1f})" and rows[3][1] == f"{BLOCKS:.1f}", rows
    exposed = [row for row in rows if len(row) == 6][2:]
    assert len(exposed) == 2 and all(row[2:4] == ["8.0", "13.5"] for row in exposed), exposed


def check_halves() -> None:
    """A step's halves are not taken for steps, though alike but for their ends."""
    names = [*"abcd" * 10, "x", *"abcd" * 10, "y"] * 6
    spans = [Span(10 * i, 10 * i + 9, "7", name, "other") for i, name in enumerate(names)]
    begin = beginnings(spans, 6)
    assert {b - a for a, b in zip(begin, begin[1:])} == {820}, begin


def main() -> None:
    check_groups()
    check_charge()
    check_halves()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for check in (check_steps, check_first_steps, check_exchange, check_refusals, check_tables):
            check(folder)
    print("kernel_table: works")


if __name__ == "__main__":
    main()
