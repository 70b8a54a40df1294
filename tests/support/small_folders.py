"""Edits and loads the small Hugging Face folders that tests damage."""

import json

from format_models import REGISTRY
from safetensors.numpy import load_file, save_file

from models.checkpoints.base import read_checkpoint
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions


def configure(folder, **keys):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return folder


def rewrite(folder, edit):
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path)
    return folder


def load(path):
    with open_checkpoint(read_checkpoint(path, REGISTRY), LoadOptions(max_context=8), REGISTRY):
        pass
