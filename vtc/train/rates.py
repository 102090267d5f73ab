"""A learning rate of its own for the compressor, beside the LLM's."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

_COMPRESSOR = "multi_modal_projector"


def set_compressor_rate(optimizer: Optimizer, model: nn.Module, rate: float) -> None:
    """Move the compressor's weights into parameter groups with a peak learning rate of their own.

    LLaVA-1.5's LoRA does so (`mm_projector_lr`: 2e-5 beside 2e-4). Called before the schedule is
    made, which scales every group's own peak.
    """
    own = {id(weight) for name, weight in model.named_parameters() if _COMPRESSOR in name}
    for group in list(optimizer.param_groups):
        moved = [weight for weight in group["params"] if id(weight) in own]
        if not moved:
            continue
        group["params"] = [weight for weight in group["params"] if id(weight) not in own]
        settings: dict[str, Any] = {key: value for key, value in group.items() if key != "params"}
        optimizer.add_param_group({**settings, "params": moved, "lr": rate})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
