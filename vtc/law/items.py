"""What other items of the same kind would do to a law: a paired bootstrap of their images.

All runs answer the same items, so most of what the choice of items does is common to all points:
it shifts the law and hardly turns it. A resample takes a benchmark's images with replacement, the
same ones for every run, all items of an image together. Each score is moved to first order by what
its images move it by, which is exact for a mean. After Miller (2024), "Adding Error Bars to Evals"
(arXiv 2411.00640), sections on clustered and paired standard errors.
"""

from collections.abc import Mapping

import numpy as np

from vtc.law.points import Points

Images = Mapping[tuple[str, int, str], Mapping[str, float]]
"""By (run_id, visual_tokens, benchmark) what each image moves the score by."""

# Cells of the matrix of weights that are drawn at once: bounds the memory at some 32 MB.
_CELLS = 2_000_000


def shifts(points: Points, images: Images) -> list[np.ndarray]:
    """For each benchmark [G, n]: what each of its G images moves the error of each point by."""
    found = []
    for benchmark in points.benchmarks:
        own = [images[str(p.run), p.visual_tokens, benchmark] for p in points.points]
        order = {name: at for at, name in enumerate(dict.fromkeys(n for one in own for n in one))}
        moved = np.zeros((len(order), len(own)))
        for column, one in enumerate(own):
            moved[[order[name] for name in one], column] = list(one.values())
        # An error is 1 - score, and a point's error the mean over its benchmarks.
        found.append(moved * (-1 / len(points.benchmarks) * _small(len(order))))
    return found


def _small(n_images: int) -> float:
    """The resample's variance is short by (G - 1) / G."""
    return (n_images / max(n_images - 1, 1)) ** 0.5


def covariance(moved: list[np.ndarray]) -> np.ndarray:
    """[n, n]: the covariance of the points' errors over the choice of images, from `shifts`."""
    return sum((one.T @ one for one in moved), np.zeros((moved[0].shape[1],) * 2))


def not_shared(cov: np.ndarray) -> float:
    """The part of a point's standard error over images that the points do not share."""
    centred = cov - cov.mean(axis=0) - cov.mean(axis=1)[:, None] + cov.mean()
    return max(float(np.trace(centred)) / max(len(cov) - 1, 1), 0.0) ** 0.5


def resample(moved: list[np.ndarray], n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draws [R, n] of what other images of the same kind would add to the points' errors."""
    noise = np.zeros((n_draws, moved[0].shape[1]))
    for one in moved:
        n_images = len(one)
        rows = max(_CELLS // n_images, 1)
        for at in range(0, n_draws, rows):
            part = noise[at : at + rows]
            picks = rng.integers(0, n_images, (len(part), n_images))
            picks += np.arange(len(part))[:, None] * n_images
            counts = np.bincount(picks.ravel(), minlength=len(part) * n_images)
            part += (counts.reshape(len(part), n_images) - 1.0) @ one
    return noise
