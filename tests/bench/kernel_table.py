#!/usr/bin/env python3
"""What a step's time went to: kernel_table.py KERNELS.PID... --steps N, one file a rank, of a run of N steps.

kernel_trace.cpp writes the files. A step is the longest sequence of kernels that repeats in nearly each of the N steps,
what ranks exchange left out (it runs beside); it begins after its longest pause. The first two are left out, since one
may compile and one be captured. All figures are of an average step. For each file: microseconds, share, launches and
group by kernel, then what no kernel covers, by the groups before and after, and the longer gaps one by one; --order
prints one step kernel by kernel instead. For all files: the groups, where each moment counts once (README.md), and what
of the exchange no other kernel of its rank hides.
"""

import argparse
import collections
import operator
import re
import subprocess
from collections.abc import Iterable, Iterator

# The first that is found in a kernel's name is its group.
GROUPS = {
    "waits": r"(await|raise)_signals_kernel|write_labels_kernel",
    "copies": r"^copy( to peer)?$|copy_rows_kernel|land_extents_kernel",
    "sums": r"sum_terms_kernel",
    "gates": r"add_gated_kernel",
    "gated gelu": r"gated_gelu_kernel",
    "rotation": r"heads_kernel",
    "layer norms": r"layer_norm",
    "group norms": r"(group_norm|row_moments|merge_rows|normalise)_kernel|GroupNorm|RowwiseMoments",
    "quantisation": r"quantise_rows",
    "upsampling": r"window_kernel|upsample",
    "fills": r"^fill$|fill_kernel<|FillFunctor",
    "softmax": r"softmax_numerators_kernel",
    "prompt attention": r"prompt_attention_kernel",
    "attention": r"sdpa|fmha|flash|(?i:softmax)",
    "cat and copy": r"CatArrayBatchedCopy|copy_kernel",
    "LibTorch's": r"\bat::native::",
    "convolutions": r"cudnn|(?i:implicit_?gemm|conv(ol|2d|nd)|nhwc|nchw)|fprop|dgrad|wgrad",
    "products": r"nvjet|gemm|gemv|(?i:split_?k)|cublas|cutlass",
}
EXCHANGE = ("waits", "copies")
WINDOW = 32  # kernels by which a place in a step is known again
LONG_NS = 20_000

Span = collections.namedtuple("Span", "start end stream name group")
Gap = collections.namedtuple("Gap", "start end before after")
Times = list[tuple[int, int]]


def group_of(name: str) -> str:
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), "other")


def read(path: str) -> list[Span]:
    with open(path) as file:
        lines = [line.rstrip("\n").split(" ", 3) for line in file]
    names = sorted({line[3] for line in lines})
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    known = {name: (shown, group_of(shown)) for name, shown in zip(names, plain.split("\n"))}
    return sorted(Span(int(start), int(end), stream, *known[name]) for start, end, stream, name in lines)


def periods(text: str, least: int) -> list[int]:
    """How far apart the same WINDOW characters stand, not all by chance; the longest first."""
    last: dict[str, int] = {}
    distances = collections.Counter()
    for i in range(len(text) - WINDOW + 1):
        window = text[i : i + WINDOW]
        if window in last:
            distances[i - last[window]] += 1
        last[window] = i
    return sorted((period for period, times in distances.items() if times >= least // 2), reverse=True)


def repeats(text: str, period: int, least: int) -> Iterator[tuple[int, int]]:
    """The first and the end of each stretch that consists of so many periods or more."""
    same = bytes(map(operator.eq, text, text[period:]))
    for run in re.finditer(b"\x01{%d,}" % ((least - 1) * period), same):
        yield run.start(), run.end() + period


def beginnings(spans: list[Span], steps: int) -> list[int]:
    """Where the last steps begin; empty if no sequence of kernels is found that repeats so often. What a step consists
    of repeats, too, but in each step anew, and what comes before the steps takes little of the run."""
    own = [span for span in spans if span.group not in EXCHANGE]
    letters = {name: chr(i) for i, name in enumerate(sorted({span.name for span in own}))}
    text = "".join(letters[span.name] for span in own)
    lasts = [span.end - span.start for span in own]
    least = steps * 3 // 4  # a sampler's first and last may differ
    for period in periods(text, least):
        found = list(repeats(text, period, least))
        if len(found) < least and 4 * sum(sum(lasts[first:end]) for first, end in found) > sum(lasts):
            break
    else:
        return []
    first, end = max(found, key=lambda run: run[1] - run[0])

    def pause(begin: int) -> int:
        return sum(own[i].start - own[i - 1].end for i in range(begin + period, end, period))

    begin = max(range(first, first + period), key=lambda at: pause(at) / len(range(at + period, end, period)))
    return [own[i].start for i in range(begin, end, period)][2 - steps :]


def charge(spans: Iterable[Span], free: Times) -> tuple[list[int], Times]:
    """How much of the free time each takes, the earlier first, and what stays free; both are in order of time."""
    free, left, taken, i = list(free), [], [], 0
    for span in spans:
        while i < len(free) and free[i][1] <= span.start:
            left.append(free[i])
            i += 1
        takes = 0
        while i < len(free) and free[i][0] < span.end:
            start, end = free[i]
            if start < span.start:
                left.append((start, span.start))
            takes += min(end, span.end) - max(start, span.start)
            if span.end < end:
                free[i] = (span.end, end)
                break
            i += 1
        taken.append(takes)
    return taken, left + free[i:]


class Steps:
    """A rank's steps. A moment is charged to the group of the kernel that began first, to the exchange only where
    nothing else runs, or to a gap: charged and gaps add up to the length."""

    def __init__(self, path: str, steps: int) -> None:
        self.path = path
        self.spans = read(path)
        self.begin = beginnings(self.spans, steps)
        if not self.begin:
            raise SystemExit(f"{path}: no sequence of kernels repeats in nearly each of {steps} steps")
        first, last = self.begin[0], self.begin[-1]
        self.count, self.length = len(self.begin) - 1, last - first
        self.inside = [span for span in self.spans if first <= span.start < last]
        running = [span for span in self.spans if first < span.end and span.start < last]
        self.charged = collections.Counter()
        free = [(first, last)]
        for exchanged in (False, True):
            of = [span for span in running if (span.group in EXCHANGE) == exchanged]
            taken, free = charge(of, free)
            for span, time in zip(of, taken):
                self.charged[span.group] += time
        before = {span.end: span for span in running}
        after = {span.start: span for span in self.spans}
        self.gaps = [Gap(start, end, before[start], after[end]) for start, end in free]

    def us(self, time: int) -> float:
        return time / self.count / 1e3

    def share(self, time: int) -> float:
        return 100 * time / self.length

    def line(self, time: int, times: int, what: str) -> str:
        return f"{self.us(time):9.1f} us {self.share(time):5.1f} % {times / self.count:7.1f} x  {what}"

    def summed(self, groups: Iterable[str]) -> int:
        """Nanoseconds of all spans of the groups, whatever else runs."""
        return sum(span.end - span.start for span in self.inside if span.group in groups)


def print_order(of: Steps) -> None:
    middle = len(of.begin) // 2
    first = last = of.begin[middle]
    for span in of.inside:
        if first <= span.start < of.begin[middle + 1]:
            since, gap, lasts = (span.start - first, span.start - last, span.end - span.start)
            print(f"{since / 1e3:10.1f} {gap / 1e3:7.1f} {lasts / 1e3:8.1f} {span.stream} {span.name[:140]}")
            last = span.end


def print_kernels(of: Steps) -> None:
    times, launches = collections.Counter(), collections.Counter()
    for span in of.inside:
        times[span.group, span.name] += span.end - span.start
        launches[span.group, span.name] += 1
    for (group, name), time in times.most_common():
        print(of.line(time, launches[group, name], f"{group:13} {name[:150]}"))


def print_gaps(of: Steps) -> None:
    pairs = collections.defaultdict(list)
    for gap in of.gaps:
        pairs[gap.before.group, gap.after.group].append(gap.end - gap.start)
    for (before, after), lengths in sorted(pairs.items(), key=lambda pair: -sum(pair[1])):
        mean = sum(lengths) / len(lengths) / 1e3
        print(of.line(sum(lengths), len(lengths), f"{mean:6.1f} us of no kernel, {before} -> {after}"))
    for gap in of.gaps:
        if gap.end - gap.start > LONG_NS:
            step = sum(begin <= gap.start for begin in of.begin)
            at, length = (gap.start - of.begin[step - 1]) / 1e3, (gap.end - gap.start) / 1e3
            print(f"step {step} after {at:.1f} us: {length:.1f} us of no kernel, {gap.before.name} -> {gap.after.name}")
    other, gaps = of.charged["other"], sum(gap.end - gap.start for gap in of.gaps)
    named = of.charged.total() - other
    shares = [of.share(time) for time in (named, other, gaps, named + other + gaps)]
    print("named kernels {:.2f} %, other kernels {:.2f} %, gaps {:.2f} %: {:.2f} %".format(*shares))


def print_row(cells: Iterable[str]) -> None:
    print("|", " | ".join(cells), "|")


def print_groups(ranks: list[Steps]) -> None:
    charged = sum((rank.charged for rank in ranks), collections.Counter())
    launched = [collections.Counter(span.group for span in rank.inside) for rank in ranks]
    groups = [group for group, _ in charged.most_common()]
    groups += sorted({group for launches in launched for group in launches} - set(groups))  # hidden by others
    print_row(["ms (%)", *groups, "no kernel", "all"])
    print_row(["---"] * (len(groups) + 3))
    for rank, launches in zip(ranks, launched):
        times = [rank.charged[group] for group in groups]
        times.append(rank.length - sum(times))
        cells = [f"{rank.us(time) / 1e3:.2f} ({rank.share(time):.1f})" for time in times]
        print_row([rank.path, *cells, f"{rank.us(rank.length) / 1e3:.2f}"])
        cells = [f"{launches[group] / rank.count:.1f}" for group in groups]
        print_row(["launches", *cells, "", f"{len(rank.inside) / rank.count:.1f}"])


def print_exchange(ranks: list[Steps]) -> None:
    print_row(["us", "all copies", "all waits", "exposed: no other kernel runs", "% of the step", "step"])
    print_row(["---"] * 6)
    for rank in ranks:
        exposed = sum(rank.charged[group] for group in EXCHANGE)
        times = [rank.us(time) for time in (rank.summed(["copies"]), rank.summed(["waits"]), exposed)]
        cells = [*times, rank.share(exposed), rank.us(rank.length)]
        print_row([rank.path, *(f"{cell:.1f}" for cell in cells)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", metavar="KERNELS.PID")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--order", action="store_true")
    arguments = parser.parse_args()
    if arguments.steps < 6:
        parser.error("--steps: 6 or more, since the first and the last may differ")
    ranks = [Steps(path, arguments.steps) for path in arguments.files]
    for rank in ranks:
        print(f"{rank.path}, a step of {rank.count}: {rank.us(rank.length):.1f} us")
        if arguments.order:
            print_order(rank)
        else:
            print_kernels(rank)
            print_gaps(rank)
            print()
    if not arguments.order:
        print_groups(ranks)
        if any(rank.summed(EXCHANGE) for rank in ranks):
            print()
            print_exchange(ranks)


if __name__ == "__main__":
    main()
