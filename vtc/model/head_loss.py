"""The loss of a large LM head, chunk by chunk: its logits never exist all at once."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vtc.data.labels import IGNORE

# Below this many logits the plain loss is as fast, and its figures are those of transformers.
_WORTH_IT = 2**22
# Of the fp32 logits of a chunk. Fewer rows make slower products, more save no more time.
_CHUNK_BYTES = {"cpu": 48 * 2**20, "cuda": 256 * 2**20}


def is_worth_it(head: nn.Module, n_positions: int) -> bool:
    """Whether the loss of so many positions under this head is to be taken in chunks.

    Only of a plain linear layer without bias: whatever wraps or replaces the head has its own
    forward, which `head_loss` would pass by. torch.compile fuses the plain loss itself.
    """
    plain = type(head) is nn.Linear and head.bias is None and not torch.compiler.is_compiling()
    return plain and n_positions * head.out_features >= _WORTH_IT  # type: ignore[operator]


def head_loss(
    hidden_states: Float[Tensor, "S D"],
    weight: Float[Tensor, "vocab D"],
    targets: Int[Tensor, " S"],
    n_items: Tensor | int | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the logits `hidden_states @ weight.T`, in nats; fp32.

    The sum over the positions is divided by `n_items`, without it by the positions with a target
    (those of `IGNORE` have none), as transformers' loss for causal language models. The gradients
    are made with the loss, so that a chunk of logits is thrown away as soon as it is used: one
    product with the weights forward and one back as ever (two where the head trains), less memory
    and fewer passes over it. Under autocast the products are in its type. Backward works once.
    """
    total = _HeadLoss.apply(hidden_states, weight, targets)
    divisor: Any = (targets != IGNORE).sum() if n_items is None else n_items
    return total / (divisor.to(total.device) if torch.is_tensor(divisor) else divisor)


class _HeadLoss(torch.autograd.Function):
    """The summed loss; its gradients wait for the one number that backward brings."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        device = hidden.device.type
        trains, dtype = ctx.needs_input_grad[1], _product_type(weight, device)
        with torch.autocast(device, enabled=False):
            kernel = weight.to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            of_hidden = torch.empty_like(hidden)
            # Sums of chunks are kept in fp32: in bf16 each addition would round.
            of_weight = torch.zeros_like(weight, dtype=torch.float32) if trains else None
            rows = max(16, _CHUNK_BYTES.get(device, _CHUNK_BYTES["cpu"]) // (4 * len(weight)))
            for start in range(0, len(hidden), rows):
                here = slice(start, start + rows)
                states, wanted = hidden[here].to(dtype), targets[here, None]
                counts = (wanted != IGNORE).to(torch.float32)
                loss, slopes = _loss_and_slopes(states @ kernel.T, wanted.clamp(min=0), counts)
                total += loss
                of_hidden[here] = (slopes @ kernel) * counts
                if of_weight is not None:
                    _add_product(of_weight, slopes.T, states * counts)
                # Or they would live until the next ones do.
                del slopes
        ctx.gradients = of_hidden, None if of_weight is None else of_weight.to(weight.dtype)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the chunked loss of the LM head has no second backward pass")
        (of_hidden, of_weight), ctx.gradients = ctx.gradients, None
        return of_hidden.mul_(scale), None if of_weight is None else of_weight.mul_(scale), None


def _loss_and_slopes(logits: Tensor, wanted: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss of a chunk, and its gradient (softmax less the target) by position.

    It may overwrite `logits`. `wanted` [c, 1] are classes; positions of `counts` [c, 1] 0 add
    nothing to the loss.
    """
    # In place, as each pass over so many logits costs time and each copy memory.
    scores = logits.float()
    right, highest = scores.gather(1, wanted), scores.amax(dim=1, keepdim=True)
    sums = scores.sub_(highest).exp_().sum(dim=1, keepdim=True)
    loss = ((sums.log() + highest - right) * counts).sum()
    slopes = scores.div_(sums).scatter_add_(1, wanted, -torch.ones_like(counts))
    return loss, slopes.to(logits.dtype)


def _product_type(weight: Tensor, device: str) -> torch.dtype:
    """The type in which a linear layer would multiply here."""
    on = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else weight.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in fp32 whatever the factors are in."""
    if left.dtype == total.dtype:
        total.addmm_(left, right.to(left.dtype))
    else:
        total += left @ right.to(left.dtype)
