"""What the scripts that make goldens share: their command line, their files, and how those compare."""

import argparse
import filecmp
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def save(tensors: Tensors, path: Path) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of the reference."""
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()


def half_errors(forwards: Callable[[torch.dtype], dict[str, list[torch.Tensor]]]) -> tuple[Tensors, dict]:
    """Of the outputs by name and seed that `forwards` computes in a dtype: those in float32 for the first seed, and by
    name the errors in bf16 and fp16, root mean square over the seeds."""
    references = forwards(torch.float32)
    errors = {name: {} for name in references}
    for dtype in (torch.bfloat16, torch.float16):
        for name, values in forwards(dtype).items():
            squares = [relative_error(v, r) ** 2 for v, r in zip(values, references[name], strict=True)]
            errors[name][str(dtype).removeprefix("torch.")] = np.mean(squares).item() ** 0.5
    return {name: values[0] for name, values in references.items()}, errors


def run_script(description: str, make: Callable[[Path], None], folder: Path, size_limit: int) -> int:
    """The exit status of a script: make writes `folder`, or with --check a fresh one that is compared with it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with a fresh copy instead of writing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / folder.name if arguments.check else folder
        make(made)
        size = sum(f.stat().st_size for f in files_of(made).values())
        print(f"{size} bytes")
        assert size < size_limit, size
        return 0 if not arguments.check or check(made, folder) else 1


def files_of(folder: Path) -> dict[str, Path]:
    return {str(f.relative_to(folder)): f for f in sorted(folder.rglob("*")) if f.is_file()}


def check(fresh: Path, folder: Path) -> bool:
    """Whether folder holds the same files as fresh; says which differ, and tensors by how much."""
    made, kept = files_of(fresh), files_of(folder)
    differing = sorted(made.keys() ^ kept.keys())
    for name in sorted(made.keys() & kept.keys()):
        if not filecmp.cmp(made[name], kept[name], shallow=False):
            differing.append(name + difference(made[name], kept[name]))
    print("\n".join(f"differs: {name}" for name in differing) or f"{len(made)} files are the same")
    return not differing


def difference(made: Path, kept: Path) -> str:
    """The largest relative error over a safetensors file's common tensors, in words; nothing for other files."""
    if made.suffix != ".safetensors":
        return ""
    a, b = load_file(made), load_file(kept)
    common = [k for k in a.keys() & b.keys() if a[k].shape == b[k].shape]
    return f" (by {max((relative_error(a[k], b[k]) for k in common), default=0):.1e})"
