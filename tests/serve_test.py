#!/usr/bin/env python3
"""serve_test.py XDIT_GEN: scripts/serve with a worker on the CPU, spoken to by the real clients of both APIs."""

import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import requests
import webuiapi

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts/serve"))
import a1111_api  # noqa: E402
from metrics import Metrics  # noqa: E402
from prometheus_client import generate_latest  # noqa: E402
from serve import model_name  # noqa: E402
from worker import LONGEST_LINE, Worker  # noqa: E402

TINY = ROOT / "tests/data/flux/tiny-dev"
MODEL = f"-m {TINY} --device cpu --dtype fp32 --size 32x48 --steps 2".split()
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
LONG = 140  # steps of jobs that are cut short
SOME = 40  # of those that are not


def until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Front:
    def __init__(self, program: Path, port: int, process: subprocess.Popen) -> None:
        self.program, self.process = program, process
        self.base = f"http://127.0.0.1:{port}"
        self.openai = openai.OpenAI(base_url=f"{self.base}/v1", api_key="none", max_retries=0)
        self.port = port

    def get(self, path: str) -> requests.Response:
        return requests.get(self.base + path, timeout=60)

    def health(self) -> str:
        try:
            return self.get("/health").json()["status"]
        except requests.ConnectionError:
            return "absent"

    def metric(self, sample: str) -> float:
        lines = self.get("/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample + " ")), 0.0)

    def draw(self, prompt: str = "a fox", **more) -> openai.types.ImagesResponse:
        ours = ("seed", "steps", "output", "sampler", "scheduler", "cfg_scale")
        extra = {name: more.pop(name) for name in ours if name in more}
        return self.openai.images.generate(prompt=prompt, extra_body=extra, **more)

    def draw_long(self, steps: int = LONG) -> tuple[threading.Thread, list]:
        """A long job in hand, in a thread; its answer or error comes into the list."""
        answers: list = []

        def draw() -> None:
            try:
                answers.append(self.draw(steps=steps, seed=1, response_format="b64_json"))
            except openai.OpenAIError as error:
                answers.append(error)

        thread = threading.Thread(target=draw)
        thread.start()
        until(lambda: self.get("/sdapi/v1/progress").json()["state"]["sampling_step"] > 0, "no step of a long job")
        return thread, answers

    def worker(self) -> int:
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)


@contextmanager
def front(program: Path, *more: str, model: list[str] = MODEL) -> Iterator[Front]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = ROOT / "scripts/serve/serve.py"
    command = [sys.executable, serve, "--port", port, "--program", program, *more, "--", *model, "--quiet"]
    process = subprocess.Popen([str(word) for word in command], env=ENVIRONMENT)
    try:
        yield Front(program, port, process)
    finally:
        process.kill()
        process.wait()


def alone(program: Path, *more: str) -> bytes:
    """The PNG that xdit-gen generate makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alone.png"
        command = [program, *MODEL, "-p", "a fox", "-s", "1", "-o", path, "--quiet", *more]
        subprocess.run([str(word) for word in command], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        return path.read_bytes()


def refused(call: Callable, kind: type[openai.APIStatusError], part: str) -> openai.APIStatusError:
    try:
        call()
    except kind as error:
        assert part in error.body["message"], error.body
        return error
    raise AssertionError(f"not refused: {part}")


def check_openai(served: Front) -> None:
    two = served.draw(n=2, seed=1, response_format="b64_json").data
    expected = alone(served.program)
    assert base64.b64decode(two[0].b64_json) == expected
    assert [one.seed for one in two] == [1, 2]
    linked = served.draw(seed=1, size="32x48").data[0].url
    assert requests.get(linked, timeout=60).content == expected
    (model,) = served.openai.models.list().data
    assert model.id == "tiny-dev" and served.draw(model=model.id).data

    assert refused(lambda: served.draw(model="dall-e-3"), openai.NotFoundError, "tiny-dev").status_code == 404
    refused(lambda: served.draw(size="9999x9999"), openai.BadRequestError, "pixels")
    refused(lambda: served.draw(size="a"), openai.BadRequestError, "size")
    refused(lambda: served.draw(n=17), openai.BadRequestError, "pictures")
    refused(lambda: served.draw(steps=1000), openai.BadRequestError, "steps")
    refused(lambda: served.draw(size="30x48"), openai.BadRequestError, "30")  # by the worker
    refused(lambda: served.draw(output_format="webp"), openai.BadRequestError, "output_format")
    refused(lambda: served.draw(cfg_scale="nan"), openai.BadRequestError, "cfg_scale")
    refused(lambda: served.draw(scheduler="a" * 101), openai.BadRequestError, "scheduler")
    lone = requests.post(f"{served.base}/v1/images/generations", data=b'{"prompt": "\\ud800"}',
                         headers={"Content-Type": "application/json"}, timeout=60)  # fmt: skip
    assert lone.status_code == 400 and lone.json()["error"]["type"] == "invalid_request_error", lone.text


def check_a1111(served: Front) -> None:
    client = webuiapi.WebUIApi(port=served.port, sampler="Euler", steps=2)
    asked = {"prompt": "a fox", "seed": 1, "width": 32, "height": 48, "batch_size": 2, "cfg_scale": 1}
    result = client.txt2img(**asked)
    assert [image.size for image in result.images] == [(32, 48)] * 2
    assert result.info["all_seeds"] == [1, 2] and "Steps: 2, Sampler: Euler" in result.info["infotexts"][0]
    assert result.parameters["prompt"] == "a fox" and result.image.info["parameters"] == result.info["infotexts"][0]
    assert base64.b64decode(result.json["images"][0]) == alone(served.program, "--scheduler", "Euler")
    assert "DPM++ 2M" in client.util_get_sampler_names() and "karras" in client.util_get_scheduler_names()
    assert client.util_get_current_model() == client.get_sd_models()[0]["title"] == "tiny-dev"

    for more, part in (({"enable_hr": True}, "enable_hr"), ({"sampler_name": "Euler a"}, "flow matching")):
        try:
            client.txt2img(**asked | more)
        except RuntimeError as error:
            assert part in error.args[1] and error.args[0] in (400, 422), error
        else:
            raise AssertionError(f"not refused: {more}")

    of_others = a1111_api.settings_of(a1111_api.Text2Image(prompt="x", cfg_scale=7, distilled_cfg_scale=3.5), False)
    assert of_others["guidance"] is None and of_others["cfg_scale"] == 7

    def answer_to(more: dict) -> requests.Response:
        return requests.post(f"{served.base}/sdapi/v1/txt2img", json=asked | {"batch_size": 1} | more, timeout=60)

    changing = {"refiner_checkpoint": "sdxl-refiner", "eta": 0, "s_churn": 0.5, "s_noise": 1.1, "s_min_uncond": 1}
    changing |= {"seed_resize_from_w": 64, "init_images": [result.json["images"][0]], "infotext": "Steps: 3"}
    for name, value in changing.items():
        answer = answer_to({name: value})
        assert answer.status_code == 422 and name in answer.text, answer.text
    neutral = {"refiner_checkpoint": None, "refiner_switch_at": 0.8, "denoising_strength": 0.3, "eta": None}
    answer = answer_to(neutral | {"seed_resize_from_w": -1, "init_images": []})
    assert answer.json()["images"] == result.json["images"][:1], answer.text
    embedding = alone(served.program, "--scheduler", "Euler", "--guidance", "5")
    assert base64.b64decode(answer_to({"distilled_cfg_scale": 5}).json()["images"][0]) == embedding

    for more, part in (
        ({"width": 32}, "width and height"),
        ({"height": 1 << 30}, "width and height"),
        ({"batch_size": 9, "n_iter": 2}, "pictures"),
    ):
        answer = requests.post(f"{served.base}/sdapi/v1/txt2img", json=more, timeout=60)
        assert answer.status_code == 400 and part in answer.json()["errors"], answer.text

    results: list = []
    thread = threading.Thread(target=lambda: results.append(client.txt2img(**asked | {"steps": LONG})))
    thread.start()
    until(lambda: client.get_progress()["state"]["sampling_step"] > 0, "no progress")
    progress = client.get_progress()
    assert 0 < progress["progress"] < 1 and progress["state"]["sampling_steps"] == LONG, progress
    client.interrupt()
    thread.join()
    assert results[0].images == [] and results[0].info["all_seeds"] == [], "interrupted in its first picture"


def check_hostile(served: Front) -> None:
    """No path of a request is used, and none reaches files; long bodies are refused."""
    before = set(Path.cwd().iterdir())
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.png"
        assert served.draw(output=path).data
        json = {"prompt": path, "output": path, "save_images": True, "outpath_samples": folder}
        assert requests.post(f"{served.base}/sdapi/v1/txt2img", json=json, timeout=60).status_code == 200
        assert not os.listdir(folder)
    assert set(Path.cwd().iterdir()) == before
    for name in ("x", "..%2f..%2fetc%2fpasswd", "%2e%2e/x"):
        assert served.get(f"/images/{name}.png").status_code == 404
    long = requests.post(f"{served.base}/sdapi/v1/txt2img", json={"prompt": "a" * (2 << 20)}, timeout=60)
    assert long.status_code == 413 and "bytes" in long.json()["detail"], long.text


def check_queue(served: Front) -> None:
    """One in hand, one waits, the third is turned away; clients that go free both places."""
    first, answers = served.draw_long(SOME)
    waits = threading.Thread(target=lambda: answers.append(served.draw().data))
    waits.start()
    until(lambda: served.metric("xdit_queue") == 1, "nobody waits")
    error = refused(lambda: served.draw(), openai.RateLimitError, "too many")
    assert int(error.response.headers["Retry-After"]) >= 1
    other = requests.post(f"{served.base}/sdapi/v1/txt2img", json={"prompt": "a fox"}, timeout=60)
    assert other.status_code == 429 and other.json()["error"] and other.headers["Retry-After"]
    first.join()
    waits.join()
    assert len(answers) == 2 and answers[0].data, answers

    cancelled = served.metric('xdit_jobs_total{event="cancelled"}')
    try:
        served.openai.with_options(timeout=0.3).images.generate(prompt="a fox", extra_body={"steps": LONG})
    except openai.APITimeoutError:
        pass
    else:
        raise AssertionError("a long job in 0.3 s")
    assert served.draw().data
    assert served.metric('xdit_jobs_total{event="cancelled"}') == cancelled + 1


def check_death(served: Front) -> None:
    thread, answers = served.draw_long()
    starts = served.metric("xdit_worker_starts_total")
    os.kill(served.worker(), signal.SIGKILL)
    thread.join()
    assert isinstance(answers[0], openai.InternalServerError) and answers[0].status_code == 503, answers
    assert answers[0].response.headers["Retry-After"]
    assert served.health() in ("dead", "loading")
    until(lambda: served.health() == "ready", "not started again")
    assert served.metric("xdit_worker_starts_total") == starts + 1
    assert served.draw().data


def check_metrics(served: Front) -> None:
    assert served.metric('xdit_requests_total{path="/v1/images/generations",status="200"}') > 3
    assert served.metric('xdit_requests_total{path="/v1/images/generations",status="503"}') == 1
    assert served.metric('xdit_requests_total{path="other",status="404"}') > 0 == served.metric("xdit_queue")
    assert served.metric("xdit_worker_ready") == 1 and served.metric('xdit_phase_seconds_total{phase="step"}') > 0
    assert served.metric("xdit_picture_gpu_seconds_count") == served.metric("xdit_picture_cost_count") > 3

    metrics = Metrics(hour_price=3.6)  # 0.001 a second
    metrics.ended({"event": "done", "pictures": [{}, {}], "gpu_seconds": 8.0, "phases": {"step": 3.0}})
    metrics.ended({"event": "failed", "pictures": []})
    text = generate_latest(metrics.registry).decode()
    assert "xdit_picture_gpu_seconds_sum 8.0" in text and "xdit_picture_cost_count 2.0" in text
    assert 'xdit_jobs_total{event="failed"} 1.0' in text and "xdit_pictures_total 2.0" in text
    (cost,) = (float(line.split()[1]) for line in text.splitlines() if line.startswith("xdit_picture_cost_sum"))
    assert abs(cost - 0.008) < 1e-12


def check_end(served: Front) -> None:
    """SIGTERM: the picture in hand is finished and sent, who waits is told, nothing stays."""
    thread, answers = served.draw_long(SOME)
    worker = served.worker()
    waits = threading.Thread(
        target=lambda: answers.insert(0, refused(served.draw, openai.InternalServerError, "shutting down"))
    )
    waits.start()
    until(lambda: served.metric("xdit_queue") == 1, "nobody waits")
    served.process.terminate()
    thread.join()
    waits.join()
    assert answers[0].status_code == 503
    assert base64.b64decode(answers[1].data[0].b64_json) == alone(served.program, "--steps", str(SOME))
    assert served.process.wait(timeout=60) == -signal.SIGTERM
    assert not Path(f"/proc/{worker}").exists()


def check_bad_model(program: Path) -> None:
    """A worker that cannot load says why at /health, and a signal ends the front."""
    with front(program, "--log-level", "error", model=["-m", "/absent/model"]) as served:
        until(lambda: served.health() == "dead", "not dead")
        health = served.get("/health")
        assert health.status_code == 503 and "/absent/model" in health.json()["reason"], health.text
        refused(served.draw, openai.InternalServerError, "/health")
        served.process.terminate()
        assert served.process.wait(timeout=10) == -signal.SIGTERM


def check_foreign_lines(program: Path) -> None:
    """Lines on stdout that are no events, too long, or of another job; a program that is away for a while."""
    stale = '{"id": 99, "event": "done", "pictures": []}'
    with tempfile.TemporaryDirectory() as folder:
        chatty = Path(folder) / "chatty"
        chatty.write_text(
            f"""#!/bin/sh
            if [ "$1" = worker ]; then
              printf '%s\\n' 'a library says' 5 '{{"id": 1}}' '{stale}'
              head -c {LONGEST_LINE + 9} /dev/zero | tr '\\0' x
              echo
            fi
            exec '{program}' "$@"
            """
        )
        chatty.chmod(0o700)
        with front(chatty, "--log-level", "error") as served:
            until(lambda: served.health() == "ready", "never ready")
            assert base64.b64decode(served.draw(seed=1, response_format="b64_json").data[0].b64_json) == alone(program)
            away = chatty.rename(chatty.with_name("away"))
            os.kill(served.worker(), signal.SIGKILL)
            until(lambda: "chatty" in served.get("/health").json().get("reason", ""), "started without a program")
            assert served.health() == "dead"
            away.rename(chatty)
            until(lambda: served.health() == "ready", "not started again")


async def stop_at_once(*command: str) -> None:
    """A stop while the process starts, or, where there is none to start, before the next try."""
    worker = Worker([*command], {}, 1, Metrics(0))
    kept = asyncio.create_task(worker.keep())
    await asyncio.sleep(0)
    worker.stop()
    await asyncio.wait_for(kept, 0.9)
    assert worker.state == "dead"


def main(program: Path) -> None:
    for flags in (["-m", "a/b"], ["--model=a/b"], ["-ma/b.safetensors"], ["-m=a/b"], ["--quiet", "--model", "a/b/"]):
        assert model_name(flags) == "b", flags
    for command in (["sleep", "600"], ["/absent/program"]):
        asyncio.run(stop_at_once(*command))
    with front(program, "--queue", "1", "--log-level", "error") as served:
        until(lambda: served.health() == "ready", "never ready")
        for check in (check_openai, check_a1111, check_hostile, check_queue, check_death, check_metrics, check_end):
            begun = time.monotonic()
            check(served)
            print(f"{check.__name__}: {time.monotonic() - begun:.1f} s", flush=True)
    check_bad_model(program)
    check_foreign_lines(program)
    print("serve: works")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
