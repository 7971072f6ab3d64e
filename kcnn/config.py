"""Every knob of kcnn, declared once: its default, its bounds and its help.

`Config` is flat, frozen and complete. The command line's flags are generated
from it (flags.py), a run writes it to config.json, and models.py, pipeline.py
and trainer.py read it where a knob acts. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kcnn.errors import UsageError
from kcnn.knobs import (
    By,
    Knob,
    by_model,
    did_you_mean,
    knob,
    knobs_of,
    resolve,
    show,
)

MODELS = {
    "tutorial": "the Keras tutorial CNN: conv, conv, pool, dropout, dense, dropout",
    "convnet": "functional blocks of conv, batch norm, ReLU, pool; then the head",
    "lenet": "LeNet-5: convolutions 6, 16, 120 and a dense layer of 84",
    "shallow": "one or two conv and pool pairs, then wide dense layers",
    "bottleneck": "two strided convolutions that leave a handful of features",
    "mlp": "dense layers only: the baseline that a CNN has to beat",
    "airbench": "the CIFAR-10 speed record's: conv, pool, batch norm, activation",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One run's complete recipe.

    A field whose default depends on another knob (`By`) may be left out; it is None
    where it does not exist.

    Raises:
        UsageError: a value is of the wrong type, out of its bounds, or set where it
            would change nothing.
    """

    # Data
    dataset: str = knob(
        "data",
        "digits",
        "digits, a tensorflow-datasets name, npz:FILE, folder:DIR or examples:DIR",
    )
    data_dir: str = knob(
        "data",
        "",
        "where tensorflow-datasets keeps its data (default: TFDS_DATA_DIR, else the "
        "home folder's tensorflow_datasets)",
    )
    image_size: tuple[int, ...] = knob(
        "data",
        (),
        "HEIGHT,WIDTH every image is resized to (default: the data set's own size; "
        "digits 28,28; images of mixed sizes 64,64)",
        low=1,
        high=4096,
    )
    color_mode: str = knob(
        "data",
        "auto",
        "color channels; auto keeps what the images have",
        choices=("auto", "grayscale", "rgb"),
    )
    normalize_input: str = knob(
        "data",
        "none",
        "instead of resizing: mnist puts handwriting of any size, on paper or screen, "
        "as MNIST's digits were made, 28x28 and grey; the export does the same",
        choices=("none", "mnist"),
    )
    train_size: int | None = knob(
        "data",
        None,
        "number of training images: a stratified subset, nested in larger ones "
        "(default: all)",
        low=1,
    )
    validation_fraction: float = knob(
        "data",
        0.1,
        "part of the training images set aside for validation, stratified, by "
        "random_seed; 0 trains on all",
        low=0.0,
        high=0.9,
    )
    test_fraction: float = knob(
        "data",
        0.2,
        "part of the images set aside for the test, where the data set has no test "
        "split of its own (digits, a folder without test/)",
        low=0.01,
        high=0.9,
    )
    extra_class: str = knob(
        "data", "", "name of one more class, of which no image is trained"
    )
    other: str = knob(
        "data",
        "",
        "images of no class, trained and tested as one more class, named other: a data "
        "set as in --dataset, its labels unread, or folder:DIR with images anywhere in "
        "it",
    )
    strict: bool = knob(
        "data",
        False,
        "refuse unreadable images of folder: and examples: instead of skipping them",
    )
    cache: str = knob(
        "data",
        "memory",
        "where decoded images are kept: memory, disk (a temporary file), or none "
        "(decoded again every epoch)",
        choices=("memory", "disk", "none"),
    )

    # Model
    model: str = knob("model", "tutorial", "architecture", choices=MODELS)
    filters: tuple[int, ...] = knob(
        "model",
        by_model(
            tutorial=(32, 64),
            convnet=(16, 32),
            lenet=(6, 16, 120),
            shallow=(32,),
            bottleneck=(4, 2),
            airbench=(64, 256, 256),
        ),
        "filters of each convolution",
        low=1,
        high=4096,
    )
    convs_per_block: int = knob(
        "model",
        by_model(convnet=1, airbench=2),
        "convolutions of each entry of --filters; the first is pooled",
        low=1,
        high=8,
    )
    kernel_size: int = knob(
        "model",
        by_model(tutorial=3, convnet=5, lenet=5, shallow=5, bottleneck=3, airbench=3),
        "height and width of the convolutions' kernels",
        low=1,
        high=31,
    )
    strides: tuple[int, ...] = knob(
        "model",
        by_model(bottleneck=(1, 3)),
        "stride of each convolution",
        low=1,
        high=16,
    )
    padding: int = knob(
        "model",
        by_model(bottleneck=0),
        "zero pixels added on every side before each convolution",
        low=0,
        high=16,
    )
    pool_sizes: tuple[int, ...] = knob(
        "model",
        by_model(bottleneck=(2, 4)),
        "max pooling after each convolution",
        low=1,
        high=16,
    )
    dense_units: tuple[int, ...] = knob(
        "model",
        by_model(
            tutorial=(128,), convnet=(), lenet=(84,), shallow=(512, 128), mlp=(512, 128)
        ),
        "units of each dense layer before the head",
        low=1,
        high=65536,
    )
    conv_dropout: float = knob(
        "model",
        by_model(tutorial=0.25, lenet=0.0),
        "dropout rate after the last pooling (lenet: after the second convolution)",
        low=0.0,
        high=0.95,
    )
    spatial_dropout: bool = knob(
        "model",
        by_model(tutorial=False, lenet=False),
        "conv_dropout drops whole channels",
    )
    dropout: float = knob(
        "model",
        by_model(tutorial=0.5, convnet=0.0, lenet=0.0, shallow=0.0, mlp=0.0),
        "dropout rate before the head",
        low=0.0,
        high=0.95,
    )
    batch_norm: int = knob(
        "model",
        by_model(tutorial=0, convnet=1, lenet=0, airbench=1),
        "batch normalization: 0 none, 1 after the first convolution (convnet, "
        "airbench: after every one), 2 before the head too (tutorial only)",
        low=0,
        high=2,
    )
    batch_norm_momentum: float = knob(
        "model",
        by_model(tutorial=0.9, convnet=0.9, lenet=0.9, airbench=0.6),
        "momentum of batch normalization's moving statistics",
        low=0.0,
        high=0.9999,
    )
    extra_conv: int = knob(
        "model",
        by_model(tutorial=0),
        "filters of a third convolution after the pooling; 0 leaves it out",
        low=0,
        high=4096,
    )
    extra_conv_pool: bool = knob(
        "model", by_model(tutorial=True), "pool after the extra convolution"
    )
    activation: str = knob(
        "model",
        "relu",
        "activation of hidden layers",
        choices=("relu", "elu", "gelu", "leaky_relu", "silu", "tanh", "sigmoid"),
    )
    initializer: str = knob(
        "model",
        "glorot_uniform",
        "the weights at the start; pytorch: as its layers have them by default, "
        "uniform within 1/sqrt(inputs of a unit), biases too; identity: the same, but "
        "each convolution's first filters pass their inputs on",
        choices=("glorot_uniform", "he_normal", "lecun_normal", "pytorch", "identity"),
    )
    head: str = knob(
        "model",
        by_model(convnet="logits"),
        "logits, or dropout_softmax: dropout on the logits and a softmax before the "
        "softmax loss, as once published; it trains slowly and ends badly calibrated, "
        "and is here only to show that",
        choices=("logits", "dropout_softmax"),
    )

    # Preprocessing, inside the model
    standardize: str = knob(
        "preprocessing",
        "none",
        "subtract the training split's mean and divide by its deviation: over all "
        "pixels, by channel or by pixel; image takes each image's own",
        choices=("none", "global", "channel", "pixel", "image"),
    )
    standardize_floor: float = knob(
        "preprocessing",
        By("standardize", dict.fromkeys(("global", "channel", "pixel", "image"), 0.1)),
        "smallest deviation divided by, in units of the full range of a pixel",
        low=1e-6,
        high=1.0,
    )
    augment: str = knob(
        "preprocessing",
        "none",
        "augmentation: handwriting turns, slants, bends, thickens and thins strokes, "
        "adds noise and, without --normalize_input, turns light and dark around",
        choices=("none", "handwriting"),
    )
    translate: float = knob(
        "preprocessing",
        0.0,
        "augmentation: random shift by whole pixels, up to this part of height and "
        "width",
        low=0.0,
        high=0.5,
    )
    rotate: float = knob(
        "preprocessing",
        0.0,
        "augmentation: random rotation, up to this many degrees either way",
        low=0.0,
        high=180.0,
    )
    zoom: float = knob(
        "preprocessing",
        0.0,
        "augmentation: random zoom, in or out by up to this part",
        low=0.0,
        high=0.9,
    )
    flip: str = knob(
        "preprocessing",
        "none",
        "augmentation: random mirror image (wrong for digits and letters); alternate: "
        "left and right, at random in the first epoch, then the other way around in "
        "every next one",
        choices=("none", "horizontal", "vertical", "both", "alternate"),
    )
    cutout: float = knob(
        "preprocessing",
        0.0,
        "augmentation: blank out a random square with this part of the image's side",
        low=0.0,
        high=0.9,
    )
    crop: int = knob(
        "preprocessing",
        0,
        "height and width of the middle of the image, which is all that the network "
        "sees; 0: the whole image",
        low=0,
        high=4096,
    )
    whiten: int = knob(
        "preprocessing",
        0,
        "side of the patches of which the principal components, from 5,000 training "
        "images, are the network's first convolution, which is never trained; 0: none",
        low=0,
        high=8,
    )
    test_views: str = knob(
        "preprocessing",
        "none",
        "the logits of an image are the mean over itself and its mirror image "
        "(mirror), over both shifted by a pixel as well (mirror_shift), or over itself "
        "and its four shifts along the diagonals (shift); in tests and in the export, "
        "never in training",
        choices=("none", "mirror", "mirror_shift", "shift"),
    )

    # Transfer: the weights of another run as the start
    init_from: str = knob(
        "transfer",
        "",
        "folder of a finished run, whose weights are the start; where the classes are "
        "not the same, the head is fresh",
    )
    freeze: int = knob(
        "transfer",
        0,
        "with --init_from: so many of the first layers with weights keep them; "
        "standardization, which is never trained, does not count",
        low=0,
        high=1000,
    )

    # Training
    epochs: int = knob(
        "training", 12, "passes over the training images", low=1, high=100_000
    )
    batch_size: int = knob("training", 128, "images in a step", low=1, high=65536)
    optimizer: str = knob(
        "training",
        "adam",
        "update rule; momentum and nesterov are SGD with that; muon orthogonalizes the "
        "updates of convolutions and is Adam, at a tenth of the rate, for the rest",
        choices=(
            "adadelta",
            "sgd",
            "momentum",
            "nesterov",
            "rmsprop",
            "adam",
            "adamw",
            "muon",
        ),
    )
    learning_rate: float = knob(
        "training",
        By(
            "optimizer",
            {
                "adadelta": 1.0,  # the paper's; Keras's own default is 0.001
                "sgd": 0.05,
                "momentum": 0.01,
                "nesterov": 0.01,
                "rmsprop": 0.001,
                "adam": 0.002,
                "adamw": 0.002,
                "muon": 0.05,
            },
        ),
        "highest learning rate of the schedule",
        low=1e-8,
        high=100.0,
    )
    momentum: float = knob(
        "training",
        By("optimizer", {"momentum": 0.9, "nesterov": 0.9, "muon": 0.6}),
        "momentum of SGD and of Muon",
        low=0.0,
        high=0.9999,
    )
    beta_1: float = knob(
        "training",
        By("optimizer", {"adam": 0.9, "adamw": 0.9, "muon": 0.9}),
        "decay of Adam's mean of the gradients",
        low=0.0,
        high=0.9999,
    )
    beta_2: float = knob(
        "training",
        By("optimizer", {"adam": 0.999, "adamw": 0.999, "muon": 0.999}),
        "decay of Adam's mean of their squares",
        low=0.0,
        high=0.999999,
    )
    weight_decay: float = knob(
        "training",
        By(
            "optimizer",
            {
                **dict.fromkeys(
                    ("adadelta", "sgd", "momentum", "nesterov", "rmsprop", "adam"), 0.0
                ),
                "adamw": 0.01,
                "muon": 0.1,
            },
        ),
        "decoupled weight decay of kernels (never of biases and normalization)",
        low=0.0,
        high=10.0,
    )
    schedule: str = knob(
        "training",
        "one_cycle",
        "learning rate over the run: constant; cosine, down to 0; one_cycle, up over "
        "the first 30% and down to 0; triangle, up over the first 23% and down to 7%, "
        "in straight lines; step, times step_factor every step_epochs",
        choices=("constant", "cosine", "one_cycle", "triangle", "step"),
    )
    warmup_epochs: float = knob(
        "training",
        By("schedule", {"constant": 0.0, "cosine": 0.0, "step": 0.0}),
        "epochs of linear rise from 0 to learning_rate",
        low=0.0,
        high=1000.0,
    )
    step_epochs: int = knob(
        "training",
        By("schedule", {"step": 5}),
        "epochs between two drops of the step schedule",
        low=1,
        high=100_000,
    )
    step_factor: float = knob(
        "training",
        By("schedule", {"step": 0.1}),
        "factor of each drop of the step schedule",
        low=1e-6,
        high=1.0,
    )
    label_smoothing: float = knob(
        "training",
        0.0,
        "part of each label spread over all classes",
        low=0.0,
        high=0.9,
    )
    class_weight: str = knob(
        "training",
        "none",
        "balanced weights each class's loss by the inverse of its frequency",
        choices=("none", "balanced"),
    )
    clip_norm: float = knob(
        "training",
        0.0,
        "clip gradients to this global norm; 0 never",
        low=0.0,
        high=1e6,
    )
    ema_momentum: float = knob(
        "training",
        0.0,
        "train an exponential moving average of the weights and use that; 0 off",
        low=0.0,
        high=0.99999,
    )
    early_stopping: int = knob(
        "training",
        0,
        "stop after this many epochs without a better validation loss; 0 never",
        low=0,
        high=100_000,
    )
    keep: str = knob(
        "training",
        "last",
        "weights the run ends with: the last epoch's, or those of the epoch with the "
        "best validation accuracy",
        choices=("last", "best"),
    )
    on_divergence: str = knob(
        "training",
        "stop",
        "when the loss explodes or is no number: stop, or rollback to the start of the "
        "epoch with half the learning rate",
        choices=("stop", "rollback"),
    )
    max_rollbacks: int = knob(
        "training",
        By("on_divergence", {"rollback": 3}),
        "how many times to roll back before giving up",
        low=1,
        high=100,
    )
    random_seed: int = knob(
        "training",
        0,
        "seed of the split, the weights, the order, dropout and augmentation",
        low=0,
        high=2**31 - 1,
    )

    # Confidence: fitted to the validation images when the training is over
    reject: str = knob(
        "confidence",
        "none",
        'answer "unknown" where this score is below a threshold: max_probability, of '
        "the predicted class; energy, temperature times logsumexp of logits over "
        "temperature",
        choices=("none", "max_probability", "energy"),
    )
    calibrate: bool = knob(
        "confidence",
        By("reject", {"none": False, "max_probability": True, "energy": True}),
        "divide the logits by the temperature of the least loss on the validation "
        "images (temperature scaling); probabilities change, predicted classes do not",
    )
    coverage: float = knob(
        "confidence",
        By("reject", {"max_probability": 0.95, "energy": 0.95}),
        "part of the validation images that is accepted; it sets the threshold",
        low=0.01,
        high=1.0,
    )
    unknown: str = knob(
        "confidence",
        "",
        "images of no class, to test with how well the scores tell them apart: a data "
        "set as in --dataset, its labels unread, or folder:DIR with images anywhere in "
        "it",
    )

    # Machine
    precision: str = knob(
        "machine",
        "auto",
        "arithmetic; auto is mixed where the device has hardware for it",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: str = knob(
        "machine",
        "auto",
        "compile the training step with XLA; auto: on a GPU only",
        choices=("auto", "on", "off"),
    )
    towers: int = knob(
        "machine",
        0,
        "parts that a batch is computed in beside each other, a core for each; batch "
        "normalization then goes by the images of its part; 0: as many as cores, where "
        "that is faster",
        low=0,
        high=64,
    )
    strategy: str = knob(
        "machine",
        "auto",
        "devices that train one model together; auto: multi_worker where TF_CONFIG "
        "names several workers, mirrored where there are several GPUs, else one",
        choices=("auto", "one", "mirrored", "multi_worker"),
    )
    deterministic: bool = knob(
        "machine",
        False,
        "the same bits from every run on one kind of machine, also on a GPU; a little "
        "slower",
    )
    checkpoint_every: float = knob(
        "machine",
        30.0,
        "time between two checkpoints: seconds, or 90s, 5m, 1h",
        low=0.0,
        high=7 * 86400.0,
        is_time=True,
    )
    checkpoint_epochs: int = knob(
        "machine",
        0,
        "also write a checkpoint at the end of every so many epochs; 0: by time alone",
        low=0,
        high=100_000,
    )

    def __post_init__(self) -> None:
        for name, declared in KNOBS.items():
            value = resolve(name, declared, getattr(self, name), self)
            object.__setattr__(self, name, value)
        _check_combinations(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Build a Config from names and values; an unknown name is refused."""
        for name in values:
            if name not in KNOBS:
                raise UsageError(f"unknown knob {name!r}{did_you_mean(name, KNOBS)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return name -> value for every knob."""
        return dataclasses.asdict(self)

    @property
    def fits_confidence(self) -> bool:
        """Whether a temperature or a threshold is fitted."""
        return bool(self.calibrate) or self.reject != "none"

    @property
    def needs_validation(self) -> list[str]:
        """The flags that a run can follow only with validation images."""
        asked = {
            "early_stopping": self.early_stopping,
            "keep=best": self.keep == "best",
            "calibrate": self.calibrate,
            f"reject={self.reject}": self.reject != "none",
        }
        return [f"--{name}" for name, is_set in asked.items() if is_set]


KNOBS: dict[str, Knob] = knobs_of(Config)


def overlay(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others over them.

    Where these change a knob that another one's default depends on, the other one's
    old value goes: a new optimizer has its own learning rate, not the old one's.
    """
    kept = dict(base)
    for name, declared in KNOBS.items():
        if isinstance(declared.default, By) and declared.default.knob in given:
            other = declared.default.knob
            if given[other] != base.get(other, KNOBS[other].default):
                kept.pop(name, None)
    return kept | dict(given)


def _check_combinations(config: Config) -> None:
    """Refuse what each knob allows but no run could do."""
    if len(config.image_size) not in (0, 2):
        raise UsageError(
            f"--image_size: got {show(config.image_size)}, expected HEIGHT,WIDTH"
        )
    if config.normalize_input == "mnist":
        if config.image_size not in ((), (28, 28)):
            raise UsageError(
                f"--image_size: got {show(config.image_size)}, expected 28,28 or none "
                "with --normalize_input=mnist, which gives images that size"
            )
        if config.color_mode == "rgb":
            raise UsageError(
                "--color_mode: got rgb, expected auto or grayscale with "
                "--normalize_input=mnist, which tells ink from paper by brightness"
            )
    if config.unknown and config.unknown == config.other:
        raise UsageError(
            f"--unknown: got {config.unknown}, which --other trains on; name images "
            "that the model has not seen"
        )
    if config.freeze and not config.init_from:
        raise UsageError(
            f"--freeze: got {config.freeze}, but without --init_from nobody has "
            "trained those layers"
        )
    if config.batch_norm == 2 and config.model != "tutorial":
        raise UsageError(
            f"--batch_norm: got 2, expected 0 or 1 for --model={config.model}"
        )
    wanted = {"tutorial": (2,), "lenet": (3,), "shallow": (1, 2)}.get(config.model)
    if wanted and config.filters is not None and len(config.filters) not in wanted:
        raise UsageError(
            f"--filters: got {show(config.filters) or 'none'}, expected "
            f"{' or '.join(map(str, wanted))} numbers for --model={config.model}"
        )
    if config.model in ("convnet", "bottleneck", "airbench") and not config.filters:
        raise UsageError(f"--filters: --model={config.model} needs at least one number")
    if config.model == "bottleneck":
        for name in ("strides", "pool_sizes"):
            if len(getattr(config, name)) != len(config.filters or ()):
                raise UsageError(
                    f"--{name}: got {show(getattr(config, name))}, expected as many "
                    f"numbers as --filters={show(config.filters)}"
                )
    if config.validation_fraction == 0 and config.needs_validation:
        raise UsageError(
            f"--validation_fraction=0 leaves nothing for "
            f"{' and '.join(config.needs_validation)} to go by; give it a part of the "
            "training images"
        )
    if config.warmup_epochs and config.warmup_epochs >= config.epochs:
        raise UsageError(
            f"--warmup_epochs: got {show(config.warmup_epochs)}, expected less "
            f"than --epochs={config.epochs}"
        )
    if config.towers > 1 and config.jit_compile == "on":
        raise UsageError(
            f"--towers: got {config.towers}, expected 0 or 1 with --jit_compile=on, "
            "which compiles batches as a whole"
        )
    if config.spatial_dropout and not config.conv_dropout:
        raise UsageError("--spatial_dropout changes nothing without --conv_dropout")
    if config.extra_conv == 0 and not config.extra_conv_pool:
        raise UsageError("--noextra_conv_pool changes nothing without --extra_conv")
    momentum = KNOBS["batch_norm_momentum"].default.defaults.get(config.model)
    if config.batch_norm == 0 and config.batch_norm_momentum != momentum:
        raise UsageError("--batch_norm_momentum changes nothing with --batch_norm=0")
