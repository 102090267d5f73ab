"""Published weights by their published names: what loads, what it computes, what is refused."""

import math

import pytest
import torch
from test_compress_exact import check, mqt_by_torch, patches, run
from test_compress_tokenpacker import Reference
from torch import nn

from vtc.compress import load_reference
from vtc.compress.interface import VisionFeatures
from vtc.compress.registry import COMPRESSORS
from vtc.errors import InputError

WIDTH, TEXT, SIDE = 32, 48, 6


def random(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.5
        * torch.randn(shape, generator=generator, dtype=torch.float64)
        / math.sqrt(shape[-1])
        for name, shape in shapes.items()
    }


def layer(name: str, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name: str, width: int) -> dict[str, tuple[int, ...]]:
    three = {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
    return {**three, **layer(f"{name}.out_proj", width, width)}


LLAVA = {**layer("0", WIDTH, TEXT), **layer("2", TEXT, TEXT)}
PACKER = {
    "q_proj_1.weight": (WIDTH, WIDTH),
    **layer("k_proj_1.0", 4 * WIDTH, WIDTH), **layer("k_proj_1.2", WIDTH, WIDTH),
    **layer("v_proj_1.0", 4 * WIDTH, WIDTH), **layer("v_proj_1.2", WIDTH, WIDTH),
    **norm("ln_q_1", WIDTH), **norm("ln_k_1", WIDTH), **norm("ln_v_1", WIDTH),
    **attention("clip_attn", WIDTH), **layer("mlp.0", WIDTH, TEXT), **layer("mlp.2", TEXT, TEXT),
}  # fmt: skip
MQT = {
    "query": (36, WIDTH), "pos_embed": (36, WIDTH), "proj": (WIDTH, TEXT),
    **norm("ln_q", WIDTH), **norm("ln_k", WIDTH), **norm("ln_v", WIDTH), **attention("attn", WIDTH),
}  # fmt: skip


def below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A whole model's state dict that holds the projector."""
    rest = {
        "model.embed_tokens.weight": torch.zeros(2, TEXT),
        "lm_head.weight": torch.zeros(2, TEXT),
    }
    return {**rest, **{prefix + name: tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize("prefix", ["model.mm_projector.", ""])
def test_llavas_projector_and_m3(prefix):
    tensors = random(**LLAVA)
    reference = nn.Sequential(nn.Linear(WIDTH, TEXT), nn.GELU(), nn.Linear(TEXT, TEXT)).double()
    reference.load_state_dict(tensors)
    given = below(prefix, tensors) if prefix else tensors
    features = patches(torch.float64)
    with torch.no_grad():
        expected = reference(features)
    check(run(load_reference("mlp", given, grid=(SIDE, SIDE)), features), expected)
    m3 = load_reference("m3", given, grid=(SIDE, SIDE), visual_tokens=36)
    check(run(m3, features), expected)
    check(run(m3, features, visual_tokens=1), expected.mean(1, keepdim=True))


@pytest.mark.parametrize("tokens", [1, 4, 9, 36, None])
def test_tokenpacker(tokens):
    tensors = random(**PACKER)
    reference = Reference(WIDTH, 4, TEXT, 8).double()
    names = {
        "q.": "q_proj_1.", "k.": "k_proj_1.", "v.": "v_proj_1.", "ln_q.": "ln_q_1.",
        "ln_k.": "ln_k_1.", "ln_v.": "ln_v_1.", "attn.": "clip_attn.", "out.": "mlp.",
    }  # fmt: skip
    reference.load_state_dict(
        {own: tensors[names[own.split(".")[0] + "."] + own.split(".", 1)[1]]
         for own in reference.state_dict()}
    )  # fmt: skip
    given = below("model.mm_projector.", tensors)
    compressor = load_reference("tokenpacker", given, grid=(SIDE, SIDE), visual_tokens=tokens)
    levels = {level: patches(torch.float64) * level / 20 for level in (12, 16, 22, 23)}
    multi = torch.cat(list(levels.values()), -1)
    with torch.no_grad():
        found = compressor(VisionFeatures(levels, (SIDE, SIDE)))
        expected = reference(levels[23], multi, tokens or 9)
    check(found, expected)


@pytest.mark.parametrize("tokens", [1, 16, None])
def test_mqt_as_released(tokens):
    tensors = random(**MQT)
    tensors["pos_embed"] = tensors["pos_embed"].half()
    given = below("model.query_abstractor.", tensors)
    compressor = load_reference("mqt", given, grid=(SIDE, SIDE), visual_tokens=tokens)
    assert compressor.static_keys
    features = patches(torch.float64)
    check(run(compressor, features), mqt_by_torch(compressor, features, tokens or 36))
    torch.testing.assert_close(compressor.attn.key.weight, tensors["attn.in_proj_weight"][32:64])
    torch.testing.assert_close(compressor.proj.weight, tensors["proj"].T)
    content = load_reference("mqt", given, grid=(SIDE, SIDE), settings={"static_keys": False})
    assert not torch.allclose(run(content, features)[:, :1], run(compressor, features)[:, :1])


@pytest.mark.parametrize(("queries", "side", "tokens"), [(16, 6, 16), (4, 9, 4), (64, 6, 36)])
def test_mqt_of_another_number_of_queries(queries, side, tokens):
    """`grid_size` 4 on 6 x 6 patches, 2 on 9 x 9; and 8 on 6 x 6, of which 36 tokens are made."""
    shapes = {**MQT, "query": (queries, WIDTH), "pos_embed": (queries, WIDTH)}
    compressor = load_reference("mqt", random(**shapes), grid=(side, side))
    assert (compressor.visual_tokens, len(compressor.query)) == (tokens, queries)
    features = patches(torch.float64, side=side)
    for count in (1, 3, tokens):
        expected = mqt_by_torch(compressor, features, count)
        check(run(compressor, features, visual_tokens=count), expected)
    with pytest.raises(InputError, match=r"queries make no 25|cannot make 49"):
        load_reference(
            "mqt", random(**shapes), grid=(side, side), visual_tokens=49 if queries == 64 else 25
        )
    odd = {**MQT, "query": (12, WIDTH), "pos_embed": (12, WIDTH)}
    with pytest.raises(InputError, match="queries = 12; it takes a square number"):
        load_reference("mqt", random(**odd), grid=(SIDE, SIDE))


def test_weights_are_copies():
    tensors = random(**LLAVA)
    compressor = load_reference("mlp", tensors, grid=(SIDE, SIDE))
    with torch.no_grad():
        compressor.linear_1.weight.zero_()
    assert tensors["0.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"clip_attn.in_proj_bias": None, "ln_k_1.bias": None},
         r"missing: clip_attn\.in_proj_bias, ln_k_1\.bias"),
        ({"ln_q_1.weight": torch.zeros(5)},
         r"of another shape: ln_q_1\.weight \[5\] instead of \[32\]"),
        ({"clip_attn.in_proj_weight": torch.zeros(32, 32)},
         r"in_proj_weight \[32, 32\] instead of \[96, 32\]"),
        ({"k_proj_2.0.weight": torch.zeros(1)}, r"unknown: k_proj_2\.0\.weight"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_listed(change, fault):
    tensors = {**random(**PACKER), **change}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(InputError, match=fault):
        load_reference("tokenpacker", below("model.mm_projector.", kept), grid=(SIDE, SIDE))


def test_no_projector_at_all_and_none_known():
    with pytest.raises(InputError, match=r"weights for mlp, missing: 0\.bias, 0\.weight"):
        load_reference("mlp", {"lm_head.weight": torch.zeros(2, 2)})
    with pytest.raises(InputError, match="no published weights are known of blind; they are"):
        load_reference("blind", {})


PREFIXES = (
    "model.", "module.", "module.model.", "base_model.model.model.", "_orig_mod.model.",
    "_fsdp_wrapped_module.model.", "model.model.", "module._orig_mod.model.", "",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "place", "shapes"),
    [
        ("mlp", "mm_projector.", LLAVA), ("tokenpacker", "mm_projector.", PACKER),
        ("mqt", "query_abstractor.", MQT),
    ],
)  # fmt: skip
def test_whatever_stands_before_the_projector(name, place, shapes):
    tensors = random(**shapes)
    plain = load_reference(name, tensors, grid=(SIDE, SIDE)).state_dict()
    alone = {f"module.{key}": tensor for key, tensor in tensors.items()}
    for given in (alone, *(below(f"{prefix}{place}", tensors) for prefix in PREFIXES)):
        found = load_reference(name, given, grid=(SIDE, SIDE)).state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in plain.items())


def test_weights_in_two_places_are_refused_by_name():
    tensors = random(**LLAVA)
    twice = {
        **below("model.mm_projector.", tensors),
        **below("ema.model.mm_projector.", tensors),
    }
    fault = r"2 times, below ema\.model\.mm_projector\. and model\.mm_projector\.; leave"
    with pytest.raises(InputError, match=fault):
        load_reference("mlp", twice, grid=(SIDE, SIDE))
    both = {**tensors, "module.2.bias": tensors["2.bias"]}
    with pytest.raises(InputError, match=r"are there twice: 2\.bias, module\.2\.bias; leave one"):
        load_reference("mlp", both, grid=(SIDE, SIDE))


@pytest.mark.parametrize("depth", [23, 24, 25, 32, 48])
def test_the_released_hidden_states_are_read_of_any_encoder(depth):
    compressor = load_reference("tokenpacker", random(**PACKER), grid=(SIDE, SIDE), depth=depth)
    assert compressor.key_levels == (12, 16, 22, 23)
    assert compressor.query_level == depth - 1
    own = {"key_levels": [1, 2, 3, 4]}
    other = load_reference(
        "tokenpacker", random(**PACKER), grid=(SIDE, SIDE), depth=5, settings=own
    )
    assert other.key_levels == (1, 2, 3, 4)


def test_an_encoder_too_shallow_for_them_is_refused():
    fault = "reads hidden states 12, 16, 22 and 23 of its encoder, as released, and this one has 12"
    with pytest.raises(InputError, match=fault):
        load_reference("tokenpacker", random(**PACKER), grid=(SIDE, SIDE), depth=12)


def test_every_map_names_every_weight():
    from vtc.compress.registry import build

    for name, kind in COMPRESSORS.items():
        if kind.published is not None:
            with torch.device("meta"):
                compressor = build(
                    name, vision_width=WIDTH, text_width=TEXT, depth=24, grid=(6, 6),
                    visual_tokens=36,
                )  # fmt: skip
            assert set(kind.published.weights) == set(compressor.state_dict()), name
