"""transformers' Trainer, told what LLaVA's stages need, and rid of what they do not."""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from vtc.data.batches import BatchOrder
from vtc.data.collate import Collator
from vtc.errors import VtcError
from vtc.train.settings import StageSettings

_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
}
Row = dict[str, Any]
Advance = Callable[[int], object]


class VtcTrainer(Trainer):
    """Trainer whose batches bring their own selection of positions for the LM head.

    The head runs at supervised positions only (`logits_to_keep`, `shift_labels`), and the loss is
    divided by the supervised tokens of the whole global batch, accumulated steps and other
    processes included. Both are transformers' own mechanisms; the collator provides the tensors.
    """

    supervised_tokens = 0
    samples_seen = 0
    length_bucket = 1
    order: BatchOrder | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        """Rows of similar length together; Trainer's own groups whole epochs' worth of them."""
        dataset: Any = train_dataset or self.train_dataset
        self.order = BatchOrder(
            [row.size for row in dataset.rows],
            self.args.per_device_train_batch_size,
            accumulate=self.args.gradient_accumulation_steps * self.args.world_size,
            bucket=self.length_bucket,
            seed=self.args.seed,
        )
        return self.order

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """As Trainer's, counting samples and supervised tokens."""
        batches, n_items = super().get_batch_samples(*args, **kwargs)
        self.supervised_tokens += int(n_items) if n_items is not None else 0
        self.samples_seen += self.args.world_size * sum(len(self.rows_of(b)) for b in batches)
        return batches, n_items

    def rows_of(self, batch: Row) -> Any:
        """The tensor of a batch that has one row a sample."""
        return batch["input_ids"]

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted here: Trainer would walk all parameters at every step."""
        return 0


class Epochs(TrainerCallback):
    """Tells the order of samples and the collator which epoch it is, after a resume too."""

    trainer: VtcTrainer | None = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All chance of an epoch follows from the seed and its number."""
        parts: list[Any] = [self.trainer.order, self.trainer.data_collator] if self.trainer else []
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(int(state.epoch or 0))


class LogRows(TrainerCallback):
    """Keeps the rows of train_log.parquet, moves the progress bar, and stops on a NaN loss."""

    def __init__(self, settings: StageSettings, advance: Advance):
        self.settings = settings
        self.advance = advance
        self.rows: list[Row] = []
        self.trainer: VtcTrainer | None = None
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the progress bar; the last step is always logged."""
        self.advance(1)
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep one row; Trainer's closing summary, which has no loss, is left out."""
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise VtcError(
                f"the loss is {logs['loss']} at step {state.global_step}; lower --lr "
                f"{self.settings.learning_rate} or train in --dtype fp32"
            )
        self.rows.append(
            {
                "step": state.global_step,
                "epoch": float(state.epoch or 0),
                "loss": float(logs["loss"]),
                "learning_rate": float(logs["learning_rate"]),
                "grad_norm": logs.get("grad_norm"),
                "samples_seen": self.trainer.samples_seen if self.trainer else 0,
                "supervised_tokens": self.trainer.supervised_tokens if self.trainer else 0,
                "seconds": time.perf_counter() - self._start,
            }
        )


def fit_model(
    model: nn.Module,
    dataset: Dataset,
    collator: Collator | Callable[[Any], dict[str, Any]],
    settings: StageSettings,
    scratch: Path,
    *,
    advance: Advance = lambda n: None,
    trainer_class: type[VtcTrainer] = VtcTrainer,
    **trainer_settings: Any,
) -> list[Row]:
    """Train what of `model` requires gradients, in place; the rows of its training log.

    The order of the samples and all other chance depend on `settings.seed` alone, not on what the
    process did before. Raises VtcError when the loss is no longer a number.
    """
    set_seed(settings.seed)
    log, epochs = LogRows(settings, advance), Epochs()
    trainer = trainer_class(
        model=model,
        args=training_arguments(settings, scratch),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[log, epochs],
        **trainer_settings,
    )
    log.trainer = epochs.trainer = trainer
    trainer.length_bucket = settings.length_bucket
    # Both write to stdout or draw a second bar; stdout is for data.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    with _in_training_mode(model):
        trainer.train()
    return log.rows


@contextmanager
def _in_training_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in training mode once, and keep Python's collector off the data.

    Trainer calls `model.train()` at every step and the garbage collector at every start: walks over
    all modules and over millions of token lists, which cost a small model a tenth of its time.
    """
    model.train()
    model.train = lambda mode=True: model  # type: ignore[method-assign]
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        del model.train


def training_arguments(settings: StageSettings, scratch: Path) -> TrainingArguments:
    """Our settings in transformers' words; nothing is evaluated, reported or saved midway."""
    gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        optim=_OPTIMIZERS[settings.optimizer],
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        torch_compile=settings.compile,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=gpu and settings.dtype == "auto",
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
