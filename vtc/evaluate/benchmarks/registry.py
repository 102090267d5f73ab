"""The benchmarks of the field by name, the paper's nine and two first."""

import difflib
from typing import Any

from vtc.errors import InputError
from vtc.evaluate.benchmarks import (
    ai2d,
    chartqa,
    docvqa,
    gqa,
    mathvista,
    mmbench,
    mme,
    mmmu,
    pope,
    scienceqa,
    textvqa,
    vizwiz,
    vqav2,
)
from vtc.evaluate.benchmarks.spec import Spec

SPECS: dict[str, Spec] = {
    module.SPEC.name: module.SPEC
    for module in (
        mme,
        gqa,
        ai2d,
        mmbench,
        mmmu,
        scienceqa,
        mathvista,
        pope,
        chartqa,
        docvqa,
        textvqa,
        vizwiz,
        vqav2,
    )
}


def find(name: str) -> Spec:
    """The benchmark of that name, in any case; raises InputError naming the nearest ones."""
    spec = SPECS.get(name.lower())
    if spec is None:
        near = difflib.get_close_matches(name.lower(), SPECS, n=3, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SPECS)}"
        raise InputError(f"no benchmark '{name}': {meant} One of your own is a TOML file")
    return spec


def described(spec: Spec) -> dict[str, Any]:
    """A benchmark as a row of the table of benchmarks."""
    joined = spec.joined
    return {
        "name": spec.name,
        "title": spec.title,
        "task": spec.task,
        "metric": spec.metric,
        "n_rows": spec.n_rows,
        "max_new_tokens": spec.max_new_tokens,
        "source": spec.data.ids[0],
        "former_source": spec.data.ids[1] if len(spec.data.ids) > 1 else None,
        "config": spec.data.config,
        "split": spec.data.split,
        "joined": f"{joined.data.config}.{joined.key} = {joined.column}" if joined else None,
        "prompt": spec.prompt,
        "paper": spec.paper,
    }
