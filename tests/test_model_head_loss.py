"""The chunked loss of the LM head is the plain one, in value and in gradients."""

import pytest
import torch
import torch.nn.functional as F
from train_samples import build, collator, read
from transformers.loss.loss_utils import ForCausalLMLoss

from vtc.data.labels import IGNORE
from vtc.model import head_loss as module
from vtc.model.head_loss import head_loss, is_worth_it
from vtc.train.settings import FINETUNE
from vtc.train.stages import unfreeze_for_finetune


def both(monkeypatch, dtype=torch.float32, ignored=(), n_items=None, n=70, chunk=2**11, width=12):
    """(loss, gradient of states, gradient of weights) of transformers' loss and of ours."""
    # 16 rows a chunk at the least: five chunks, the last one short.
    monkeypatch.setattr(module, "_CHUNK_BYTES", {"cpu": chunk})
    random = torch.Generator().manual_seed(0)
    states = torch.randn(n, width, generator=random).to(dtype)
    weight = (2 * torch.randn(501, width, generator=random)).to(dtype)
    targets = torch.randint(501, (n,), generator=random)
    targets[list(ignored)] = IGNORE
    found = []
    for ours in (False, True):
        one, two = states.clone().requires_grad_(), weight.clone().requires_grad_()
        if ours:
            loss = head_loss(one, two, targets, n_items)
        else:
            loss = ForCausalLMLoss(
                F.linear(one, two), None, 501, n_items, shift_labels=targets, ignore_index=IGNORE
            )
        (3 * loss).backward()
        found.append((loss.detach(), one.grad, two.grad))
    return found


@pytest.mark.parametrize("n_items", [None, 11, torch.tensor(11)], ids=str)
@pytest.mark.parametrize("ignored", [(), (0, 17, 69), range(16, 32)], ids=str)
@pytest.mark.parametrize("chunk", [2**11, 2**26], ids=["chunks", "whole"])
def test_the_loss_is_transformers(monkeypatch, ignored, n_items, chunk):
    plain, ours = both(monkeypatch, ignored=ignored, n_items=n_items, chunk=chunk)
    for left, right in zip(plain, ours, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=2e-6)


def test_in_double_precision_it_is_exact(monkeypatch):
    plain, ours = both(monkeypatch, dtype=torch.float64)
    for left, right in zip(plain[1:], ours[1:], strict=True):
        # The softmax itself is in fp32 on both sides.
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)


def test_bfloat16_sums_its_chunks_in_fp32(monkeypatch):
    exact = both(monkeypatch)[0]
    plain, ours = both(monkeypatch, dtype=torch.bfloat16)
    for number in (1, 2):
        off = [(side[number].float() - exact[number]).norm() for side in (plain, ours)]
        assert off[1] < 1.1 * off[0]


def test_autocast_is_honoured(monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        plain, ours = both(monkeypatch)
    exact = both(monkeypatch)[0]
    assert ours[2].dtype == torch.float32
    for left, right, true in zip(plain, ours, exact, strict=True):
        assert 0 < (right - true).norm() < 1.1 * (left - true).norm() + 1e-3


def test_huge_logits_give_a_finite_loss():
    states = torch.full((3, 2), 400.0, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    loss = head_loss(states, weight, torch.tensor([1, 1, 1]))
    assert loss.item() == pytest.approx(1600)
    loss.backward()
    assert torch.isfinite(states.grad).all()


def test_a_frozen_head_gets_no_gradient_and_backward_works_once():
    states = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(9, 3)
    loss = head_loss(states, weight, torch.arange(4))
    loss.backward(retain_graph=True)
    assert weight.grad is None
    with pytest.raises(RuntimeError, match="no second backward"):
        loss.backward()


def test_only_a_large_plain_head_is_worth_it():
    head = torch.nn.Linear(2, 2**12, bias=False)
    assert is_worth_it(head, 2**10)
    assert not is_worth_it(head, 2**10 - 1)
    assert not is_worth_it(torch.nn.Linear(2, 2**12), 2**12)
    assert not is_worth_it(torch.nn.Sequential(head), 2**12)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_learns_the_same(tiny_world, tmp_path, monkeypatch, checkpointing):
    one = build(tiny_world)
    unfreeze_for_finetune(one.model)
    one.model.train()
    if checkpointing:
        one.model.gradient_checkpointing_enable({"use_reentrant": False})
    batch = collator(one, read(tmp_path, tiny_world), FINETUNE)([0, 1, 2])
    found = []
    for worth in (2**60, 0):
        monkeypatch.setattr(module, "_WORTH_IT", worth)
        monkeypatch.setattr(module, "_CHUNK_BYTES", {"cpu": 1})
        one.model.zero_grad()
        output = one.model(**batch, num_items_in_batch=torch.tensor(7), use_cache=False)
        assert (output.logits is None) == (worth == 0)
        output.loss.backward()
        weights = one.model.named_parameters()
        found.append((output.loss.detach(), {k: w.grad for k, w in weights if w.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-6, rtol=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-6, rtol=1e-4, msg=name)
    # Whoever asks for logits gets them: evaluation, and training without named targets.
    one.model.eval()
    assert one.model(**batch).logits is not None
