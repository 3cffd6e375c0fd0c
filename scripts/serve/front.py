"""What both APIs share: a job for a request, and errors in the shape that the API's clients know."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException
from worker import Busy, Down, Picture, Refused, Worker

USERS_FAULT = (2, 3)  # exit codes of xdit-gen: usage, profile
GONE = 499  # nobody reads it
Name = Annotated[str | None, Field(max_length=100)]
Number = Annotated[float | None, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Limits:
    pictures: int  # a request
    pixels: int  # a picture
    steps: int


@dataclass(frozen=True)
class Front:
    worker: Worker
    limits: Limits
    model: str  # its name for clients
    samplers: list[dict]  # rows of xdit-gen list schedulers --json

    async def make(self, request: Request, settings: dict) -> tuple[list[Picture], bool]:
        """What the worker makes of `settings`; given up when the client goes. None settings are the worker's."""
        self.check(settings)
        job = asyncio.create_task(self.worker.make({key: one for key, one in settings.items() if one is not None}))
        gone = asyncio.create_task(disconnected(request))
        try:
            await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not job.done():
                job.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await job
        if job.cancelled():
            raise HTTPException(GONE, "the client is gone")
        return job.result()

    def check(self, settings: dict) -> None:
        for name, text in settings.items():
            try:
                isinstance(text, str) and text.encode()
            except UnicodeEncodeError:
                raise HTTPException(400, f"{name}: not Unicode text") from None
        limits = self.limits
        if settings["count"] > limits.pictures:
            raise HTTPException(400, f"at most {limits.pictures} pictures a request")
        width, height = settings["width"], settings["height"]
        if (width is None) != (height is None):
            raise HTTPException(400, "width and height: both or neither")
        if width and width * height > limits.pixels:
            raise HTTPException(400, f"at most {limits.pixels} pixels a picture")
        if (settings.get("steps") or 1) > limits.steps:
            raise HTTPException(400, f"at most {limits.steps} steps")


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answer(request: Request, status: int, message: str, headers: dict | None = None) -> JSONResponse:
    """An error as the API of the request's path says it."""
    path = request.url.path
    if path.startswith("/v1/"):
        kind, code = {429: ("requests", "rate_limit_exceeded"), 503: ("server_error", "service_unavailable")}.get(
            status, ("invalid_request_error" if status < 500 else "server_error", None)
        )
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    elif path.startswith("/sdapi/"):
        body = {"error": "HTTPException", "detail": message, "body": "", "errors": message}
    else:
        body = {"detail": message}
    return JSONResponse(body, status, headers)


def of_busy(request: Request, busy: Busy) -> JSONResponse:
    return answer(request, 429, str(busy), {"Retry-After": str(busy.retry_s)})


def of_down(request: Request, down: Down) -> JSONResponse:
    return answer(request, 503, str(down), {"Retry-After": "5"})


def of_refused(request: Request, refused: Refused) -> JSONResponse:
    return answer(request, 400 if refused.code in USERS_FAULT else 500, str(refused))


def of_http(request: Request, fault: HTTPException) -> JSONResponse:
    return answer(request, fault.status_code, str(fault.detail), fault.headers)


def of_validation(request: Request, fault: RequestValidationError) -> JSONResponse:
    errors = [{key: one[key] for key in ("type", "loc", "msg")} for one in fault.errors()]
    if request.url.path.startswith("/v1/"):
        first = errors[0]
        reply = answer(request, 400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")
        return reply
    return JSONResponse({"detail": errors}, 422)


HANDLERS = {
    Busy: of_busy,
    Down: of_down,
    Refused: of_refused,
    HTTPException: of_http,
    RequestValidationError: of_validation,
}
