#!/usr/bin/env python3
"""What a step's time went to: kernel_table.py KERNELS.PID --steps N [--order], of a run of N steps (kernel_trace.cpp).

A step begins with the kernel that runs once in each; the first two are left out, since one may compile and one be
captured. Prints launches, microseconds and share of an average step by kernel, and what no kernel covers; --order
prints one step kernel by kernel.
"""

import argparse
import collections
import subprocess

Span = collections.namedtuple("Span", "start end stream name")


def read(path: str) -> list[Span]:
    spans = []
    with open(path) as lines:
        for line in lines:
            start, end, stream, name = line.rstrip("\n").split(" ", 3)
            spans.append(Span(int(start), int(end), stream, name))
    names = sorted({span.name for span in spans})
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    known = dict(zip(names, plain.split("\n")))
    return sorted(span._replace(name=known[span.name]) for span in spans)


def beginnings(spans: list[Span], steps: int) -> list[int]:
    """Where the last steps begin: the starts of the kernel that is launched so often, and most evenly."""
    starts = collections.defaultdict(list)
    for span in spans:
        starts[span.name].append(span.start)

    def unevenness(of: list[int]) -> float:
        gaps = sorted(b - a for a, b in zip(of, of[1:]))[: max(1, steps - 4)]
        return (gaps[-1] - gaps[0]) / gaps[-1]

    once = [of[2:] for of in starts.values() if steps - 1 <= len(of) <= steps + 1]
    if not once:
        raise SystemExit(f"no kernel runs once in each of {steps} steps")
    return min(once, key=unevenness)


def covered(spans: list[Span]) -> int:
    """Nanoseconds in which at least one runs."""
    total = end = 0
    for span in spans:
        total += max(0, span.end - max(span.start, end))
        end = max(end, span.end)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--order", action="store_true")
    arguments = parser.parse_args()
    spans = read(arguments.file)
    begin = beginnings(spans, arguments.steps)
    inside = [span for span in spans if begin[0] <= span.start < begin[-1]]
    count, length = len(begin) - 1, begin[-1] - begin[0]
    if arguments.order:
        first = begin[len(begin) // 2]
        last = first
        for span in inside:
            if first <= span.start < begin[len(begin) // 2 + 1]:
                since, gap, lasts = (span.start - first, span.start - last, span.end - span.start)
                print(f"{since / 1e3:10.1f} {gap / 1e3:7.1f} {lasts / 1e3:8.1f} {span.stream} {span.name[:140]}")
                last = span.end
        return
    times, launches = collections.Counter(), collections.Counter()
    for span in inside:
        times[span.name] += span.end - span.start
        launches[span.name] += 1
    print(f"a step of {count}: {length / count / 1e3:.1f} us")
    for name, time in times.most_common():
        share = f"{time / count / 1e3:9.1f} us {100 * time / length:5.1f} %"
        print(f"{share} {launches[name] / count:6.1f} x  {name[:150]}")
    print(f"{(length - covered(inside)) / count / 1e3:9.1f} us {100 - 100 * covered(inside) / length:5.1f} % no kernel")


if __name__ == "__main__":
    main()
