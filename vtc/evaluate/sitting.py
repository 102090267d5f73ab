"""One loaded run at every V that it is asked at, its own compressor's or those of its refits."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vtc.compress.serving import repeats_of
from vtc.evaluate.answered import Answer, Answers
from vtc.evaluate.answering import Question
from vtc.evaluate.candidates import Candidate
from vtc.evaluate.decoding import Image
from vtc.evaluate.engines import Engine
from vtc.evaluate.exam import Exam
from vtc.evaluate.prompts import Prompt, tokenise
from vtc.evaluate.vision import Look, Sight
from vtc.model.asking import serve_at
from vtc.model.refit import refit_loaded
from vtc.model.repeating import repeat_at
from vtc.model.run import Run

Track = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""A progress bar: `with track(what, total) as advance`, then `advance(n)`."""


class Sitting(NamedTuple):
    """A run's folder, what rows say of it, and a V, of one or several, that it answers at."""

    folder: Path
    manifest: Mapping[str, Any]
    visual_tokens: int
    one_of_several: bool = False

    @property
    def run_id(self) -> str:
        """The run's name in tables."""
        return self.manifest["run_id"]

    @property
    def title(self) -> str:
        """The run's name, with the V if it answers at several."""
        return f"{self.run_id} at V = {self.visual_tokens}" if self.one_of_several else self.run_id

    @property
    def apart(self) -> int | None:
        """The V by which answers are kept apart from those at the run's own."""
        return None if self.visual_tokens == self.manifest["visual_tokens"] else self.visual_tokens

    def answered(self, exam: Exam, answers: Answers) -> Mapping[int, Answer]:
        """What it has answered, by the items' places."""
        return answers.of(self.run_id, exam.benchmark.name, self.apart)

    def open(self, exam: Exam, answers: Answers) -> list[int]:
        """The places of the items that it has not answered yet."""
        done = self.answered(exam, answers)
        return [place for place in range(len(exam.items)) if place not in done]

    def fed(self, repeats: int | None) -> int:
        """Tokens an image is fed as: V, as often as is asked for or as it was trained."""
        return self.visual_tokens * (repeats or repeats_of(self.manifest))


@dataclass(frozen=True)
class Seated:
    """A loaded run, what answers for it, and its prompts of each exam, an image one token each."""

    run: Run
    engine: Engine
    prompts: Sequence[Sequence[Prompt]]


@dataclass(frozen=True)
class Questions:
    """What runs are asked, and where answers go as they come.

    `options` are the candidates of each exam's items; `repeats` is how often runs are fed their
    visual tokens, None as often as they were trained.
    """

    exams: Sequence[Exam]
    options: Sequence[Sequence[tuple[Candidate, ...]]]
    repeats: int | None
    track: Track
    answers: Answers

    def left(self, sitting: Sitting) -> list[list[int]]:
        """The places of the items of each exam that have no answer yet."""
        return [sitting.open(exam, self.answers) for exam in self.exams]

    def prompts(self, run: Run) -> list[list[Prompt]]:
        """The prompts of each exam's items for a loaded run, each image one token."""
        tokenizer, position = run.processor.tokenizer, run.processor.query_position
        return [tokenise(exam.items, tokenizer, 1, position) for exam in self.exams]

    def longest(self, prompts: Sequence[Sequence[Prompt]], fed: int) -> int:
        """The most tokens of a prompt and its answer, each image `fed` tokens."""
        return max(
            prompt.length(fed) + exam.benchmark.max_new_tokens
            for own, exam in zip(prompts, self.exams, strict=True)
            for prompt in own
        )

    def ask(self, seated: Seated, sittings: Sequence[tuple[Sitting, Sight]], look: Look) -> None:
        """Ask what is left, block by block of images, each sitting in turn.

        The sittings are of the loaded run and of others with its weights, and all see by `look`.
        """
        images = [exam.images() for exam in self.exams]
        left = [self.left(sitting) for sitting, _ in sittings]
        shown = [
            [exam_images[place] for place in sorted(set().union(*places))]
            for exam_images, places in zip(images, zip(*left, strict=True), strict=True)
        ]
        for block in look.blocks(seated.run, shown):
            seen = look.at(seated.run, block)
            inside = set(block.images)
            for (sitting, sight), due in zip(sittings, left, strict=True):
                self._stand(seated.run, sitting)
                views = seen.of(sight)
                for number, places in enumerate(due):
                    here = {
                        place: own
                        for place in places
                        for own in [images[number][place]]
                        if (own and inside.issuperset(own)) or (block.first and not own)
                    }
                    self._put(seated, sitting, number, here, seen.faults, views)
                # Copies where levels are left out: those of two sittings need not stand together.
                del views

    def _stand(self, run: Run, sitting: Sitting) -> None:
        """Let a loaded run answer as a sitting: refitted to it, at its V."""
        if run.manifest["run_id"] != sitting.run_id:
            refit_loaded(run, sitting.folder)
            repeat_at(run.model, run.processor, self.repeats)
        serve_at(run, sitting.visual_tokens)

    def _put(
        self,
        seated: Seated,
        sitting: Sitting,
        number: int,
        here: Mapping[int, Sequence[Image]],
        faults: Mapping[Image, str],
        views: Mapping[Image, Tensor],
    ) -> None:
        """Put the items of an exam, by their places and with the images of each, to a run."""
        exam, prompts = self.exams[number], seated.prompts[number]
        wrong = {
            place: Answer("", 0, prompts[place].n_text_tokens, None, faults[image])
            for place, own in here.items()
            for image in [next((image for image in own if image in faults), None)]
            if image is not None
        }
        self.answers.add(sitting.run_id, exam.benchmark.name, wrong, sitting.apart)
        processor = seated.run.processor
        questions = [
            Question(
                place=place,
                prompt=prompts[place].expanded(processor.image_token_id, processor.visual_tokens),
                shown=tuple(views[image] for image in own),
                options=self.options[number][place],
            )
            for place, own in here.items()
            if place not in wrong
        ]
        with self.track(f"{sitting.title} on {exam.benchmark.name}", len(questions)) as advance:
            for found in seated.engine.answer(questions, exam.benchmark.max_new_tokens):
                self.answers.add(sitting.run_id, exam.benchmark.name, found, sitting.apart)
                advance(len(found))
