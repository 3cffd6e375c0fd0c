"""The part of AUTOMATIC1111's API that makes pictures from text: /sdapi/v1/."""

import base64
import json
import time

from fastapi import APIRouter, Request
from front import Front, Name, Number
from png import texts
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from worker import Picture

# Each would change the picture, but for these values: what A1111 and its clients send unless told otherwise.
EMPTY = (None, False, 0, "", "None", [], {})
UNKNOWN = {
    **dict.fromkeys(("enable_hr", "restore_faces", "tiling", "styles", "subseed_strength"), EMPTY),
    **dict.fromkeys(("script_name", "alwayson_scripts", "init_images", "infotext", "refiner_checkpoint"), EMPTY),
    **dict.fromkeys(("s_churn", "s_min_uncond"), EMPTY),
    **dict.fromkeys(("eta", "s_noise"), (None, 1)),
    **dict.fromkeys(("seed_resize_from_h", "seed_resize_from_w"), (*EMPTY, -1)),
}
SIGMAS = {"": None, "automatic": None, "uniform": "default", "normal": "default"}  # others: the same names


class Text2Image(BaseModel):
    model_config = ConfigDict(extra="allow")
    prompt: str = Field("", max_length=32_000)
    negative_prompt: str | None = Field("", max_length=32_000)
    width: int | None = Field(None, ge=1)
    height: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    cfg_scale: Number = None
    distilled_cfg_scale: Number = None
    sampler_name: Name = None
    sampler_index: Name = None
    scheduler: Name = None
    seed: int | None = Field(-1, ge=-1, lt=2**63)
    batch_size: int | None = Field(1, ge=1)
    n_iter: int | None = Field(1, ge=1)
    send_images: bool | None = True
    override_settings: dict | None = None


def settings_of(asked: Text2Image, embeds_guidance: bool) -> dict:
    # Forge's clients send a distilled scale to every model.
    sigmas = (asked.scheduler or "").lower().replace(" ", "-").replace("_", "-")
    return {
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt or None,
        "width": asked.width,
        "height": asked.height,
        "steps": asked.steps,
        "cfg_scale": asked.cfg_scale,
        "guidance": asked.distilled_cfg_scale if embeds_guidance else None,
        "scheduler": asked.sampler_name or asked.sampler_index or None,
        "sigmas": SIGMAS.get(sigmas, sigmas),
        "seed": -1 if asked.seed is None else asked.seed,
        "count": (asked.batch_size or 1) * (asked.n_iter or 1),
    }


def info_of(asked: Text2Image, pictures: list[Picture]) -> dict:
    """What A1111 says of its pictures, with their own texts."""
    found = [texts(picture.png) for picture in pictures]
    record = json.loads(found[0].get("xdit-gen", "{}")) if found else {}
    return {
        "prompt": asked.prompt,
        "all_prompts": [asked.prompt] * len(pictures),
        "negative_prompt": asked.negative_prompt or "",
        "all_negative_prompts": [asked.negative_prompt or ""] * len(pictures),
        "seed": pictures[0].seed if pictures else asked.seed,
        "all_seeds": [picture.seed for picture in pictures],
        "width": pictures[0].width if pictures else asked.width,
        "height": pictures[0].height if pictures else asked.height,
        "steps": record.get("steps", asked.steps),
        "cfg_scale": record.get("cfg_scale", asked.cfg_scale),
        "sampler_name": asked.sampler_name or asked.sampler_index or record.get("scheduler"),
        "batch_size": asked.batch_size or 1,
        "index_of_first_image": 0,
        "infotexts": [one.get("parameters", "") for one in found],
    }


def progress_of(front: Front) -> dict:
    job = front.worker.job
    last = job.progress if job else {}
    step, steps = last.get("step", 0), last.get("steps", 0)
    made, of = last.get("made", 0), last.get("of", 1)
    share = min(1.0, (made + (step / steps if steps else 0)) / max(of, 1)) if job else 0.0
    spent = time.monotonic() - job.begun if job else 0.0
    state = {"job": str(job.id) if job else "", "job_count": of if job else 0, "job_no": made}
    return {
        "progress": share,
        "eta_relative": spent * (1 - share) / share if share else 0.0,
        "state": state | {"sampling_step": step, "sampling_steps": steps, "interrupted": False, "skipped": False},
        "current_image": None,
        "textinfo": last.get("phase"),
    }


def routes(front: Front) -> APIRouter:
    router = APIRouter(prefix="/sdapi/v1")

    @router.post("/txt2img")
    async def txt2img(asked: Text2Image, request: Request) -> dict:
        extra = asked.model_extra or {}
        if unknown := [name for name, neutral in UNKNOWN.items() if extra.get(name) not in neutral]:
            raise HTTPException(422, f"not supported: {', '.join(unknown)}")
        asked_model = ("sd_model_checkpoint", front.model)
        if other := [key for key, value in (asked.override_settings or {}).items() if (key, value) != asked_model]:
            raise HTTPException(422, f"not supported: override_settings {', '.join(other)}")
        pictures, _ = await front.make(request, settings_of(asked, front.worker.embeds_guidance))
        images = [base64.b64encode(picture.png).decode() for picture in pictures]
        return {
            "images": images if asked.send_images in (None, True) else [],
            "parameters": asked.model_dump(),
            "info": json.dumps(info_of(asked, pictures)),
        }

    @router.get("/progress")
    async def progress() -> dict:
        return progress_of(front)

    @router.post("/interrupt")
    async def interrupt() -> dict:
        front.worker.interrupt()
        return {}

    @router.get("/samplers")
    async def samplers() -> list[dict]:
        return [
            {
                "name": one["a1111"] or one["scheduler"],
                "aliases": [name for name in (one["scheduler"], one["comfyui"], one["diffusers"]) if name],
                "options": {},
            }
            for one in front.samplers
        ]

    @router.get("/schedulers")
    async def schedulers() -> list[dict]:
        return [{"name": name, "label": name} for name in ["automatic", *front.samplers[0]["sigmas"][1:]]]

    @router.get("/sd-models")
    async def models() -> list[dict]:
        nothing = dict.fromkeys(("hash", "sha256", "config"))
        return [{"title": front.model, "model_name": front.model, "filename": front.model} | nothing]

    @router.get("/options")
    async def options() -> dict:
        return {"sd_model_checkpoint": front.model}

    @router.get("/scripts")
    async def scripts() -> dict:
        return {"txt2img": [], "img2img": []}

    return router
