"""What a compressor costs an inference: by a formula where one is written down, else its class."""

from collections.abc import Mapping
from typing import Any


def stated_of(
    name: str,
    encoder: Any,
    text_width: int,
    visual_tokens: int,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """The `cost.compressor.InferenceCost` of a compressor of the registry at V, on one image.

    Its class, which takes seconds to load, is asked where it has settings of its own, and where no
    formula is written down. Raises InputError for settings, and a V, that it cannot have.
    """
    from vtc.compress.choices import KNOWN
    from vtc.compress.schedule import patches_left
    from vtc.cost.compressor import InferenceCost, stated

    # Of elastic ones: which V are trained moves no cost.
    own = {key: value for key, value in (settings or {}).items() if key != "trained"}
    found = None if own else stated(name, encoder, text_width, visual_tokens)
    if found is not None:
        if not KNOWN[name].merges:
            return found
        return found._replace(
            patches_left=patches_left(encoder.n_patches, visual_tokens, found.level)
        )

    from vtc.compress.registry import shape_arguments
    from vtc.compress.statement import statement

    said = statement(
        name,
        **shape_arguments(encoder, text_width),
        visual_tokens=visual_tokens,
        settings=own,
    )
    return InferenceCost(
        said.n_params,
        said.flops,
        max(said.levels),
        len(said.levels),
        said.needs_query,
        said.patches_left,
        said.text_flops,
    )
