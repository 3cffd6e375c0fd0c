"""The architectures that the scripts know, by the name that --model takes."""

from flux import Flux
from model import Architecture
from sdxl import Sdxl

ARCHITECTURES: dict[str, type[Architecture]] = {"flux": Flux, "sdxl": Sdxl}


def of_pipeline(class_name: str) -> type[Architecture]:
    """By the pipeline that model_index.json names."""
    return next(a for a in ARCHITECTURES.values() if a.MODEL_INDEX["_class_name"] == class_name)
