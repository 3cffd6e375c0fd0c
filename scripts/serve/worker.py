"""xdit-gen worker as a child process: jobs in their order, one at a time, and a new process when one dies."""

import asyncio
import contextlib
import itertools
import json
import logging
import math
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from metrics import Metrics
from png import texts

LONGEST_LINE = 1 << 24
LONGEST_PAUSE_S = 60
EXIT_S = 5  # from the end of its stdout to a worker's exit
log = logging.getLogger("uvicorn.error")


class Busy(Exception):
    """The queue is full; `retry_s`: when there may be room."""

    def __init__(self, retry_s: int) -> None:
        super().__init__("too many requests wait already")
        self.retry_s = retry_s


class Down(Exception):
    """There is no worker for the request, or it died at it."""


class Refused(Exception):
    """The worker says what is wrong; `code` is an exit code of xdit-gen."""

    def __init__(self, event: dict) -> None:
        fix = f" (fix: {event['fix']})" if "fix" in event else ""
        super().__init__(event["error"] + fix)
        self.code: int = event["code"]
        self.where: str = event.get("where", "")


@dataclass
class Picture:
    png: bytes
    seed: int
    width: int
    height: int


@dataclass
class Job:
    id: int
    ended: asyncio.Future
    begun: float = field(default_factory=time.monotonic)
    progress: dict = field(default_factory=dict)  # the last event of that name


class Worker:
    def __init__(self, command: list[str], warm_up: dict, queue: int, metrics: Metrics) -> None:
        """`command` starts a worker; it is ready when it has made `warm_up`. `queue`: requests that may wait."""
        self.state = "loading"  # ready, dead
        self.fault = ""  # why it is dead
        self.job: Job | None = None
        self.embeds_guidance = False  # the model, as FLUX.1-dev: known when it is ready
        self._command, self._warm_up, self._queue, self._metrics = command, warm_up, queue, metrics
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._ids = itertools.count(1)
        self._mean_s = 0.0  # of a job
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        """Keeps a worker until stop(); what dies is started again, after 1 s, 2 s, 4 s, ... of pause."""
        pause_s = 1
        while not self._stopping.is_set():
            try:
                if await self._live():
                    pause_s = 1
            except OSError as error:
                self._set("dead", str(error))
            if not self._stopping.is_set():
                log.error("worker: %s; started again in %d s", self.fault, pause_s)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def stop(self) -> None:
        """The picture in hand is finished, requests that wait are turned away."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def make(self, settings: dict) -> tuple[list[Picture], bool]:
        """Pictures for a line of a batch, and whether they are all. Cancelled, it gives its turn back at once."""
        self._check()
        if self._turn.locked() and self._waiting >= self._queue:
            raise Busy(max(1, math.ceil((self._waiting + 1) * self._mean_s)))
        queued = time.monotonic()
        self._wait(1)
        try:
            await self._turn.acquire()
        finally:
            self._wait(-1)
        self._metrics.queue_seconds.observe(time.monotonic() - queued)
        try:
            return await self._work(settings)
        finally:
            self._turn.release()

    def interrupt(self) -> None:
        """The job in hand ends with the pictures that it has."""
        if self.job:
            self._say({"cancel": self.job.id})

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Down("shutting down")
        if self.state == "dead":
            raise Down("the worker is dead: /health tells why")

    def _wait(self, more: int) -> None:
        self._waiting += more
        self._metrics.waiting.set(self._waiting)

    def _set(self, state: str, fault: str = "") -> None:
        self.state, self.fault = state, fault
        self._metrics.ready.set(state == "ready")

    def _signal(self, number: int) -> None:
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)

    async def _live(self) -> bool:
        """A process from its start to its exit; whether it was ready."""
        async with self._turn:
            await self._start()
            listening = asyncio.create_task(self._listen())
            with contextlib.suppress(Down):
                await self._warm()
        ready = self.state == "ready"
        await listening
        await self._process.wait()
        return ready

    async def _start(self) -> None:
        # A session of its own: Ctrl-C reaches the front alone, which ends the worker in good order.
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,
        )
        self._metrics.starts.inc()
        self._set("loading")
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)

    async def _warm(self) -> None:
        try:
            pictures, _ = await self._work(self._warm_up)
            records = [json.loads(texts(one.png).get("xdit-gen", "{}")) for one in pictures]
            self.embeds_guidance = any(record.get("guidance", 0) > 0 for record in records)
            if self.state == "loading":
                self._set("ready")
        except (Refused, OSError) as why:
            self.fault = f"{why.where}: {why}" if isinstance(why, Refused) else str(why)
            self._signal(signal.SIGTERM)

    async def _listen(self) -> None:
        """Until the worker's stdout ends, and the worker with it."""
        try:
            while line := await self._line():
                try:
                    self._hear(json.loads(line))
                except (ValueError, LookupError, TypeError, RecursionError):
                    log.warning("worker: not an event: %.200r", line)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), EXIT_S)
        finally:
            self._set("dead", self.fault or "the worker died")
            if self.job and not self.job.ended.done():
                self.job.ended.set_exception(Down("shutting down" if self._stopping.is_set() else "the worker died"))
            self.kill()

    async def _line(self) -> bytes:
        """The next that is not too long; none at the end."""
        while True:
            try:
                return await self._process.stdout.readline()
            except ValueError as error:
                log.warning("worker: %s", error)

    def _hear(self, event: dict) -> None:
        kind, job = event["event"], self.job
        if kind == "warning":
            log.warning("worker: %s", event["text"])
        elif not job or event["id"] != job.id:  # of a job that was given up
            return
        elif kind == "progress":
            job.progress = event
        elif not job.ended.done():
            job.ended.set_result(event)

    def _say(self, line: dict) -> None:
        # What is no JSON, or longer than 2 MiB, would be answered without the job's id.
        self._process.stdin.write(json.dumps(line, allow_nan=False).encode() + b"\n")

    async def _work(self, settings: dict) -> tuple[list[Picture], bool]:
        self._check()
        job = self.job = Job(next(self._ids), asyncio.get_running_loop().create_future())
        folder = Path(tempfile.mkdtemp(prefix="xdit-gen-serve-"))
        try:
            self._say({"id": job.id, **settings, "output": str(folder / "{index}.png")})
            try:
                event = await asyncio.shield(job.ended)
            except asyncio.CancelledError:
                self.interrupt()
                with contextlib.suppress(Down):
                    self._metrics.ended(await asyncio.shield(job.ended))
                raise
            self._metrics.ended(event)
            if event["event"] == "failed":
                raise Refused(event)
            seconds = time.monotonic() - job.begun
            if self.state == "ready":
                self._mean_s = 0.8 * self._mean_s + 0.2 * seconds if self._mean_s else seconds
            pictures = [
                Picture(Path(made["path"]).read_bytes(), made["seed"], made["width"], made["height"])
                for made in event["pictures"]
            ]
            return pictures, event["event"] == "done"
        finally:
            self.job = None
            shutil.rmtree(folder, ignore_errors=True)
