"""Every number of the miniature world and of its studies, in one place."""

from dataclasses import dataclass, field, replace

from vtc.lab.rendering import Camera


@dataclass(frozen=True)
class LlmSize:
    """One size of the family: a Qwen2 with tied embeddings."""

    name: str
    width: int
    layers: int
    heads: int
    mlp_width: int
    learning_rate: float


@dataclass(frozen=True)
class LanguageTraining:
    """Pre-training of the LLMs on text renderings, and on facts told without an image.

    A step shows `images` renderings (scenes of up to `objects` things) with `questions` each, and
    recites `recited` facts. Documents fill up over the first `easy` share of the steps.
    """

    steps: int
    images: int = 16
    questions: int = 12
    objects: int = 3
    recited: int = 256
    easy: float = 0.6
    visual_tokens: tuple[int, ...] = (1, 4, 16, 36, 144)
    shares: tuple[float, ...] = (0.2, 0.2, 0.2, 0.2, 0.2)


SIZES = (
    LlmSize("mini-a", 32, 2, 1, 64, 6e-3),
    LlmSize("mini-b", 52, 2, 2, 136, 5e-3),
    LlmSize("mini-c", 88, 2, 2, 240, 2.5e-3),
    LlmSize("mini-d", 160, 2, 4, 448, 1.6e-3),
    LlmSize("mini-e", 168, 5, 4, 448, 1.6e-3),
)


@dataclass(frozen=True)
class EncoderTraining:
    """Shape and pre-training of the vision encoder; objective is both, local or caption."""

    steps: int
    images: int = 32
    width: int = 64
    layers: int = 3
    heads: int = 4
    mlp_width: int = 128
    learning_rate: float = 2e-3
    objective: str = "both"

    def with_objective(self, objective: str) -> "EncoderTraining":
        """The same training under another objective: both, local or caption."""
        return replace(self, objective=objective)


@dataclass(frozen=True)
class Preset:
    """A whole world: what is known, how it looks, how much of it there is, and the backbones.

    train_images and test_images count scenes and documents each; questions and test_questions are
    the most an image of the training set and of a benchmark gets.
    """

    name: str
    sizes: tuple[LlmSize, ...]
    language: LanguageTraining
    encoder: EncoderTraining
    train_images: int
    test_images: int
    questions: int = 12
    test_questions: int = 2
    colour_zipf: float = 0.5
    role_zipf: float = 1.0
    colour_share: float = 0.25
    camera: Camera = field(default_factory=Camera)


TINY = Preset(
    "tiny",
    SIZES[:2],
    LanguageTraining(steps=3, images=4),
    EncoderTraining(steps=3, images=8),
    train_images=8,
    test_images=4,
)
"""For tests: everything in place, hardly anything learnt."""

_LANGUAGE = LanguageTraining(steps=1500)
_ENCODER = EncoderTraining(steps=700)

QUICK = Preset("quick", SIZES[:4], _LANGUAGE, _ENCODER, train_images=1200, test_images=512)
"""Four sizes, for the demonstration."""

FULL = Preset("full", SIZES, _LANGUAGE, _ENCODER, train_images=1200, test_images=512)
"""All five sizes, for the study that is reported."""

PRESETS = {preset.name: preset for preset in (TINY, QUICK, FULL)}
