#!/usr/bin/env python3
"""package_test.py BUILD TORCH: a build's Debian package installs, and works with LibTorch in the folder TORCH."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH = "usr/lib/xdit-gen-libtorch"
FILES = [
    "usr/lib/libxdit-rank.so",
    "usr/share/bash-completion/completions/xdit-gen",
    "usr/share/doc/xdit-gen/copyright",
    "usr/share/fish/vendor_completions.d/xdit-gen.fish",
    "usr/share/man/man1/xdit-gen.1",
    "usr/share/xdit-gen/configs/flux-dev.yaml",
    "usr/share/zsh/vendor-completions/_xdit-gen",
]
DPKG = ["dpkg", "--force-not-root", "--force-depends", "--log=/dev/null"]
CLEAN = {
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": "/nonexistent",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}


def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], env=CLEAN | more, capture_output=True, text=True)


def output(*command: str | Path, **more: str) -> str:
    ran = run(*command, **more)
    assert ran.returncode == 0, f"{command}: exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def check_contents(package: Path, root: Path, build: Path) -> None:
    about = output("dpkg-deb", "-f", package)
    assert "Package: xdit-gen\n" in about and "libc6 (>= 2." in about and "libstdc++6 (>= " in about, about
    for name in FILES:
        assert (root / name).is_file(), name
    wheels = (root / "usr/share/xdit-gen/libtorch.txt").read_text().split()
    assert wheels[0].startswith("torch==") and all(wheel.startswith(("torch==", "nvidia-")) for wheel in wheels), wheels
    dynamic = output("readelf", "-d", root / "usr/lib/libxdit-rank.so")
    runpath = next(line for line in dynamic.splitlines() if "RUNPATH" in line)
    assert str(build) not in runpath and "site-packages" not in runpath and "::" not in runpath, runpath


def install(package: Path, root: Path) -> None:
    """Into a root of its own, which has no other package: what this one depends on is the machine's."""
    for folder in ("info", "updates"):
        (root / "var/lib/dpkg" / folder).mkdir(parents=True)
    for file in ("status", "available"):
        (root / "var/lib/dpkg" / file).touch()
    output(*DPKG, f"--root={root}", "--install", package)
    assert "Status: install ok installed\n" in output(*DPKG, f"--root={root}", "--status", "xdit-gen")
    assert not output(*DPKG, f"--root={root}", "--verify", "xdit-gen"), "files are not as the package says"


def remove(root: Path) -> None:
    output(*DPKG, f"--root={root}", "--purge", "xdit-gen")
    left = [path for path in (root / "usr").rglob("*") if not path.is_dir()]
    assert not left, left


def check_pictures(root: Path, torch: Path) -> None:
    """LibTorch is found by a variable, and in the package's own folder; without it, the error names the variable."""
    program = root / "usr/bin/xdit-gen"
    demo = root / "usr/share/xdit-gen/configs/demo"
    picture = [program, "-m", demo, "-p", "a fox", "-s", "0", "--device", "cpu", "--steps", "2", "--quiet", "-o"]
    without = run(*picture, root / "none.png")
    assert without.returncode == 70 and "XDIT_LIBTORCH" in without.stderr, without
    output(*picture, root / "variable.png", XDIT_LIBTORCH=str(torch))
    os.symlink(torch, root / TORCH)
    output(*picture, root / "folder.png")
    os.remove(root / TORCH)
    made = [(root / f"{name}.png").read_bytes() for name in ("variable", "folder")]
    assert made[0].startswith(b"\x89PNG") and made[0] == made[1]


def main(build: Path, torch: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cpack = build.parent.parent / ".venv/bin/cpack"
        output(cpack if cpack.exists() else "cpack", "--config", build / "CPackConfig.cmake", "-B", folder)
        (package,) = folder.glob("xdit-gen_*.deb")
        root = folder / "root"
        install(package, root)
        check_contents(package, root, build)
        program = root / "usr/bin/xdit-gen"
        assert output(program, "--version").startswith("xdit-gen ")
        assert "usage: xdit-gen" in output(program, "--help")
        assert "flux" in output(program, "list", "models")
        check_pictures(root, torch)
        remove(root)
    print(f"{package.name}: installs and works")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
