"""Makes the variants that a problem asks for."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tidemill.bundle import Bundle
from tidemill.compress import litert, onnx_file
from tidemill.compress.distillation import Student, Teacher, teach
from tidemill.compress.fitting import Course, take_weights
from tidemill.compress.measures import Size, weights_content
from tidemill.compress.networks import LiteRTNetwork, Network, OnnxNetwork, SavedNetwork
from tidemill.compress.pruning import Pruner, Schedule
from tidemill.compression import Distilled, LiteRT, Pruned, Variant
from tidemill.errors import ProblemError
from tidemill.evaluate.evaluation import Inputs
from tidemill.network import read_weights
from tidemill.train.architectures import ARCHITECTURES
from tidemill.train.export import write_model
from tidemill.train.models import build_model
from tidemill.train.precision import computing_in
from tidemill.train.vocabularies import rows_of
from tidemill.transform.features import TransformedFeatures
from tidemill.transform.graph import load_transform


@dataclass(frozen=True)
class Made:
    """A variant that is on disk and can be asked.

    Attributes:
        network: answers transformed features.
        size: of what has the network alone.
        about: what is to be said of it, such as whom it learnt from.
    """

    network: Network
    size: Size
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workshop:
    """What variants are made from.

    Attributes:
        inputs: of the evaluation.
        examples: raw rows per split.
        transformed: Parquet per split.
        transform_graph: tf.Transform's output with features.json.
        model: the trained model's artefact.
        champion: the one in production; an empty or absent directory where there is none.
        original: the same, loaded.
        sample: transformed training rows.
        checkpoints: directory that outlives a killed run.
    """

    bundle: Bundle
    inputs: Inputs
    examples: Path
    transformed: Path
    transform_graph: Path
    model: Path
    champion: Path
    original: SavedNetwork
    sample: Mapping[str, np.ndarray]
    checkpoints: Path

    def make(self, name: str, variant: Variant, directory: Path) -> Made:
        """Writes a variant into a directory.

        Raises:
            UserCodeError: if the format lacks an operation of the network.
            ProblemError: if it is to be pruned, and was trained on some of the rows.
            DataError: if there are too few rows to calibrate on.
        """
        if isinstance(variant, LiteRT):
            content = litert.convert(name, variant, self.model, self.original.inputs, self.sample, self._blamed)
            return self._file(directory / "model.tflite", content, LiteRTNetwork(content, self.original.inputs))
        if isinstance(variant, Pruned):
            return self._pruned(name, variant, directory)
        if isinstance(variant, Distilled):
            return self._distilled(name, variant, directory)
        content = onnx_file.convert(name, variant, self.original, self._blamed)
        return self._file(directory / "model.onnx", content, OnnxNetwork(content, self.original.inputs))

    def _pruned(self, name: str, variant: Pruned, directory: Path) -> Made:
        training = self.bundle.problem.training
        if training.resample is not None:
            raise ProblemError(
                f"compression.variants.{name}", "pruned needs a training on all rows", "training.resample"
            )
        rate = variant.learning_rate or training.learning_rate / 10
        changes = {"early_stopping_patience": variant.epochs, "learning_rate": rate}
        course = self._course(name, variant, self.transformed, self._described, changes)
        context = course.context()
        with computing_in(course.training.precision):
            network = build_model(self.bundle, context)
        take_weights(network, read_weights(self.model), self._blamed)
        steps = max(1, round(variant.end * context.max_steps))
        pruner = Pruner(Schedule(variant.sparsity, steps, variant.every_steps))
        # Of the epochs at whose end all is pruned the one with the smallest eval loss is kept.
        course.fit(network, pruner.attach, first_kept=math.ceil(steps / context.steps_per_epoch) - 1)
        return self._saved(name, network, directory, {"sparsity": pruner.finish()}, {})

    def _distilled(self, name: str, variant: Distilled, directory: Path) -> Made:
        teacher = Teacher.chosen(variant.teacher, self.inputs, self.model, self.champion)
        print(f"compress: {name} learns from the {teacher.who} model{f': {teacher.reason}' * bool(teacher.reason)}")
        smaller = {
            "model": variant.model,
            "hidden_units": variant.hidden_units,
            "embedding_dimensions": variant.embedding_dimensions,
            # How the teacher was made to see rare classes is in its answers already.
            **{"class_weights": None, "focal_gamma": None, "resample": None},
        }
        with tempfile.TemporaryDirectory(dir=self.checkpoints) as scratch:
            taught = Path(scratch)
            described = teach(teacher, self.inputs, self.examples, self.transformed, self._described, taught)
            course = self._course(name, variant, taught, described, smaller, {"teacher": teacher.digest})
            context = course.context(self._described.features)
            with computing_in(course.training.precision):
                network = ARCHITECTURES[variant.model](context)
                student = Student(network, context.task, variant.temperature, variant.soft)
                student.compile(optimizer=context.optimizer())  # which scales the loss under mixed_float16
            course.fit(student)
        return self._saved(name, network, directory, teacher.about, {"teacher": teacher.digest})

    def _course(
        self,
        name: str,
        variant: Pruned | Distilled,
        transformed: Path,
        described: TransformedFeatures,
        changes: Mapping[str, Any],
        key: Mapping[str, Any] | None = None,
    ) -> Course:
        training = self.bundle.problem.training
        training = training.model_copy(
            update={
                "max_epochs": variant.epochs,
                "max_steps": None,
                "learning_rate": variant.learning_rate or training.learning_rate,
                **changes,
            }
        )
        keras.utils.set_random_seed(training.seed)
        depends = {"model": self.original.manifest.digest, "bundle": self.bundle.digest, **(key or {})}
        return Course(transformed, described, training, self.checkpoints / name, depends)

    def _saved(
        self, name: str, network: keras.Model, directory: Path, about: Mapping[str, Any], lineage: Mapping[str, str]
    ) -> Made:
        before = self.original.manifest
        made_of = {**before.lineage, "variant": name, "compressed_from": before.digest, **lineage}
        directory.mkdir()
        problem, transform = self.bundle.problem, load_transform(self.transform_graph)
        rows = rows_of(network, problem, self._described.features, self.transform_graph)
        manifest = write_model(directory, problem, transform, network, made_of, rows)
        return saved(directory, {**about, "digest": manifest.digest})

    @cached_property
    def _described(self) -> TransformedFeatures:
        return TransformedFeatures.read(self.transform_graph)

    @property
    def _blamed(self) -> str:
        problem = self.bundle.problem
        return problem.user_code.model or f"training.model {problem.training.model}"

    @staticmethod
    def _file(path: Path, content: bytes, network: Network) -> Made:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return Made(network, Size.of(content))


def saved(model: Path, about: Mapping[str, Any], network: SavedNetwork | None = None) -> Made:
    """Returns a model artefact as a variant; its size is that of its weights."""
    return Made(network or SavedNetwork(model), Size.of(weights_content(read_weights(model))), about)
