"""A TFX pipeline with kcnn's functions, from TFRecords to a pushed model.

    kcnn data export-examples --dataset=digits --validation_fraction=0 --out=examples
    python tfx_pipeline.py [--examples=examples] [--root=pipeline]
        [--tuner=random|bayesian|hyperband|grid] [--module_file]

With --module_file the components get a file that imports kcnn's functions, instead of
their dotted names. The Evaluator blesses a model of 90% accuracy or more; the Pusher
puts it under ROOT/pushed.
"""

import argparse
import pathlib

import tensorflow_model_analysis as tfma
from tfx import v1 as tfx

CONFIG = {"model": "convnet", "epochs": 5}
MODULE = "from kcnn.tfx import preprocessing_fn, run_fn, tuner_fn\n"


def functions(root: pathlib.Path, by_module: bool, *names: str) -> dict[str, str]:
    """Return the arguments that name kcnn's functions to a component."""
    if not by_module:
        return {name: f"kcnn.tfx.{name}" for name in names}
    file = root / "functions.py"
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(MODULE)
    return {"module_file": str(file)}


def components(
    examples_at: str, root: pathlib.Path, tuner: str, by_module: bool
) -> list[tfx.types.BaseNode]:
    """Return every component, connected."""
    splits = [
        tfx.proto.Input.Split(name="train", pattern="Split-train/*"),
        tfx.proto.Input.Split(name="eval", pattern="Split-test/*"),
    ]
    examples = tfx.components.ImportExampleGen(
        input_base=examples_at, input_config=tfx.proto.Input(splits=splits)
    )
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    schema = tfx.components.SchemaGen(
        statistics=statistics.outputs["statistics"], infer_feature_shape=True
    )
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        **functions(root, by_module, "preprocessing_fn"),
    )
    tuned = tfx.components.Tuner(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        train_args=tfx.proto.TrainArgs(),
        eval_args=tfx.proto.EvalArgs(),
        custom_config=CONFIG | {"tuner": tuner, "max_trials": 4},
        **functions(root, by_module, "tuner_fn"),
    )
    trainer = tfx.components.Trainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        hyperparameters=tuned.outputs["best_hyperparameters"],
        train_args=tfx.proto.TrainArgs(),
        eval_args=tfx.proto.EvalArgs(),
        custom_config=CONFIG,
        **functions(root, by_module, "run_fn"),
    )
    accuracy = tfma.MetricConfig(
        class_name="SparseCategoricalAccuracy",
        threshold=tfma.MetricThreshold(
            value_threshold=tfma.GenericValueThreshold(lower_bound={"value": 0.9})
        ),
    )
    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        eval_config=tfma.EvalConfig(
            model_specs=[tfma.ModelSpec(label_key="label")],
            metrics_specs=[tfma.MetricsSpec(metrics=[accuracy])],
            slicing_specs=[tfma.SlicingSpec()],
        ),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(
                base_directory=str(root / "pushed")
            )
        ),
    )
    return [
        examples,
        statistics,
        schema,
        transform,
        tuned,
        trainer,
        evaluator,
        pusher,
    ]


def main() -> None:
    """Run the pipeline on this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", default="examples")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("pipeline"))
    parser.add_argument("--tuner", default="random")
    parser.add_argument("--module_file", action="store_true")
    given = parser.parse_args()
    root = given.root.absolute()
    metadata = tfx.orchestration.metadata.sqlite_metadata_connection_config(
        str(root / "metadata.db")
    )
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="digits",
        pipeline_root=str(root),
        components=components(given.examples, root, given.tuner, given.module_file),
        metadata_connection_config=metadata,
    )
    tfx.orchestration.LocalDagRunner().run(pipeline)


if __name__ == "__main__":
    main()
