"""The entry point through which lmms-eval finds vtc: `lmms_eval --model vtc --model_args run=RUN`.

It is loaded by lmms-eval whenever that starts, so the model itself stands in a file of its own.
"""

from typing import Any


def manifest() -> Any:
    """What lmms-eval's registry wants to know: the name, and where the class is."""
    # lmms-eval is no dependency of vtc: it calls this function, so it is there.
    from lmms_eval.models.registry_v2 import (  # pyright: ignore[reportMissingImports]
        ModelManifest,
    )

    return ModelManifest(model_id="vtc", simple_class_path="vtc.adapters.lmms_eval_model.VtcModel")
