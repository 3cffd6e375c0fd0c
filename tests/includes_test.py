#!/usr/bin/env python3
"""Holds the one direction of includes, LibTorch's absence from the launcher, #pragma once and the lengths of files."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Folder of src/ -> the folders (or the file) that it may include besides its own.
ALLOWED = {
    "core": set(),
    "config": {"core"},
    "schedulers": {"core", "config/samplers.h"},  # what each can do
    "weights": {"core"},
    "comm": {"core", "cuda/peer_memory.h"},
    "output": {"core", "config", "weights"},
    "nn": {"core", "cuda/kernels.h", "cuda/pictures.h", "cuda/prompt_attention.h"},
    "text": {"core", "nn", "weights"},
    "models": {"core", "nn", "weights", "text/tables"},  # a family's tables hold its encoders'
    "parallel": {"core", "config", "schedulers", "weights", "nn", "comm", "models"},  # a Loop steps a Sampler
    "pipeline": {"core", "config", "schedulers", "weights", "comm", "output", "nn", "text", "models", "parallel"},
}
ALLOWED["launch"] = ALLOWED["pipeline"] | {"pipeline"}
ALLOWED["cli"] = ALLOWED["launch"] | {"launch"}

ONE_DEVICE = {"nn", "text", "models", "schedulers"}  # written for one device: no rank, no NCCL
RANK = re.compile(r"\b\w*(rank|nccl)\w*\b", re.IGNORECASE)
TORCH = re.compile(r"(ATen|c10|torch)/")
TORCH_FREE = {"core", "config", "weights", "output", "launch", "cli"}


def includes(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := re.match(r'\s*#\s*include\s*[<"]([^>"]+)', line):
            yield number, match[1]


def check_direction(path: Path) -> Iterator[str]:
    folder = path.relative_to(ROOT / "src").parts[0]
    if folder not in ALLOWED:
        yield f"{path}: folder {folder} is not in the table of tests/includes_test.py"
        return
    for number, name in includes(path):
        ours = name.startswith("cuda/") or (ROOT / "src" / name).is_file()
        if ours and not any(name == place or name.startswith(f"{place}/") for place in {folder} | ALLOWED[folder]):
            yield f"{path}:{number}: {folder} may not include {name}; it may include {sorted(ALLOWED[folder])}"


def check_one_device(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code = re.sub(r'"(\\.|[^"\\])*"|//.*', "", line)
        if match := RANK.search(code):
            yield f"{path}:{number}: {match[0]}: ranks and NCCL belong to src/parallel and src/comm"


def check_cuda(path: Path) -> Iterator[str]:
    for number, name in includes(path):
        if TORCH.match(name) or (ROOT / "src" / name).is_file():
            yield f"{path}:{number}: device code includes {name}; cuda/ knows neither LibTorch nor src/"


def check_launcher() -> Iterator[str]:
    """What the launcher's folders include, directly or not, with the sources of those headers, is free of LibTorch."""
    pending = [path for folder in TORCH_FREE for path in (ROOT / "src" / folder).rglob("*.*")]
    seen = set(pending)
    while pending:
        path = pending.pop()
        for number, name in includes(path):
            if TORCH.match(name):
                yield f"{path}:{number}: {name}: the launcher needs this file, and it never loads LibTorch"
            header = ROOT / "src" / name
            # The pipeline's sources are behind dlopen.
            for file in (header, header.with_suffix(".cpp"))[: 1 if name.startswith("pipeline/") else 2]:
                if file.is_file() and file not in seen:
                    seen.add(file)
                    pending.append(file)


def check_shape(path: Path) -> Iterator[str]:
    text = path.read_text()
    header = path.suffix in {".h", ".cuh"}
    limit = 100 if header else 400
    if (lines := text.count("\n")) >= limit:
        yield f"{path}: {lines} lines; it must stay under {limit}"
    if header and not text.startswith("#pragma once\n"):
        yield f"{path}:1: the first line of a header is #pragma once"


def files(folder: str, *suffixes: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)


def main() -> int:
    source, device, tests = (files(folder, ".h", ".cuh", ".cpp", ".cu") for folder in ("src", "cuda", "tests"))
    faults = list(check_launcher())
    for path in source:
        faults += check_direction(path)
        if path.relative_to(ROOT / "src").parts[0] in ONE_DEVICE:
            faults += check_one_device(path)
    for path in device:
        faults += check_cuda(path)
    for path in source + device + tests + files("tests", ".py") + files("scripts", ".py"):
        faults += check_shape(path)
    for fault in faults:
        print(fault.replace(f"{ROOT}/", ""), file=sys.stderr)
    print(f"{len(source)} files of src, {len(device)} of cuda, {len(tests)} of tests: {len(faults)} faults")
    return 1 if faults or not source else 0


if __name__ == "__main__":
    sys.exit(main())
