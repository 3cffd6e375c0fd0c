"""serve.py [--port 8000 ...] -- [flags of xdit-gen worker]: OpenAI's images API and A1111's txt2img for one worker."""

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import a1111_api
import front
import openai_api
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from metrics import Metrics
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from worker import Worker

BUILT = Path(__file__).resolve().parents[2] / "build/release/xdit-gen"
LONGEST_BODY = 1 << 20
WARM_UP = {"prompt": "warm-up", "steps": 2, "count": 1, "seed": 0}


class Gate:
    """Counts requests and refuses long bodies."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.monotonic()
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > LONGEST_BODY:
                raise HTTPException(413, f"more than {LONGEST_BODY} bytes")
            return message

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self.metrics.requests.labels(path, message["status"]).inc()
                self.metrics.request_seconds.labels(path).observe(time.monotonic() - begun)
            await send(message)

        await self.app(scope, bounded, counted)


class Server(uvicorn.Server):
    """Tells the worker of a signal at once: requests in hand are finished, those that wait are not."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self.worker = worker

    def handle_exit(self, sig, frame) -> None:  # noqa: ANN001 (as uvicorn has it)
        asyncio.get_running_loop().call_soon_threadsafe(self.worker.stop)
        super().handle_exit(sig, frame)


def application(api: front.Front, metrics: Metrics) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        kept = asyncio.create_task(api.worker.keep())
        yield
        api.worker.stop()
        await kept

    app = FastAPI(title="xdit-gen", lifespan=lifespan, exception_handlers=front.HANDLERS)
    app.add_middleware(Gate, metrics=metrics)
    app.include_router(openai_api.routes(api))
    app.include_router(a1111_api.routes(api))

    @app.get("/health")
    async def health() -> JSONResponse:
        worker = api.worker
        body = {"status": worker.state} | ({"reason": worker.fault} if worker.fault else {})
        return JSONResponse(body, 200 if worker.state == "ready" else 503)

    @app.get("/metrics")
    async def scraped() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def model_name(flags: list[str]) -> str:
    """What clients call the model: the last part of -m's value."""
    for word, following in zip(flags, [*flags[1:], ""]):
        if found := re.fullmatch(r"(?:-m|--model$|--model=)(.*)", word):
            return Path(found[1] or following).name.removesuffix(".safetensors")
    return "xdit-gen"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/serve/run", usage="%(prog)s [options] -- -m MODEL [flags of xdit-gen worker]"
    )
    parser.add_argument("--host", default="127.0.0.1", help="no password is asked: leave it, or put a proxy before it")
    parser.add_argument("--port", type=int, default=8000)
    found = str(BUILT) if BUILT.exists() else shutil.which("xdit-gen")
    parser.add_argument("--program", default=found, help="xdit-gen")
    parser.add_argument("--queue", type=int, default=16, help="requests that may wait; others get 429")
    parser.add_argument("--max-pictures", type=int, default=16, help="of a request")
    parser.add_argument("--max-pixels", type=int, default=2048 * 2048, help="of a picture")
    parser.add_argument("--max-steps", type=int, default=150)
    parser.add_argument("--hour-price", type=float, default=0, help="of a GPU, for the cost in /metrics")
    parser.add_argument("--log-level", default="info", choices=("error", "warning", "info"))
    parser.add_argument("worker", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    if not asked.program:
        sys.exit("serve: no xdit-gen: scripts/build, or --program FILE")
    listed = subprocess.run([asked.program, "list", "schedulers", "--json"], capture_output=True, check=True)
    metrics = Metrics(asked.hour_price)
    worker = Worker([asked.program, "worker", *asked.worker], WARM_UP, asked.queue, metrics)
    limits = front.Limits(asked.max_pictures, asked.max_pixels, asked.max_steps)
    api = front.Front(worker, limits, model_name(asked.worker), json.loads(listed.stdout))
    config = uvicorn.Config(application(api, metrics), host=asked.host, port=asked.port, log_level=asked.log_level)
    try:
        Server(config, worker).run()
    except KeyboardInterrupt:  # uvicorn raises the signal again when all is done
        sys.exit(130)
    finally:
        worker.kill()


if __name__ == "__main__":
    main()
