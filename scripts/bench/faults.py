#!/usr/bin/env python3
"""Breaks runs of several ranks on purpose, from outside, and looks at what is left of them.

faults.py XDIT_GEN ARGUMENTS...      e.g.  build/release/xdit-gen -m configs/demo --gpus 0,0
FAULTS="in write|Ctrl-C" tries those alone whose names match.
Kills, stops and starves a rank in every phase, kills the launcher, presses Ctrl-C once and twice. For each: the exit
code and words, seconds until every process is gone, whole pictures only, nothing in /dev/shm, the GPUs' memory free
again. Ends with 1 if any of it is not as promised. The model should be small: decoding and writing are made long by the
picture's size.
"""

import contextlib
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 5
WAITING = {
    "rendezvous": "",
    "load": "load",
    "text_encode": "text encode",
    "denoise": "denoise",
    "decode": "decode",
    "write": "write",
}
# What makes a phase last longer than it takes to see it begin.
LONG = {
    "text_encode": [word for i in range(1500) for word in ("-p", str(i))],
    "denoise": ["--steps", "1000"],
    "decode": ["--size", "768x768" if "cpu" in sys.argv else "2048x2048", "--steps", "1", "--count", "3"],
    "write": ["--size", "1024x1024" if "cpu" in sys.argv else "4096x4096", "--steps", "1"],
}


@dataclass
class Case:
    name: str
    phase: str
    codes: tuple
    words: str  # of the error, as a regular expression
    act: object  # called with the Run when the phase begins
    arguments: list = field(default_factory=list)
    within_s: float = 10


def children(process):
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def alive(process):
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def gpu_memory():
    """MiB in use on each GPU; nothing without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return [int(line) for line in subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()]


def whole(picture):
    data = picture.read_bytes()
    return data.startswith(b"\x89PNG") and data.endswith(b"IEND\xae\x42\x60\x82")


class Run:
    def __init__(self, command, folder):
        ours, theirs = pty.openpty()  # the progress line names the phase
        environment = dict(os.environ, TERM="xterm", NO_COLOR="1", COLUMNS="200")
        self.screen, self.text = ours, ""
        self.process = subprocess.Popen(
            [*command, "-o", str(folder / "{index}.png")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=environment,
        )
        os.close(theirs)

    def read(self, seconds):
        if select.select([self.screen], [], [], seconds)[0]:
            with contextlib.suppress(OSError):  # nobody writes any more
                self.text += os.read(self.screen, 65536).decode(errors="replace")

    def ranks(self):
        return {
            int(name.rsplit("-", 1)[1]): child
            for child in children(self.process.pid)
            if (name := Path(f"/proc/{child}/comm").read_text().strip()).startswith("xdit-rank-")
        }

    def wait_for(self, phase, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            self.read(0.002)
            if len(self.ranks()) > 1 and WAITING[phase] in self.text:
                return
        raise RuntimeError(f"'{phase}' was not seen: {self.text[-300:]!r}")

    def ended(self, seconds):
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.01)
        self.read(0)
        return self.process.poll()


def to_rank(number, rank):
    return lambda run: os.kill(run.ranks()[rank], number)


def starve(rank):
    """The rank's next sizeable allocation or file fails, wherever it stands."""

    def act(run):
        process = run.ranks()[rank]
        for limit, least in ((resource.RLIMIT_AS, 1 << 20), (resource.RLIMIT_NOFILE, 0)):
            resource.prlimit(process, limit, (least, resource.prlimit(process, limit)[1]))

    return act


def cases():
    for phase in WAITING:
        more = LONG.get(phase, [])
        # A small model loads and meets within a blink: the next phase may be the one that is named.
        named = phase.replace("_", ".") if phase in LONG else r"\w+"
        yield Case(f"kill -9 in {phase}", phase, (7,), rf"rank 0 died in {named}", to_rank(signal.SIGKILL, 0), more)
        if phase in LONG:
            yield Case(
                f"another rank killed in {phase}", phase, (7,), r"rank 1 died in", to_rank(signal.SIGKILL, 1), more
            )
        yield Case(
            f"stopped in {phase}",
            phase,
            (7,),
            rf"rank 0 was silent in {named}|in {named}: rank 1 heard nothing from rank 0",
            to_rank(signal.SIGSTOP, 0),
            [*more, "--set", f"runtime.timeout={TIMEOUT_S}s"],
            TIMEOUT_S + 10,
        )
        yield Case(f"no memory in {phase}", phase, (4, 6, 7, 8, 70), r"rank \d", starve(0), more)
    for phase in ("load", "denoise", "decode", "write"):
        more = LONG.get(phase, [])
        yield Case(f"launcher killed in {phase}", phase, (-9,), "", lambda run: run.process.kill(), more)
        # A picture that is being written is the last: it may be there sooner than the stop.
        yield Case(f"Ctrl-C in {phase}", phase, (0, 130) if phase == "write" else (130,), "", interrupt, more, 5)
    hangs = LONG["denoise"]  # a rank does, else the first Ctrl-C ends the run
    yield Case("Ctrl-C twice", "denoise", (-signal.SIGINT,), "", interrupt_twice, hangs, 2)


def interrupt(run):
    for process in [*run.ranks().values(), run.process.pid]:
        os.kill(process, signal.SIGINT)


def interrupt_twice(run):
    os.kill(run.ranks()[0], signal.SIGSTOP)
    interrupt(run)
    time.sleep(0.3)
    interrupt(run)


def faults_of(case, command, baseline):
    """What is not as promised; the seconds from the act to the last process's end."""
    faults = []
    shared = set(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run([*command, *case.arguments], folder)
        processes = []
        try:
            run.wait_for(case.phase)
            processes = [run.process.pid, *run.ranks().values()]
            begun = time.monotonic()
            case.act(run)
            code = run.ended(case.within_s + 10)
            while any(map(alive, processes)) and time.monotonic() < begun + 60:
                time.sleep(0.005)
            took = time.monotonic() - begun
        finally:
            for process in [run.process.pid, *processes]:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            run.process.wait()
            os.close(run.screen)
        if code not in case.codes:
            faults.append(f"exit {code}")
        if took > case.within_s:
            faults.append(f"{took:.1f} s")
        if case.words and not re.search(case.words, run.text):
            faults.append(f"said {run.text.strip()[-300:]!r}")
        faults += [f"left {file.name}" for file in folder.iterdir() if not whole(file)]
        faults += [f"left /dev/shm/{file}" for file in set(os.listdir("/dev/shm")) - shared]
    end = time.monotonic() + 10
    while (now := gpu_memory()) and max(a - b for a, b in zip(now, baseline, strict=True)) > 64:
        if time.monotonic() > end:
            faults.append(f"GPU memory {baseline} -> {now} MiB")
            break
    words = next((line.strip() for line in reversed(run.text.splitlines()) if "rror" in line), "")
    return faults, took, code, words


def start_times(command):
    """Seconds from the launcher's start until a rank has met the others and its GPU is ready; the slowest rank's."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        subprocess.run(
            [*command, "--steps", "1", "-o", f"{name}/x.png", "--report", str(report), "--progress", "off"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        phases = json.loads(report.read_text())["phases"]
    return max(phase["end_s"] for phase in phases if phase["name"] == "connect")


def main():
    command = [*sys.argv[1:], "-p", "fox", "-s", "0", "--size", "128x128", "--overwrite"]
    many, one = (sorted(start_times([*command, *more]) for _ in range(3))[1] for more in ([], ["--gpus", "1"]))
    print(f"start to all ranks ready: {many:.2f} s; one rank {one:.2f} s", flush=True)
    baseline = gpu_memory()
    failed = 0
    chosen = [case for case in cases() if re.search(os.environ.get("FAULTS", ""), case.name)]
    if not chosen:
        sys.exit("FAULTS matches no case")
    for case in chosen:
        faults, took, code, words = faults_of(case, command, baseline)
        failed += bool(faults)
        print(f"{'FAIL' if faults else 'ok  '} {case.name}: exit {code}, gone in {took:.2f} s  {words}", flush=True)
        for fault in faults:
            print(f"     {fault}", flush=True)
    print(f"{failed} failed" if failed else "all as promised")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
