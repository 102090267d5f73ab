"""One model shared out among processes: FSDP2 (torch's `fully_shard`), on GPUs or on a CPU.

Every weight of the LLM and of the compressor, its gradient and its optimizer state lie in parts,
one in each process; a layer is whole only while it runs. The encoder, which is frozen, stays whole
in every process. Source: Zhao et al., PyTorch FSDP (2304.11277); torch.distributed.fsdp.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from vtc.errors import InputError
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.train.processes import is_first, is_sharded, n_processes


def loading_device() -> torch.device:
    """Where weights are read to: the GPU; one that they are shared out to may not hold them all."""
    gpu = torch.cuda.is_available() and not is_sharded()
    return torch.device("cuda" if gpu else "cpu")


def place(model: VtcForConditionalGeneration) -> None:
    """Put a model where it is to run; one to be shared out waits on the CPU but for its encoder."""
    if is_sharded():
        model.model.vision_tower.to(PartialState().device)  # type: ignore[arg-type]
    else:
        model.to(loading_device())  # type: ignore[arg-type]


def shard(model: nn.Module, computing: torch.dtype | None = None) -> None:
    """Share out a model that all processes have loaded alike, in place; all of them must call it.

    `model` is a vtc model or PEFT's around one, put where `place` puts it. The units are the LLM's
    layers; what is left (embeddings, head, last norm, compressor) is one unit more, whole through a
    step: a batch without images does not run the compressor, so no process may wait for it there.
    `computing` is the type of autocast, if it is on.

    Raises InputError where torch is too old for such batches, and for a compressor that reads
    text: a pass of the LLM over the question is not one that all processes make together.
    """
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise InputError(f"FSDP needs torch 2.13 or newer, not {torch.__version__}")
    core = _core(model)
    if core.compressor.reads_text:
        raise InputError(
            f"{core.config.compressor}, which reads the question, does not train under FSDP; "
            "launch with whole copies of the model (--multi_gpu)"
        )
    device: Any = PartialState().device
    mesh = init_device_mesh(device.type, (n_processes(),))
    for layer in _layers(core):
        fully_shard(
            layer,
            mesh=mesh,
            reshard_after_forward=_frees_after_forward(),
            mp_policy=_types(computing),
        )
    encoder = set(core.model.vision_tower.parameters())
    fully_shard(model, mesh=mesh, ignored_params=encoder)
    # The processes sum their gradients unit by unit and must all do so in one order. A batch
    # without images gives the compressor no gradient, and under LoRA the first layer's inputs
    # neither, which would put that layer off to the end.
    model.set_reduce_scatter_unused_params(True)  # type: ignore[operator]
    core.enable_input_require_grads()
    # Trainer leaves placement and the sum of gradients to such a model.
    core._is_distributed_loading_by_transformers = True


def drop_unused(model: nn.Module) -> None:
    """Take the compressor's gradients away after a step in which no process saw an image.

    They are zeros, and AdamW would still move the weights by its momentum; one process alone has
    none then.
    """
    for weight in _core(model).compressor.parameters():
        weight.grad = None


def gather(model: nn.Module) -> None:
    """Make the weights that train whole again, on the CPU of the first process, to be saved there.

    All processes must call it. The model cannot run any more.
    """
    whole: dict[Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if not (weight.requires_grad and isinstance(weight, DTensor)):
                continue
            if weight not in whole:
                full = whole_tensor(weight.detach())
                whole[weight] = nn.Parameter(full)
            if is_first():
                # A tied weight is the same one at both its places.
                setattr(module, name, whole[weight])
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # `fully_shard` put its own class before the module's, which is saved by its name.
            module.__class__ = type(module).__mro__[2]
    _core(model)._is_distributed_loading_by_transformers = False


def whole_tensor(value: Any) -> Any:
    """All of a tensor of which this process holds a part; all processes must call it.

    The first gets it on its CPU, the others an empty one. What is in no parts is given back.
    """
    if not isinstance(value, DTensor):
        return value
    full = value.full_tensor()
    return full.cpu() if is_first() else full.new_empty(0, device="cpu")


def part_like(value: Tensor, weight: Tensor) -> Tensor:
    """This process's part of a whole tensor that is shared out as `weight` is."""
    if not isinstance(weight, DTensor):
        return value
    # Every process has read the same: nothing is sent.
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def _core(model: Any) -> VtcForConditionalGeneration:
    return model if isinstance(model, VtcForConditionalGeneration) else model.get_base_model()


def _layers(core: VtcForConditionalGeneration) -> Iterable[nn.Module]:
    """The LLM's layers, as its class names them for whoever has to cut it."""
    llm = core.model.language_model
    names = set(getattr(llm, "_no_split_modules", None) or ())
    return [module for module in llm.modules() if type(module).__name__ in names]


def _types(computing: torch.dtype | None) -> MixedPrecisionPolicy:
    """The types in which a layer is whole, and in which its gradients are summed.

    A layer comes in the type of autocast. Of fp32 weights autocast would make copies of its own,
    which stand until the backward pass: the whole LLM in every process after all.
    """
    if computing is None:
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(computing, torch.float32, cast_forward_inputs=False)


def _frees_after_forward() -> bool:
    """Whether a layer is put together again for the backward pass: less memory, more traffic."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("1", "true", "yes")
