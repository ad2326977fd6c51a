"""A folder in which FluxGym's real app.py runs: stand-ins for its heavy modules, the demo's trainer for sd-scripts."""

from __future__ import annotations

from pathlib import Path

from fluxgym_watchdog.demo import create_fluxgym

MODULES = {
    "torch.py": "class cuda:\n    is_available = staticmethod(lambda: False)\n\n\nfloat16 = None\n",
    "transformers.py": "class AutoProcessor: ...\n\n\nclass AutoModelForCausalLM: ...\n",
    "slugify.py": (
        "import re\n\n\ndef slugify(text):\n    return re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')\n"
    ),
    "toml.py": (
        "import re\n\n\ndef loads(text):\n"
        "    tokens = re.search(r\"class_tokens = '(.*)'\", text).group(1)\n"
        "    return {'datasets': [{'subsets': [{'class_tokens': tokens}]}]}\n"
    ),
    "sd-scripts/train_network.py": (
        "import argparse\n\n\ndef setup_parser():\n    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--no_metadata', action='store_true', help='a flag')\n"
        "    parser.add_argument('--training_comment', type=str, help='a text')\n    return parser\n"
    ),
    "sd-scripts/library/__init__.py": "",
    "sd-scripts/library/flux_train_utils.py": "def add_flux_train_arguments(parser):\n    pass\n",
    "sd-scripts/library/huggingface_util.py": "def upload(args, src):\n    raise RuntimeError('not in a test')\n",
    "models.yaml": "flux-dev:\n  repo: none\n  base: none\n  license: other\n  file: flux1-dev.sft\n",
    "models/unet/flux1-dev.sft": "",
    "models/vae/ae.sft": "",
    "models/clip/clip_l.safetensors": "",
    "models/clip/t5xxl_fp16.safetensors": "",
    "watchdog.yaml": "check_interval: 0.5\nstuck_threshold: 6\nbackoff: 1\nstop_grace: 3\n",
}


def create(folder: Path, app: Path) -> None:
    """Lays out `folder` with the real app.py from `app` in it."""
    create_fluxgym(folder)
    for name, text in MODULES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "app.py").write_bytes(app.read_bytes())
