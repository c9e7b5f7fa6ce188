"""Trains a model on transformed examples and exports it with its transform graph."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tidemill.artifacts import MANIFEST
from tidemill.bundle import Bundle, open_bundle
from tidemill.errors import DataError, ProblemError
from tidemill.files import digest_tree, replaced_directory, sha256_file
from tidemill.hyperparameters import tuned
from tidemill.train.batches import Examples, Packing, summarize_labels
from tidemill.train.checkpoints import Checkpoints, Progress, directory_of, remove_remote
from tidemill.train.coefficients import id_names, write_coefficients
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.efficiency import Efficiency
from tidemill.train.export import check_names, write_model
from tidemill.train.freezing import Freezing
from tidemill.train.heartbeats import Heart
from tidemill.train.history import write_history
from tidemill.train.models import blamed, build_model
from tidemill.train.origins import Origin, origin
from tidemill.train.place import Place
from tidemill.train.precision import computing_in
from tidemill.train.preemption import Notice
from tidemill.train.replicas import make_steps
from tidemill.train.resampling import kept_shares
from tidemill.train.starting import Started, start
from tidemill.train.strategies import Distribution, distribute
from tidemill.train.trainer import Trainer
from tidemill.train.vocabularies import Rows, rows_of
from tidemill.training import FineTuning, Training
from tidemill.transform.features import TransformedFeatures
from tidemill.transform.graph import load_transform

_EFFICIENCY = (
    "strategy",
    "workers",
    "replicas",
    "batch_size",
    "examples_per_second",
    *(field.name for field in fields(Efficiency)),
)


@dataclass(frozen=True)
class TrainReport:
    """How the training went.

    Attributes:
        model: name of the architecture, or the user's function.
        parameters: trainable numbers.
        epochs: epochs taken.
        steps: steps taken.
        kept_epoch: the epoch whose weights are exported (1-based): the one with the smallest eval loss, or the last
            without early stopping.
        stopped: early_stopping, max_epochs or max_steps.
        train_loss: of the kept epoch.
        eval_loss: of the kept epoch.
        metrics: eval metrics of the kept epoch.
        examples_per_second: over all training steps and workers, waiting for input included.
        strategy: how steps were divided over devices and workers.
        workers: processes that trained.
        replicas: devices that trained, of all workers.
        batch_size: examples per step, of all replicas.
        step_ms: see :class:`tidemill.train.efficiency.Efficiency`, as all down to ``accelerator_utilisation``.
        train_s: seconds of training and its evaluation, over all tries.
        export_s: seconds of exporting.
        resumed_from_step: step of the checkpoint that this try began from.
        resumed: steps of the checkpoints that all tries so far began from.
        started: what weights were taken over at the start, if another model's were.
        restarts: why local workers were started again, each time.
    """

    model: str
    parameters: int
    epochs: int
    steps: int
    kept_epoch: int
    stopped: str
    train_loss: float
    eval_loss: float
    metrics: dict[str, float | None]
    examples_per_second: float
    strategy: str
    workers: int
    replicas: int
    batch_size: int
    step_ms: float
    step_ms_p95: float
    input_bound_share: float
    peak_memory_mb: float
    accelerators: tuple[str, ...]
    accelerator_memory_mb: float | None
    accelerator_utilisation: float | None
    train_s: float
    export_s: float
    resumed_from_step: int | None
    resumed: tuple[int, ...] = ()
    restarts: tuple[str, ...] = ()
    started: Started | None = None


def run(
    bundle: str | Path,
    transformed: str | Path,
    transform_graph: str | Path,
    model: str | Path | None,
    history: str | Path,
    checkpoints: str | Path,
    heart: Heart | None = None,
    notice: Notice | None = None,
    hyperparameters: str | Path | None = None,
    epochs: int | None = None,
    champion: str | Path | None = None,
) -> TrainReport:
    """Trains the default model of the problem or the user's, and writes the model and history artefacts.

    A killed run that is started again goes on from its newest checkpoint, and on CPU ends with the same weights.

    Where TF_CONFIG names several workers, all of them call this with the same arguments; the chief writes.

    Args:
        bundle: the problem.
        transformed: Parquet per split.
        transform_graph: tf.Transform's output with features.json.
        model: where the model artefact goes; None exports none.
        history: where the history artefact goes.
        checkpoints: directory that outlives a killed run. Those at ``training.checkpoint_uri`` stay until the caller,
            who alone knows when the outcome is safe, calls `forget`.
        heart: is told what this process is at.
        notice: whether this process is to end.
        hyperparameters: artefact with values that take the place of the problem's; see `tidemill.hyperparameters`.
        epochs: to pause after; called again with more, or none, it goes on from there.
        champion: directory of the champion's model, if the problem starts from it; empty where there is none yet.

    Raises:
        ProblemError: if the hyperparameters are none that the training takes, or the strategy doesn't fit the machine.
        UserCodeError: if the user's model can't be built or trained.
        DataError: if a split is empty, there is only one class, or an input isn't finite.
        UserError: if the loss stops being finite.
        Preempted: if it is told to end before it is done; it goes on from there when it is called again.
    """
    opened = tuned(open_bundle(Path(bundle)), Path(hyperparameters) if hyperparameters else None)
    with origin(opened.problem.training.start_from, Path(champion) if champion else None) as found:
        return _run(
            opened,
            Path(transformed),
            Path(transform_graph),
            Path(model) if model else None,
            Path(history),
            Path(checkpoints),
            heart or Heart(),
            notice or Notice(),
            Path(hyperparameters) if hyperparameters else None,
            epochs,
            found,
        )


def _run(
    opened: Bundle,
    transformed: Path,
    transform_graph: Path,
    model: Path | None,
    history: Path,
    checkpoints: Path,
    heart: Heart,
    notice: Notice,
    hyperparameters: Path | None,
    epochs: int | None,
    found: Origin | None,
) -> TrainReport:
    training = opened.problem.training
    distribution = distribute(training.strategy, place := Place.read())
    notice.listen()
    described = TransformedFeatures.read(transform_graph)
    check_names(described.raw)
    lineage = {
        "bundle": opened.digest,
        "transformed": sha256_file(transformed / MANIFEST),
        "transform_graph": digest_tree(transform_graph),
        **({"hyperparameters": digest_tree(hyperparameters)} if hyperparameters else {}),
        **({"start_from": found.digest} if found else {}),
    }
    label = summarize_labels(transformed, described)
    weights = class_weights(training, described, label)
    packing = Packing(described)
    scale = label.rows / label.weight_sum
    kept = kept_shares(training.resample, label.counts, described.classes)
    train = Examples(transformed, "train", packing, weights, scale, place, kept)
    evaluation = Examples(transformed, "eval", packing, weights, scale, place)
    if not evaluation.total:
        raise DataError("eval split", "has no rows", remedy="give more data or a larger share to `split.eval`")

    keras.utils.set_random_seed(training.seed)
    context = _context(training, described, label, checkpoints, distribution, found, train.total, kept)
    with computing_in(training.precision):
        trained = build_model(opened, context)
    reference = opened.problem.user_code.model
    rows = rows_of(trained, opened.problem, described.features, transform_graph)
    started = start(trained, training.start_from, found, rows)
    with context.strategy.scope():
        freezing = Freezing(trained, training.fine_tuning if found else FineTuning(), context.steps_per_epoch)
    with blamed(reference, opened.directory, "made a model that can't be trained"):
        steps = make_steps(trained, packing, context, train.weighted, distribution)

    def before_epoch(epoch: int, step: int) -> None:
        if freezing.enter(epoch, step):
            steps.retrace()

    key = _key(lineage, distribution, context)
    where = directory_of(training.checkpoint_uri, checkpoints)
    newest = Checkpoints(where, key, training.keep_checkpoints, place.chief)
    trainer = Trainer(steps, train, evaluation, context, newest, heart, notice, place, before_epoch)
    with blamed(reference, opened.directory, "made a model that failed in training", tf.errors.InvalidArgumentError):
        progress = trainer.fit(epochs)
    heart.at("ending")

    begun = time.monotonic()
    with blamed(
        reference, opened.directory, "made a model that can't be exported", (AssertionError, TypeError, ValueError)
    ):
        if model is not None and place.chief:
            _export(model, opened, trained, transform_graph, lineage, rows)
    export_s = time.monotonic() - begun
    report = _report(opened, trained, progress, export_s, trainer, distribution, context, started)
    if place.chief:
        with replaced_directory(history) as partial:
            if _model_name(opened) == "linear":
                names = id_names(opened.problem, described.features, transform_graph)
                whole = Examples(transformed, "train", packing, weights, scale)
                write_coefficients(partial, trained, context, whole, names)
            write_history(partial, _history(opened, context, progress, weights, report))
    steps.agreed_text("")  # no worker leaves before the chief is done: whoever goes takes the others with it
    return report


def forget(bundle: str | Path, checkpoints: str | Path, hyperparameters: str | Path | None = None) -> None:
    """Removes what :func:`run`, called with these, left at ``training.checkpoint_uri``, once the outcome is safe."""
    opened = tuned(open_bundle(Path(bundle)), Path(hyperparameters) if hyperparameters else None)
    remove_remote(opened.problem.training.checkpoint_uri, Path(checkpoints))


def class_weights(training: Training, described: TransformedFeatures, label: LabelSummary) -> np.ndarray | None:
    """Returns the weight of each class, scaled so that the mean over the training rows is 1.

    ``balanced`` gives every class the same total weight. Classes that a mapping leaves out weigh 1 before scaling.

    Raises:
        ProblemError: if the task has no classes or the mapping names one that the data hasn't.
    """
    if training.class_weights is None:
        return None
    if not described.classes:
        raise ProblemError("training.class_weights", "has no meaning for regression")
    counts = np.array(label.counts, np.float64)
    if training.class_weights == "balanced":
        weights = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    else:
        if unknown := sorted(set(training.class_weights) - set(described.classes)):
            known = ", ".join(described.classes)
            raise ProblemError("training.class_weights", f"must name classes among {known}", ", ".join(unknown))
        weights = np.array([training.class_weights.get(name, 1.0) for name in described.classes])
    if (weights < 0).any() or not (weights * counts).sum() > 0:
        raise ProblemError("training.class_weights", "must not be negative or all 0", str(training.class_weights))
    return np.asarray(weights * (label.rows / (weights * counts).sum()), np.float32)


def _context(
    training: Training,
    described: TransformedFeatures,
    label: LabelSummary,
    checkpoints: Path,
    distribution: Distribution,
    found: Origin | None,
    rows: int,
    kept: tuple[float, ...],
) -> TrainContext:
    batch_size = distribution.batch_size(training.batch_size, training.per_replica_batch_size)
    steps_per_epoch = math.ceil(rows / batch_size)
    max_steps = steps_per_epoch * training.max_epochs
    return TrainContext(
        task=described.task,
        classes=described.classes,
        features=described.features,
        training=training,
        label=label,
        strategy=distribution.strategy,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        max_steps=min(max_steps, training.max_steps or max_steps),
        checkpoints=checkpoints,
        kept=kept,
        origin=found,
    )


def _key(lineage: dict[str, str], distribution: Distribution, context: TrainContext) -> str:
    """Returns a digest of all that a position in the training depends on."""
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    division = {"workers": distribution.place.workers, "batch_size": context.batch_size}
    return hashlib.sha256(json.dumps({**lineage, **versions, **division}, sort_keys=True).encode()).hexdigest()


def _export(
    path: Path, bundle: Bundle, trained: keras.Model, transform_graph: Path, lineage: dict[str, str], rows: Rows
) -> None:
    with replaced_directory(path) as partial:
        write_model(partial, bundle.problem, load_transform(transform_graph), trained, lineage, rows)


def _history(
    bundle: Bundle, context: TrainContext, progress: Progress, weights: np.ndarray | None, report: TrainReport
) -> dict[str, Any]:
    training = bundle.problem.training
    return {
        "task": context.task,
        "model": _model_name(bundle),
        "epochs": progress.history,
        "steps": progress.steps,
        "steps_per_epoch": context.steps_per_epoch,
        "best_epoch": progress.best_epoch,
        "kept_epoch": _kept_epoch(bundle, progress),
        "stopped": progress.stopped,
        "seeds": {"weights": training.seed, "order": training.seed},
        "class_weights": None if weights is None else dict(zip(context.classes, weights.tolist(), strict=True)),
        "kept": dict(zip(context.classes, context.kept, strict=True)) if context.kept else None,
        "training": training.model_dump(mode="json"),
        "label": asdict(context.label),
        "resumed_from_step": report.resumed_from_step,
        "efficiency": {name: getattr(report, name) for name in _EFFICIENCY},
    }


def _model_name(bundle: Bundle) -> str:
    return bundle.problem.user_code.model or bundle.problem.training.model


def _kept_epoch(bundle: Bundle, progress: Progress) -> int:
    return progress.epoch if bundle.problem.training.early_stopping_patience is None else progress.best_epoch


def _report(
    bundle: Bundle,
    trained: keras.Model,
    progress: Progress,
    export_s: float,
    trainer: Trainer,
    distribution: Distribution,
    context: TrainContext,
    started: Started | None,
) -> TrainReport:
    kept = progress.history[_kept_epoch(bundle, progress) - 1]
    seconds = sum(record["seconds"] for record in progress.history)
    examples = sum(record["seconds"] * record["examples_per_second"] for record in progress.history)
    return TrainReport(
        model=_model_name(bundle),
        parameters=int(sum(np.prod(v.shape) for v in trained.trainable_variables)),
        epochs=progress.epoch,
        steps=progress.steps,
        kept_epoch=kept["epoch"],
        stopped=progress.stopped or "",
        train_loss=kept["train"]["loss"],
        eval_loss=kept["eval"]["loss"],
        metrics={name: value for name, value in kept["eval"].items() if name != "loss"},
        examples_per_second=examples / max(seconds, 1e-9),
        strategy=distribution.name,
        workers=distribution.place.workers,
        replicas=distribution.replicas,
        batch_size=context.batch_size,
        **asdict(trainer.meter.efficiency()),
        train_s=progress.seconds,
        export_s=export_s,
        resumed_from_step=trainer.resumed_from,
        resumed=tuple(progress.resumed),
        started=started,
    )
