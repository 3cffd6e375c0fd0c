"""OpenAI's images API: POST /v1/images/generations, GET /v1/models."""

import base64
import secrets
import time
from collections import OrderedDict
from typing import Literal

from fastapi import APIRouter, Request, Response
from front import Front, Name, Number
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from worker import Down

KEPT = 64  # pictures behind URLs, the latest


class Generation(BaseModel):
    prompt: str = Field(min_length=1, max_length=32_000)
    model: str | None = None
    n: int | None = Field(1, ge=1)
    size: str | None = Field(None, pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")
    response_format: Literal["url", "b64_json"] | None = "url"
    output_format: Literal["png"] | None = "png"
    background: Literal["auto", "opaque"] | None = "auto"
    stream: Literal[False] | None = False
    # Of xdit-gen: the client's extra_body.
    negative_prompt: str | None = Field(None, max_length=32_000)
    seed: int | None = Field(None, ge=0, lt=2**63)
    steps: int | None = Field(None, ge=1)
    guidance: Number = None
    cfg_scale: Number = None
    scheduler: Name = None


def settings_of(asked: Generation) -> dict:
    width = height = None
    if asked.size and asked.size != "auto":
        width, height = map(int, asked.size.split("x"))
    same = asked.model_dump(include={"prompt", "negative_prompt", "steps", "guidance", "cfg_scale", "scheduler"})
    seed = -1 if asked.seed is None else asked.seed
    return same | {"width": width, "height": height, "count": asked.n or 1, "seed": seed}


def routes(front: Front) -> APIRouter:
    router = APIRouter()
    kept: OrderedDict[str, bytes] = OrderedDict()
    begun = int(time.time())

    def url_of(request: Request, png: bytes) -> str:
        name = secrets.token_urlsafe(16)
        kept[name] = png
        if len(kept) > KEPT:
            kept.popitem(last=False)
        return f"{request.base_url}images/{name}.png"

    @router.post("/v1/images/generations")
    async def generate(asked: Generation, request: Request) -> dict:
        if asked.model not in (None, front.model):
            raise HTTPException(404, f"the model {asked.model!r} does not exist; there is {front.model!r}")
        pictures, whole = await front.make(request, settings_of(asked))
        if not whole:
            raise Down("the request was interrupted")
        data = [
            {"b64_json": base64.b64encode(picture.png).decode()}
            if asked.response_format == "b64_json"
            else {"url": url_of(request, picture.png)}
            for picture in pictures
        ]
        for one, picture in zip(data, pictures):
            one["seed"] = picture.seed
        size = f"{pictures[0].width}x{pictures[0].height}"
        return {"created": int(time.time()), "data": data, "output_format": "png", "size": size}

    @router.get("/v1/models")
    async def models() -> dict:
        return {
            "object": "list",
            "data": [{"id": front.model, "object": "model", "created": begun, "owned_by": "xdit-gen"}],
        }

    @router.get("/images/{name}.png")
    async def picture(name: str) -> Response:
        if name not in kept:
            raise HTTPException(404, "no such picture, or no longer")
        return Response(kept[name], media_type="image/png")

    return router
