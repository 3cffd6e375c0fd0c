#!/usr/bin/env python3
"""diffusers' own errors in bf16 and fp16 on a GPU, as tests/data/{flux,sd,unet}/errors.json hold the CPU's.

gpu_errors.py FOLDER
XDIT_TEST_CUDA=1 XDIT_TEST_ERRORS=FOLDER test_models then holds ours to them.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
import make_flux
import make_sd
import make_unet

torch.set_grad_enabled(False)
torch.backends.cudnn.allow_tf32 = False
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
flux = {model.name: make_flux.make_errors(make_flux.FOLDER, model, "cuda")[1] for model in make_flux.MODELS}
unets = {
    name: make_unet.make_errors(
        name, UNet2DConditionModel.from_pretrained(make_unet.FOLDER / name).float().cuda().eval()
    )
    for name in make_unet.NAMES
}
sd = {model.name: make_sd.make_errors(make_sd.FOLDER, model, "cuda")[1] for model in make_sd.MODELS}
for name, inputs, errors in (
    ("flux", make_flux.ERROR_INPUTS, flux),
    ("sd", make_sd.ERROR_INPUTS, sd),
    ("unet", make_unet.INPUTS, unets),
):
    (folder / f"{name}.json").write_text(json.dumps({"inputs": inputs, "errors": errors}))
