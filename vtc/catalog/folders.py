"""What a model's folder must hold before it is worth loading. Weights are not read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vtc.errors import InputError

Kind = Literal["encoder", "llm"]

_NEEDED: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "encoder": ("image processor", ("preprocessor_config.json", "processor_config.json")),
    "llm": (
        "tokenizer",
        (
            "tokenizer.json",
            "tokenizer.model",
            "vocab.json",
            "vocab.txt",
            "spiece.model",
            "*.tiktoken",
        ),
    ),
}
_OBJECTS = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
    *("preprocessor_config.json", "processor_config.json"),
)


def check_folder(folder: str | Path, kind: Kind) -> None:
    """Raise InputError, naming the file, for a model's folder without config or with damaged files.

    Its configs and tokenizer are read.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{kind} {folder} is no model folder: it has no config.json; give the folder that "
            "holds config.json and the weights"
        )
    read = {
        name: _read_object(folder / name, kind) for name in _OBJECTS if (folder / name).is_file()
    }
    check_kind(folder, read["config.json"], kind)


def check_kind(folder: str | Path, config: Mapping[str, Any], kind: Kind) -> None:
    """Raise InputError for an LLM given as the encoder, or an encoder given as the LLM.

    A model with both inside, such as a CLIP pair or a Gemma that sees, passes as either: what loads
    it looks closer.
    """
    if "vision_config" in config:
        return
    sees, speaks = "patch_size" in config, "vocab_size" in config
    about = f"(model_type {config.get('model_type')})"
    if kind == "encoder" and speaks and not sees:
        raise InputError(
            f"encoder {folder} is an LLM {about}, no vision encoder; give the folder of a CLIP, "
            "SigLIP or similar encoder"
        )
    if kind == "llm" and sees and not speaks:
        raise InputError(
            f"llm {folder} is a vision encoder {about}, no LLM; give the folder of a Llama, Qwen, "
            "Mistral or similar model"
        )


def check_company(folder: str | Path, kind: Kind) -> None:
    """Raise InputError for a model's folder without its image processor, or its tokenizer."""
    folder = Path(folder)
    what, names = _NEEDED[kind]
    if not any(next(folder.glob(name), None) for name in names):
        listed = ", ".join(name.removeprefix("*") for name in names)
        model_type = _read_object(folder / "config.json", kind).get("model_type")
        raise InputError(
            f"{kind} {folder} (a {model_type} model) holds no {what} (none of {listed}); copy it "
            "there from where the model comes from"
        )


def _read_object(path: Path, kind: Kind) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{kind}: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(
            f"{kind}: {path} is damaged or truncated ({error}); copy the file again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{kind}: {path} holds no JSON object; copy the file again")
    return content
