#!/usr/bin/env python3
"""A table of what plan predicted for a run and what its report measured, in seconds.

xdit-gen generate ... --report run.json
xdit-gen plan ... --json > plan.json
predicted.py run.json plan.json

`plan` predicts from Enter to the last picture; rest is measured alone.
"""

import json
import sys
from pathlib import Path

ROWS = ("start", "load", "encode", "warm_up", "denoise", "step", "decode", "write", "finish", "rest", "total")
SAME = {
    "width": "image.width",
    "height": "image.height",
    "steps": "sampling.steps",
    "dtype": "model.dtype",
}  # of a plan, in a report's settings


def check_same_run(report: dict, plan: dict) -> None:
    pairs = {key: (plan[key], report["settings"][name]) for key, name in SAME.items()}
    pairs["pictures"] = (plan["pictures"], len(report["pictures"]))
    for degree, ranks in report["grid"].items():
        pairs[degree] = (plan["chosen"]["grid"][degree], ranks)
    for key, (planned, run) in pairs.items():
        if str(planned) != str(run):
            sys.exit(f"not the same run: {key} is {planned} in the plan, {run} in the report")


def table(predicted: dict, measured: dict) -> str:
    lines = ["| phase | predicted | measured | ratio |", "|---|---|---|---|"]
    for row in ROWS:
        before, after = predicted.get(row), measured.get(row)
        cells = ["" if seconds is None else f"{seconds:.3g}" for seconds in (before, after)]
        ratio = f"{before / after:.2f}" if before is not None and after else ""
        lines.append(f"| {row} | {cells[0]} | {cells[1]} | {ratio} |")
    return "\n".join(lines)


if len(sys.argv) != 3:
    sys.exit(__doc__)
run, planned = (json.loads(Path(name).read_text()) for name in sys.argv[1:])
if planned["chosen"]["seconds"] is None:
    sys.exit(f"{sys.argv[2]} predicts no seconds: plan --machine h200x1")
check_same_run(run, planned)
print(table(planned["chosen"]["seconds"], run["parts"]))
