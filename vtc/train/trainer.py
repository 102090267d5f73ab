"""transformers' Trainer, told what LLaVA's stages need, and rid of what they do not."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from vtc.data.batches import BatchOrder
from vtc.data.collate import Collator
from vtc.errors import InputError
from vtc.train import sharding, snapshot
from vtc.train.attention import set_attention
from vtc.train.checkpoints import Checkpoints
from vtc.train.log import FACTS, Advance, BatchFacts, Counts, Described, LogRows, Row
from vtc.train.processes import by_first, is_first, is_sharded, n_processes
from vtc.train.rates import set_compressor_rate
from vtc.train.settings import StageSettings
from vtc.train.stopping import BatchLoss, Stop, not_a_number, stop_signals
from vtc.train.turns import PARTS, Turns, encoded_once

_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
}


class VtcTrainer(Trainer):
    """Trainer whose batches bring their own selection of positions for the LM head.

    The head runs at supervised positions only (`logits_to_keep`, `shift_labels`), and the loss is
    divided by the supervised tokens of the whole global batch, accumulated steps and other
    processes included. Both are transformers' own mechanisms; the collator provides the tensors.
    """

    checkpoints: Checkpoints | None = None
    log_rows: Sequence[Row] = ()
    step_loss = float("nan")
    length_bucket = 1
    order: BatchOrder | None = None
    compressor_rate: float | None = None
    turns: Turns | None = None

    def create_optimizer(self, model: Any = None) -> Any:
        """As Trainer's, the compressor at its own learning rate if it has one."""
        optimizer = super().create_optimizer(model)
        trained: Any = model or self.model
        if self.compressor_rate is not None:
            set_compressor_rate(optimizer, trained, self.compressor_rate)
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        """Rows of similar length together; Trainer's own groups whole epochs' worth of them."""
        dataset: Any = train_dataset or self.train_dataset
        self.order = BatchOrder(
            [row.size for row in dataset.rows],
            self.args.per_device_train_batch_size,
            accumulate=self.args.gradient_accumulation_steps * self.args.world_size,
            bucket=self.length_bucket,
            seed=self.args.data_seed,  # type: ignore[arg-type]
        )
        return self.order

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.counts = Counts()
        self.step_facts: list[BatchFacts] = []
        self._step_losses: list[torch.Tensor] = []
        self._step_norm: torch.Tensor | None = None

    def get_batch_samples(self, epoch_iterator: Any, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """As Trainer's, counting what the batches hold; of an elastic training at the step's V."""
        if self.turns is not None:
            epoch_iterator = self.turns.batches(epoch_iterator, self.state.global_step)
        batches, n_items = super().get_batch_samples(epoch_iterator, *args, **kwargs)
        self.step_facts = [batch.pop(FACTS) for batch in batches]
        self._step_losses = []
        world, counts = self.args.world_size, self.counts
        counts.supervised_tokens += int(n_items) if n_items is not None else 0
        counts.samples_seen += world * sum(len(facts.rows) for facts in self.step_facts)
        counts.tokens += world * sum(facts.n_tokens for facts in self.step_facts)
        counts.images += world * sum(facts.n_images for facts in self.step_facts)
        return batches, n_items

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, without a KV cache, which would copy every key and value for nothing."""
        return super().compute_loss(model, {**inputs, "use_cache": False}, *args, **kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As Trainer's, keeping the loss of each batch of the step; its parts one by one."""
        parts = [inputs]
        if PARTS in inputs:
            with self.compute_loss_context_manager():
                parts = encoded_once(self.accelerator.unwrap_model(model), inputs[PARTS])
        losses = [super(VtcTrainer, self).training_step(model, p, *args, **kwargs) for p in parts]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self._step_losses.append(loss)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        self._step_norm = _whole_norm(super()._clip_grad_norm(model))
        return self._step_norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return _whole_norm(super()._get_grad_norm(model, grad_norm))

    def step_numbers(self) -> tuple[list[float], float]:
        """The losses of the step's batches here, and the norm of the gradient of all processes."""
        norm = self._step_norm
        norm = self._step_losses[0].new_zeros(()) if norm is None else torch.as_tensor(norm)
        *losses, size = torch.stack([*self._step_losses, norm.to(self._step_losses[0])]).tolist()
        return losses, size

    @property
    def step_of_row(self) -> int:
        """The last step that has a row in the log."""
        return self._globalstep_last_logged

    @property
    def loss_since_row(self) -> float:
        """The sum of the losses of the steps since then, for the next row."""
        return self.accelerator.gather(self._tr_loss).mean().item()  # type: ignore[union-attr]

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Ours in place of Trainer's, which is not written whole or not at all."""
        if self.checkpoints is None:
            return
        step, write = self.state.global_step, self.checkpoints.write
        shared = snapshot.gather_shared(self)
        by_first(lambda: write(step, lambda folder: snapshot.write_snapshot(self, folder, shared)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.model is not None
        snapshot.load_weights(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            snapshot.load_optimizer(self, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            snapshot.load_chance(Path(checkpoint), self.args.process_index)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted here: Trainer would walk all parameters at every step."""
        return 0


def _whole_norm(norm: Any) -> Any:
    """A gradient's norm, of which under FSDP each process has its part."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class Epochs(TrainerCallback):
    """Tells the order of samples and the collator which epoch it is, after a resume too."""

    trainer: VtcTrainer | None = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All chance of an epoch follows from the seed and its number."""
        parts: list[Any] = [self.trainer.order, self.trainer.data_collator] if self.trainer else []
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(int(state.epoch or 0))


class Watch(TrainerCallback):
    """Stops a training that has gone wrong or was told to stop; asks for checkpoints."""

    def __init__(self, settings: StageSettings, stop: Stop, fault_file: Path):
        self.settings = settings
        self.stop = stop
        self.fault_file = fault_file
        self.trainer: Any = None
        self._stopping = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the weights change: is every loss a number, on every process?"""
        losses, norm = self.trainer.step_numbers()
        self.trainer.step_loss = sum(losses)
        bad = not math.isfinite(sum(losses) + norm)
        images = any(facts.n_images for facts in self.trainer.step_facts)
        bad, self._stopping, images = self._agreed(bad, self.stop.signal is not None, images)
        if is_sharded() and not images:
            sharding.drop_unused(self.trainer.model)
        if bad:
            rows = [facts.rows for facts in self.trainer.step_facts]
            raise not_a_number(
                state.global_step + 1,
                norm,
                gather_object(list(map(BatchLoss, losses, map(self._ids, rows)))),
                self.fault_file,
                f"lower --lr {self.settings.learning_rate} or train in --dtype fp32",
                write=is_first(),
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save when it is time, or when told to stop."""
        checkpoints, last = self.trainer.checkpoints, state.global_step >= state.max_steps
        self._stopping = self._stopping or (n_processes() == 1 and self.stop.signal is not None)
        control.should_training_stop = control.should_training_stop or self._stopping
        if checkpoints is not None:
            control.should_save = self._stopping or checkpoints.due(state.global_step, last)

    def _agreed(self, *flags: bool) -> list[bool]:
        """Each flag, if any process has it: all must stop at the same step."""
        if n_processes() == 1:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.float32, device=self.trainer.args.device)
        return [count > 0 for count in self.trainer.accelerator.reduce(counts, "sum").tolist()]

    def _ids(self, rows: Sequence[int]) -> list[str]:
        return [self.trainer.train_dataset.rows[row].sample_id for row in rows]


def fit_model(
    model: nn.Module,
    dataset: Dataset,
    collator: Collator | Callable[[Any], dict[str, Any]],
    settings: StageSettings,
    run: Path,
    *,
    checkpoints: Checkpoints | None = None,
    report_to: str | None = None,
    say: Callable[[str], object] = lambda line: None,
    advance: Advance = lambda n, words="": None,
    stop: Stop | None = None,
    trainer_class: type[VtcTrainer] = VtcTrainer,
    turns: Turns | None = None,
    **trainer_settings: Any,
) -> list[Row]:
    """Train what of `model` requires gradients, in place; the rows of its training log.

    The order of the samples and all other chance depend on the seeds of `settings` alone, not on
    what the process did before. With `checkpoints` the training is saved as they say, and where
    they say so goes on from the newest: it then ends as if it had never stopped, bit for bit on a
    CPU.
    `run` is where the run will stand: what a failed training leaves is beside it, under its name.
    `turns` collates the batches of an elastic training in place of `collator`.
    `stop` is the caller's, where it listens for signals itself.

    Raises VtcError when a loss is no longer a number, Interrupted when a signal came.
    """
    if turns is not None:
        say(f"{run.name}: {turns}")
    set_seed(settings.seed)
    set_attention(model, settings)
    arguments = training_arguments(settings, run, report_to)
    if is_sharded():
        sharding.shard(model, torch.bfloat16 if arguments.bf16 else None)
    with stop_signals(say) if stop is None else nullcontext(stop) as stop:
        log, epochs = LogRows(advance), Epochs()
        watch = Watch(settings, stop, run.with_name(f"{run.name}.fault.json"))
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=Described(collator) if turns is None else turns,
            callbacks=[epochs, watch, log],
            **trainer_settings,
        )
        log.trainer = epochs.trainer = watch.trainer = trainer
        trainer.length_bucket = settings.length_bucket
        trainer.compressor_rate = settings.compressor_learning_rate
        trainer.checkpoints, trainer.log_rows = checkpoints, log.rows
        trainer.turns = turns
        # Both write to stdout or draw a second bar; stdout is for data.
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                callback.logging_dir = f"{run}.tensorboard"
        _train(model, trainer, log, _checkpoint_to_resume(checkpoints), say)
        if stop.agreed() is not None:
            raise stop.interrupted(_where(trainer))
    if is_sharded():
        sharding.gather(model)
    return log.rows


def _checkpoint_to_resume(checkpoints: Checkpoints | None) -> Path | None:
    """The newest whole checkpoint if the training is to go on; the first process chooses."""
    if checkpoints is None or not checkpoints.saving.resume:
        return None
    return by_first(checkpoints.newest)


def _train(
    model: nn.Module,
    trainer: VtcTrainer,
    log: LogRows,
    checkpoint: Path | None,
    say: Callable[[str], object],
) -> None:
    if checkpoint is None:
        with _in_training_mode(model):
            trainer.train()
        return
    progress, rows = snapshot.load_progress(checkpoint)
    say(f"going on behind step {progress['step']} of {checkpoint}")
    if progress["step"] >= progress["max_steps"]:
        # Nothing is left to do, and Trainer would do one step more.
        snapshot.load_weights(model, checkpoint)
        log.rows[:] = rows
        return
    trainer.counts = Counts(**progress["counts"])
    log.resume(rows, progress["loss_since_row"], progress["step_of_row"])
    with _in_training_mode(model):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def _where(trainer: VtcTrainer) -> str:
    """How far an interrupted training has come, and the way on."""
    state, checkpoints = trainer.state, trainer.checkpoints
    done = f"after step {state.global_step} of {state.max_steps}"
    if checkpoints is None:
        return done
    return f"{done}, which is saved in {checkpoints.folder}; --resume goes on from there"


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


def training_arguments(
    settings: StageSettings, run: Path, report_to: str | None = None
) -> TrainingArguments:
    """Our settings in transformers' words; nothing is evaluated or saved by Trainer itself.

    A global batch stays what the settings say: several processes divide the batches that an
    optimizer step adds up. Raises InputError if they cannot.
    """
    gpu = torch.cuda.is_available()
    accumulate, odd = divmod(settings.accumulate, n_processes())
    if odd:
        raise InputError(
            f"--accumulate {settings.accumulate} batches cannot be shared by {n_processes()} "
            "processes; make it a multiple of them"
        )
    return TrainingArguments(
        output_dir=str(run.parent),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=accumulate,
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
        data_seed=settings.order_seed,
        bf16=gpu and settings.dtype == "auto",
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to=[report_to] if report_to else [],
        run_name=run.name,
        project="vtc",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
