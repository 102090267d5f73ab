"""Forms of the law Y(N, V), by name: what each predicts, and its global least-squares fit.

All minimise the same sum of squared errors of Y, so their information criteria compare. N counts
billions. Sources: `power` is arXiv 2411.03312; `additive` the form of Hoffmann et al. (2022),
"Training Compute-Optimal Large Language Models"; the others are their plainest rivals.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vtc.law.separable import Projected, minimise, non_negative
from vtc.law.varpro import fit_many

Array = np.ndarray
# Magnitudes of exponents in units of 1 / sd(ln N) and 1 / sd(ln V), as in varpro.
_RADII = np.geomspace(2e-3, 12.0, 26)
_SIGNED = np.concatenate([-_RADII[::-1], _RADII])


@dataclass(frozen=True)
class Form:
    """A form: `predict(values, ln N, ln V)` is pure; `fit(ln N, ln V, errors, start)` global.

    `fit` gives the values in the order of `names`, or None if no member is admissible. `start`
    is a neighbouring fit's values, one more start where the fit descends.
    """

    name: str
    formula: str
    names: tuple[str, ...]
    predict: Callable[[Array, Array, Array], Array]
    fit: Callable[[Array, Array, Array, Array | None], Array | None]


def _power(p: Array, log_n: Array, log_v: Array) -> Array:
    return np.exp(np.minimum(np.log(p[0]) - p[1] * log_n - p[2] * log_v, 700.0)) + p[3]


def _power_d0(p: Array, log_n: Array, log_v: Array) -> Array:
    return _power(np.append(p, 0.0), log_n, log_v)


def _log_linear(p: Array, log_n: Array, log_v: Array) -> Array:
    return p[0] - p[1] * log_n - p[2] * log_v


def _logit_linear(p: Array, log_n: Array, log_v: Array) -> Array:
    return _sigmoid(_log_linear(p, log_n, log_v))


def _interaction(p: Array, log_n: Array, log_v: Array) -> Array:
    return p[0] - p[1] * log_n - p[2] * log_v + p[3] * log_n * log_v


def _additive(p: Array, log_n: Array, log_v: Array) -> Array:
    return p[0] + p[1] * np.exp(-p[2] * log_n) + p[3] * np.exp(-p[4] * log_v)


def _offset(p: Array, log_n: Array, log_v: Array) -> Array:
    return p[0] * np.exp(-p[1] * log_n - p[2] * np.log(np.exp(log_v) + p[3]))


def _fit_power(log_n: Array, log_v: Array, errors: Array, start: Array | None) -> Array | None:
    return _values(fit_many(log_n, log_v, errors[None]))


def _fit_power_d0(log_n: Array, log_v: Array, errors: Array, start: Array | None) -> Array | None:
    found = _values(fit_many(log_n, log_v, errors[None], d_max=0.0))
    return None if found is None else found[:3]


def _values(fit) -> Array | None:
    if not np.isfinite(fit.sse[0]):
        return None
    return np.array([fit.k[0], fit.alpha[0], fit.beta[0], fit.d[0]])


def _fit_log_linear(log_n: Array, log_v: Array, errors: Array, start: Array | None) -> Array:
    return _solve([np.ones_like(log_n), -log_n, -log_v], errors)


def _fit_interaction(log_n: Array, log_v: Array, errors: Array, start: Array | None) -> Array:
    return _solve([np.ones_like(log_n), -log_n, -log_v, log_n * log_v], errors)


def _solve(columns: list[Array], errors: Array) -> Array:
    return np.linalg.lstsq(np.stack(columns, axis=1), errors, rcond=None)[0]


def _fit_logit_linear(log_n: Array, log_v: Array, errors: Array, start: Array | None) -> Array:
    (z_n, m_n, s_n), (z_v, m_v, s_v) = _standard(log_n), _standard(log_v)

    def project(theta: Array) -> Projected:
        line = theta[:, :1] - theta[:, 1:2] * z_n - theta[:, 2:] * z_v
        return Projected(theta, _sigmoid(line) - errors)

    axis = np.concatenate([-np.geomspace(0.02, 12, 9)[::-1], [0.0], np.geomspace(0.02, 12, 9)])
    levels = np.linspace(-20, 20, 21)
    grid = _mesh(levels, axis, axis).reshape(len(levels), -1, 3)
    # The line through the errors' logits is almost always next to the answer.
    inside = np.clip(errors, 1e-3, 1 - 1e-3)
    line = _solve([np.ones_like(z_n), -z_n, -z_v], np.log(inside / (1 - inside)))
    c, a, b = minimise(project, grid, line)
    return np.array([c + a * m_n / s_n + b * m_v / s_v, a / s_n, b / s_v])


def _fit_additive(log_n: Array, log_v: Array, errors: Array, start: Array | None) -> Array:
    (z_n, m_n, s_n), (z_v, m_v, s_v) = _standard(log_n), _standard(log_v)

    def project(theta: Array) -> Projected:
        parts = (np.exp(-theta[:, :1] * z_n), np.exp(-theta[:, 1:] * z_v))
        return non_negative(np.stack([np.ones_like(parts[0]), *parts], axis=2), errors)

    near = None if start is None else np.array([start[2] * s_n, start[4] * s_v])
    # Beside a neighbour's answer a coarser grid will do.
    axis = _SIGNED if near is None else _SIGNED[::3]
    a, b = minimise(project, _mesh(axis, axis), near)
    e, k_n, k_v = project(np.array([[a, b]])).coefficients[0]
    # A part without weight has no exponent.
    a, b = a * (k_n > 0), b * (k_v > 0)
    return np.array([e, k_n * np.exp(a * m_n / s_n), a / s_n, k_v * np.exp(b * m_v / s_v), b / s_v])


def _fit_offset(log_n: Array, log_v: Array, errors: Array, start: Array | None) -> Array | None:
    z_n, m_n, s_n = _standard(log_n)
    v, middle = np.exp(log_v), log_v.mean()

    def project(theta: Array) -> Projected:
        shifted = np.log(v + np.exp(theta[:, :1])) - middle
        x = np.exp(np.minimum(-theta[:, 1:2] * z_n - theta[:, 2:] * shifted, 300.0))
        return non_negative(x[:, :, None], errors)

    plain = _fit_power_d0(log_n, log_v, errors, None)
    offsets = np.linspace(log_v.min() - 5, log_v.max() + 2, 12)
    radii = np.concatenate([-np.geomspace(5e-3, 8, 14)[::-1], np.geomspace(5e-3, 8, 14)])
    grid = _mesh(offsets, radii, radii / np.maximum(log_v.std(), 1e-12))
    grid = grid.reshape(len(offsets), -1, 3)
    near = None
    if start is not None and start[3] > 0:
        near = np.array([np.log(start[3]), start[1] * s_n, start[2]])
    theta = minimise(project, grid, near)
    found = project(theta[None])
    k = float(found.coefficients[0, 0])
    if plain is not None:
        gap = _power_d0(plain, log_n, log_v) - errors
        # V0 = 0, the plain power law, is a member that no finite ln V0 reaches.
        if k <= 0 or gap @ gap <= found.sse[0]:
            return np.append(plain, 0.0)
    if k <= 0:
        return None
    t, a, b = theta
    return np.array([k * np.exp(a * m_n / s_n + b * middle), a / s_n, b, np.exp(t)])


def _sigmoid(line: Array) -> Array:
    return 0.5 * (1 + np.tanh(line / 2))


def _standard(logs: Array) -> tuple[Array, float, float]:
    mean, sd = float(logs.mean()), float(logs.std())
    return (logs - mean) / sd, mean, sd


def _mesh(*axes: Array) -> Array:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


FORMS = {
    form.name: form
    for form in (
        Form("power", "k N^-alpha V^-beta + D", ("k", "alpha", "beta", "d"), _power, _fit_power),
        Form("power-d0", "k N^-alpha V^-beta", ("k", "alpha", "beta"), _power_d0, _fit_power_d0),
        Form("log-linear", "c - a ln N - b ln V", ("c", "a", "b"), _log_linear, _fit_log_linear),
        Form(
            "logit-linear",
            "1 / (1 + exp(-(c - a ln N - b ln V)))",
            ("c", "a", "b"),
            _logit_linear,
            _fit_logit_linear,
        ),
        Form(
            "interaction",
            "c - a ln N - b ln V + g ln N ln V",
            ("c", "a", "b", "g"),
            _interaction,
            _fit_interaction,
        ),
        Form(
            "additive",
            "E + A N^-a + B V^-b",
            ("e", "k_n", "a", "k_v", "b"),
            _additive,
            _fit_additive,
        ),
        Form(
            "offset",
            "k N^-alpha (V + V0)^-beta",
            ("k", "alpha", "beta", "v0"),
            _offset,
            _fit_offset,
        ),
    )
}
