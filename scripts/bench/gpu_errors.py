#!/usr/bin/env python3
"""diffusers' own errors in bf16 and fp16 on a GPU, as tests/data/flux/errors.json holds the CPU's.

gpu_errors.py OUT.json
XDIT_TEST_CUDA=1 XDIT_TEST_ERRORS=OUT.json test_models then holds ours to them.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
import make_flux

torch.set_grad_enabled(False)
torch.backends.cudnn.allow_tf32 = False
errors = {model.name: make_flux.make_errors(make_flux.FOLDER, model, "cuda")[1] for model in make_flux.MODELS}
Path(sys.argv[1]).write_text(json.dumps({"inputs": make_flux.ERROR_INPUTS, "errors": errors}))
