"""The named runs: published ones, with the figures they reported, and our own recipes.

`kcnn train --experiment=NAME` starts from `settings_of(NAME)`, and flags given
beside it win. Settings are differences from Config's defaults, and read as data.
Nothing here imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn.errors import UsageError
from kcnn.knobs import did_you_mean


@dataclasses.dataclass(frozen=True)
class Reported:
    """The figures of a published run; None where it gives none.

    `accuracy` is a fraction in [0, 1] of the test images, `loss` a cross-entropy in
    nats, `train_seconds` seconds on the author's machine. A loss that was published
    as NaN is None with `loss_was_nan`, so that all of it can be written as JSON.
    `digits` after the point is how far the accuracy was printed.
    """

    accuracy: float | None = None
    loss: float | None = None
    train_seconds: float | None = None
    loss_was_nan: bool = False
    digits: int = 4


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why a published figure is not what its recipe gives here.

    `figure` is accuracy or loss. `claim` names a check in kcnn.reasons, which tests
    what `text` says against the measured figures, with `argument`.
    """

    figure: str
    claim: str
    text: str
    argument: Any = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One named run; `reported` is empty where nobody published it.

    `settings` are knobs that differ from Config's defaults, as published. `variant`
    are knobs of a second recipe, which takes a fault out of them or adds what was
    perhaps left unsaid; `variant_about` tells which. `stands_for` is set for a row that
    is no single training run, and says what to run instead; `sweep` then holds the
    values, by knob, that it went through with the other settings fixed. `reasons` say
    why published figures are not measured again.
    """

    group: str
    about: str
    settings: Mapping[str, Any]
    reported: Reported
    variant: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variant_about: str = ""
    stands_for: str | None = None
    sweep: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()

    @property
    def can_be_run(self) -> bool:
        """Whether it is one training run or several."""
        return self.stands_for is None or bool(self.sweep)


# Every published run trained on all training images, at one learning rate, and
# kept the weights of its last epoch (which is Config's default).
PUBLISHED: dict[str, Any] = {"validation_fraction": 0.0, "schedule": "constant"}
MNIST = PUBLISHED | {"dataset": "mnist"}

MENDED_RATE: dict[str, Any] = {
    "variant": {"learning_rate": 1.0},
    "variant_about": "mended: the rate of Adadelta's paper",
}
MENDED_HEAD: dict[str, Any] = {
    "variant": {"head": "logits"},
    "variant_about": "mended: a head of plain logits",
}


def with_momentum(rate: float) -> dict[str, Any]:
    """Return a variant at a row's own rate: another optimizer would bring its own."""
    return {
        "variant": {"optimizer": "momentum", "learning_rate": rate},
        "variant_about": "with momentum 0.9, which was perhaps left unsaid",
    }


PYTORCH_WEIGHTS: dict[str, Any] = {
    "variant": {"initializer": "pytorch"},
    "variant_about": "with the weights that PyTorch's layers begin with",
}
KERAS_STATISTICS: dict[str, Any] = {
    "variant": {"batch_norm": 2, "batch_norm_momentum": 0.99},
    "variant_about": "batch norm twice, with the momentum that Keras gives it: in one "
    "epoch its statistics stay behind",
}
WHOLE_CHANNELS: dict[str, Any] = {
    "variant": {"optimizer": "sgd", "learning_rate": 0.01, "spatial_dropout": True},
    "variant_about": "plain SGD; whole channels dropped, as by PyTorch's Dropout2d",
}

CARRIED_OVER = (
    Reason(
        "accuracy",
        "weights_carried_over",
        "training went on from the weights of the run on 60,000 images",
        "size-60000",
    ),
)
NOT_A_NUMBER = tuple(
    Reason(
        figure,
        "not_a_number",
        "border pixels have a deviation of 0; divided by it every output was NaN, "
        "which counts as class 0",
    )
    for figure in ("accuracy", "loss")
)
OWN_IMAGES = tuple(
    Reason(
        figure,
        "other_images",
        "tested on 60 images of the author's own, here on the data set's test images",
        60,
    )
    for figure in ("accuracy", "loss")
)

NOT_BY_THE_RATE = tuple(
    Reason(
        figure,
        "not_by_the_knob",
        "the rate costs less than the fall from head-dropout-0.02 that was published, "
        "if anything: what made this one run worse is not its rate, nor told",
        "head-dropout-0.02",
    )
    for figure in ("accuracy", "loss")
)


def explained_by_variant(text: str, *figures: str) -> tuple[Reason, ...]:
    """Return reasons that hold where the variant's figures are the published ones."""
    return tuple(Reason(figure, "variant_agrees", text) for figure in figures)


ADAM = explained_by_variant("it is what Adam gives", "accuracy")
MOMENTUM = explained_by_variant("it is what momentum 0.9 gives", "accuracy", "loss")
OTHER_WEIGHTS = explained_by_variant(
    "it is what PyTorch's initial weights give in one epoch", "accuracy", "loss"
)
LAGGING_STATISTICS = explained_by_variant(
    "it is what batch norm with Keras's own momentum gives in one epoch",
    "accuracy",
    "loss",
)
CHANNELS_DROPPED = explained_by_variant(
    "it is what plain SGD with whole channels dropped gives", "accuracy"
)
BEST_EPOCH = explained_by_variant(
    "it is what the best epoch gives, of standardized images and PyTorch's weights",
    "accuracy",
)
NOT_BY_THE_WIDTH = (
    Reason(
        "accuracy",
        "not_by_the_knob",
        "more filters cost less than the fall from width-16-32 that was published, if "
        "anything: what made this one run worse is not its width, nor told",
        "width-16-32",
    ),
)

# A second run of a recipe that already has a name: only the noise may differ.
AGAIN = {"random_seed": 1}

# Adadelta at 0.001 is what Keras takes when no rate is given; its paper has 1.0.
KERAS = MNIST | {"model": "tutorial", "optimizer": "adadelta", "learning_rate": 0.001}
# The optimizer is not stated; plain SGD fits the printed learning curves.
CONVNET = MNIST | {"model": "convnet", "optimizer": "sgd"}
CONVNET_6 = CONVNET | {"batch_size": 100, "epochs": 6}  # 3,600 steps; p1 took 5,628
WIDTH = CONVNET_6 | {"learning_rate": 0.02}  # the best of the three rates tried
# dropout_softmax is the fault as published; --head=logits is the sound net.
HEAD_DROPOUT = WIDTH | {
    "filters": (32, 64),
    "dense_units": (256,),
    "head": "dropout_softmax",
}
BOTTLENECK = MNIST | {
    "model": "bottleneck",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "batch_size": 64,
}
# The course's exercise: from 2 features at the head to 64.
BOTTLENECK_WIDE = BOTTLENECK | {"filters": (32, 64), "kernel_size": 5, "padding": 1}
TOPOLOGY = MNIST | {
    "optimizer": "momentum",
    "learning_rate": 0.01,
    "batch_size": 32,
    "epochs": 1,
}
SHALLOW = TOPOLOGY | {"model": "shallow"}
SIZE = MNIST | {
    "model": "convnet",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "batch_size": 50,  # two steps an epoch at the smallest size, 100 images
    "epochs": 5,
}
SIZE_ALL = SIZE | {"batch_size": 100}  # as published: only this size had 100
TUTORIAL = MNIST | {
    "model": "tutorial",
    "optimizer": "adadelta",
    "learning_rate": 1.0,  # the paper's
    "batch_size": 128,
    "epochs": 1,  # every variant was judged after one pass
}
EXTRA = TUTORIAL | {"extra_conv": 64}
EXTRA_BN2 = EXTRA | {"batch_norm": 2}
LENET = PUBLISHED | {
    "dataset": "cifar10",
    "model": "lenet",
    "optimizer": "momentum",
    "learning_rate": 0.01,
    "batch_size": 128,
    "epochs": 50,
}

# Tenths of a thousandth, then thousandths: 0.001 ends one range and begins the next.
SWEPT_RATES = tuple(n / 10_000 for n in range(1, 10)) + tuple(
    n / 1000 for n in range(1, 11)
)

# What the recipes of our own have in common, and those of digits.
RECIPE: dict[str, Any] = {"batch_size": 256, "validation_fraction": 0.0}
DIGITS = RECIPE | {
    "dataset": "mnist",
    "kernel_size": 3,
    "optimizer": "adam",
    "beta_1": 0.8,
}

# A second's work: the digits lie in the middle 20x20 pixels.
QUICK = DIGITS | {
    "model": "shallow",
    "filters": (16, 40),
    "dense_units": (128,),
    "crop": 22,
    "learning_rate": 0.02,
    "beta_2": 0.9,
    "schedule": "cosine",
    "warmup_epochs": 0.25,
    "label_smoothing": 0.1,
    "epochs": 1,
}

# Four epochs of twice two convolutions: shifts by a pixel, all that so few can use.
SHORT = DIGITS | {
    "model": "convnet",
    "filters": (16, 32),
    "convs_per_block": 2,
    "dense_units": (64,),
    "crop": 22,
    "translate": 0.04,
    "learning_rate": 0.02,
    "beta_2": 0.95,
    "label_smoothing": 0.05,
    "epochs": 4,
}

# More filters and five times the epochs, which turned and zoomed images fill.
LONG = DIGITS | {
    "model": "convnet",
    "filters": (32, 96),
    "convs_per_block": 2,
    "translate": 0.08,
    "rotate": 10.0,
    "zoom": 0.1,
    "crop": 24,
    "test_views": "shift",
    "learning_rate": 0.01,
    "beta_2": 0.95,
    "ema_momentum": 0.99,
    "label_smoothing": 0.05,
    "epochs": 19,
}

# Few weights: convolutions alone, down to 2x2 values of each filter.
TINY = DIGITS | {
    "model": "convnet",
    "filters": (8, 16, 16),
    "crop": 22,
    "translate": 0.05,
    "learning_rate": 0.02,
    "beta_2": 0.95,
    "epochs": 12,
}

# The CIFAR-10 speed record's network and habits, with smaller batches and more epochs.
# The quick one has narrow early blocks, which leave time for epochs, and ReLU.
PHOTOS = RECIPE | {
    "dataset": "cifar10",
    "model": "airbench",
    "standardize": "channel",
    "whiten": 2,
    "initializer": "identity",
    "flip": "alternate",
    "translate": 0.0625,
    "test_views": "mirror",
    "optimizer": "muon",
    "learning_rate": 0.1,
    "weight_decay": 0.02,
    "schedule": "triangle",
    "label_smoothing": 0.2,
}
PHOTOS_MINUTES = PHOTOS | {"filters": (32, 128, 256), "epochs": 8}
PHOTOS_HALF_HOUR = PHOTOS | {
    "filters": (64, 256, 256),
    "activation": "gelu",
    "learning_rate": 0.05,
    "epochs": 19,
    "test_views": "mirror_shift",
}


EXPERIMENTS: dict[str, Experiment] = {
    "k1": Experiment(
        "lab8-keras",
        "Adadelta at 0.001 is a thousandth of its rate: 12 epochs are far too few",
        KERAS | {"batch_size": 128, "epochs": 12},
        Reported(0.8240, 0.7848, 1155),
        **MENDED_RATE,
    ),
    "k-tutorial": Experiment(
        "lab8-keras",
        "k1 run again, here with another random_seed: how far two runs lie apart",
        KERAS | {"batch_size": 128, "epochs": 12} | AGAIN,
        Reported(0.8388, 0.7024, 1957),
        **MENDED_RATE,
    ),
    "k2": Experiment(
        "lab8-keras",
        "half of k1's epochs at the same rate: even further from converged",
        KERAS | {"batch_size": 100, "epochs": 6},
        Reported(0.7857, 1.4897, 872),
        **MENDED_RATE,
    ),
    "p1": Experiment(
        "lab8-convnet",
        "a small net with batch norm and plain SGD, to set against k1",
        CONVNET | {"learning_rate": 0.002, "batch_size": 128, "epochs": 12},
        Reported(0.9904, None, 106),
        variant={"optimizer": "adam", "learning_rate": 0.002},
        variant_about="with Adam; the publication does not name its optimizer",
        reasons=ADAM,
    ),
    "p2": Experiment(
        "lab8-convnet",
        "p1 with half the epochs, to set against k2",
        CONVNET_6 | {"learning_rate": 0.002},
        Reported(0.9861, 0.038, 306),
        **with_momentum(0.002),
        reasons=MOMENTUM,
    ),
    "lr-0.002": Experiment(
        "lab8-convnet-lr",
        "lowest of three learning rates: p2 run again, here with another random_seed",
        CONVNET_6 | {"learning_rate": 0.002} | AGAIN,
        Reported(0.9855, None, 339),
        **with_momentum(0.002),
        reasons=MOMENTUM[:1],
    ),
    "lr-0.02": Experiment(
        "lab8-convnet-lr",
        "middle of three learning rates, and the best",
        CONVNET_6 | {"learning_rate": 0.02},
        Reported(0.9910, None, 342),
        **with_momentum(0.02),
    ),
    "lr-0.2": Experiment(
        "lab8-convnet-lr",
        "highest of three learning rates: too high for this net",
        CONVNET_6 | {"learning_rate": 0.2},
        Reported(0.9644, None, 286),
        **with_momentum(0.2),
        reasons=MOMENTUM[:1],
    ),
    "width-16-32": Experiment(
        "lab8-convnet-width",
        "narrowest of four nets: lr-0.02 run again, here with another random_seed",
        WIDTH | AGAIN,
        Reported(0.9910, None, 342),
        **with_momentum(0.02),
    ),
    "width-32-64": Experiment(
        "lab8-convnet-width",
        "twice the filters; one run a width does not tell them apart",
        WIDTH | {"filters": (32, 64)},
        Reported(0.9904, None, 534),
        **with_momentum(0.02),
    ),
    "width-48-96": Experiment(
        "lab8-convnet-width",
        "three times the filters: published as worse, on one run",
        WIDTH | {"filters": (48, 96)},
        Reported(0.9851, None, 672),
        reasons=NOT_BY_THE_WIDTH,
    ),
    "width-64-128": Experiment(
        "lab8-convnet-width",
        "four times the filters: published as the worst, on one run",
        WIDTH | {"filters": (64, 128)},
        Reported(0.9798, None, 816),
        reasons=NOT_BY_THE_WIDTH,
    ),
    "head-dropout-0.02": Experiment(
        "lab8-convnet-dropout",
        "drops logits and takes softmax twice, hence the loss; head=logits is sound",
        HEAD_DROPOUT | {"dropout": 0.02},
        Reported(0.9887, 1.4721, 53),
        **MENDED_HEAD,
    ),
    "head-dropout-0.05": Experiment(
        "lab8-convnet-dropout",
        "the same faulty head with more dropout; head=logits is sound",
        HEAD_DROPOUT | {"dropout": 0.05},
        Reported(0.9868, 1.4762, 53),
        **MENDED_HEAD,
    ),
    "head-dropout-0.15": Experiment(
        "lab8-convnet-dropout",
        "the same faulty head: a class's logit lost in 15% of steps; use head=logits",
        HEAD_DROPOUT | {"dropout": 0.15},
        Reported(0.9822, 1.4824, 54),
        **MENDED_HEAD,
        reasons=NOT_BY_THE_RATE,
    ),
    "head-dropout-0.30": Experiment(
        "lab8-convnet-dropout",
        "the same faulty head at its worst; head=logits is sound",
        HEAD_DROPOUT | {"dropout": 0.30},
        Reported(0.9805, 1.4849, 53),
        **MENDED_HEAD,
        reasons=NOT_BY_THE_RATE,
    ),
    "own-digits": Experiment(
        "lab8-own-images",
        "11th class never trained; of 60 own images 10 are no digit: at most 83.33%",
        WIDTH | {"extra_class": "not a digit"},
        Reported(0.8000, 1.9472, 1937),
        reasons=OWN_IMAGES,
    ),
    "bottleneck": Experiment(
        "course-cnn",
        "only two features reach the head: starved on purpose",
        BOTTLENECK | {"epochs": 10},
        Reported(0.38, None, 68, digits=2),
    ),
    "bottleneck-50": Experiment(
        "course-cnn",
        "five times the epochs do not make up for two features",
        BOTTLENECK | {"epochs": 50},
        Reported(0.43, None, 638, digits=2),
    ),
    "bottleneck-lr-sweep": Experiment(
        "course-cnn",
        "19 learning rates for the starved net; best near 0.003 to 0.005",
        {name: v for name, v in BOTTLENECK.items() if name != "learning_rate"}
        | {"epochs": 5},
        Reported(0.53, None, None, digits=2),
        stands_for="a sweep: run kcnn train --experiment=bottleneck --epochs=5 "
        "--learning_rate=RATE for RATE from 0.0001 to 0.001 by 0.0001 and from 0.001 "
        "to 0.01 by 0.001",
        sweep={"learning_rate": SWEPT_RATES},
        reasons=(
            Reason(
                "accuracy",
                "within_seeds_of",
                "a single random seed; at one rate, another seed moves the same net by "
                "as much",
                "bottleneck",
            ),
        ),
    ),
    "bottleneck-wide": Experiment(
        "course-cnn",
        "the same strides with 64 features at the head: the width was what it lacked",
        BOTTLENECK_WIDE | {"epochs": 10},
        Reported(0.98, None, 72, digits=2),
    ),
    "bottleneck-wide-2": Experiment(
        "course-cnn",
        "the wide one is nearly there after two epochs",
        BOTTLENECK_WIDE | {"epochs": 2},
        Reported(0.9737, None, 31),
    ),
    "mlp": Experiment(
        "hw4-topologies",
        "no convolution: the baseline of its group; no figure was published",
        TOPOLOGY | {"model": "mlp"},
        Reported(),
    ),
    "cnn-1conv": Experiment(
        "hw4-topologies",
        "one convolution, two wide dense layers, one epoch",
        SHALLOW,
        Reported(0.9705, 0.0886, None),
        **PYTORCH_WEIGHTS,
        reasons=OTHER_WEIGHTS,
    ),
    "cnn-2conv": Experiment(
        "hw4-topologies",
        "a second convolution in place of a dense layer: no clear gain in one epoch",
        SHALLOW | {"filters": (32, 64), "dense_units": (256,)},
        Reported(0.9718, 0.0903, None),
        **PYTORCH_WEIGHTS,
    ),
    "cnn-1conv-lr-0.001": Experiment(
        "hw4-topologies",
        "cnn-1conv at a tenth of its rate: one epoch is too short for it",
        SHALLOW | {"learning_rate": 0.001},
        Reported(0.9157, 0.3073, None),
        **PYTORCH_WEIGHTS,
        reasons=OTHER_WEIGHTS,
    ),
    "cnn-1conv-batch-64": Experiment(
        "hw4-topologies",
        "cnn-1conv with half the steps, its rate left as it was",
        SHALLOW | {"batch_size": 64},
        Reported(0.9655, 0.1100, None),
        **PYTORCH_WEIGHTS,
        reasons=OTHER_WEIGHTS,
    ),
    "size-100": Experiment(
        "lab8-train-size",
        "figure is invalid: it went on from the weights of the 60,000-image run",
        SIZE | {"train_size": 100},
        Reported(0.9696, None, None),
        reasons=CARRIED_OVER,
    ),
    "size-250": Experiment(
        "lab8-train-size",
        "figure is invalid: weights carried over, see size-100",
        SIZE | {"train_size": 250},
        Reported(0.9734, None, None),
        reasons=CARRIED_OVER,
    ),
    "size-500": Experiment(
        "lab8-train-size",
        "figure is invalid: weights carried over, see size-100",
        SIZE | {"train_size": 500},
        Reported(0.9637, None, None),
        reasons=CARRIED_OVER,
    ),
    "size-1000": Experiment(
        "lab8-train-size",
        "figure is invalid, see size-100; also printed as 0.9681 elsewhere",
        SIZE | {"train_size": 1000},
        Reported(0.9508, None, None),
        reasons=CARRIED_OVER,
    ),
    "size-60000": Experiment(
        "lab8-train-size",
        "all training images: the right-hand end of the curve",
        SIZE_ALL,
        Reported(0.9916, None, None),
    ),
    "own-set-best": Experiment(
        "lab8-train-size",
        "size-60000's model on 60 own images (size-100's model: 0.6667)",
        SIZE_ALL,
        Reported(0.7333, None, None),
        stands_for="an evaluation: run kcnn train --experiment=size-60000, then "
        "kcnn evaluate RUN --dataset=folder:DIR on its run and a folder of own images",
    ),
    "tutorial": Experiment(
        "lab8-variants",
        "Adadelta at the paper's 1.0: one epoch beats k1's twelve; base of the group",
        TUTORIAL,
        Reported(0.9796, 0.0592, 171),
    ),
    "tutorial-bn": Experiment(
        "lab8-variants",
        "batch norm after the first convolution",
        TUTORIAL | {"batch_norm": 1},
        Reported(0.9822, 0.0534, 227),
    ),
    "tutorial-bn2": Experiment(
        "lab8-variants",
        "batch norm after the first convolution and before the head",
        TUTORIAL | {"batch_norm": 2},
        Reported(0.9837, 0.0569, 228),
    ),
    "tutorial-standardized": Experiment(
        "lab8-variants",
        "was NaN: border pixels never vary, and it divided by their deviation, 0",
        TUTORIAL | {"standardize": "pixel"},
        Reported(0.0980, None, 167, loss_was_nan=True),
        reasons=NOT_A_NUMBER,
    ),
    "tutorial-standardized-bn": Experiment(
        "lab8-variants",
        "was NaN for the same division by 0: batch norm cannot mend it",
        TUTORIAL | {"standardize": "pixel", "batch_norm": 1},
        Reported(0.0980, None, 227, loss_was_nan=True),
        reasons=NOT_A_NUMBER,
    ),
    "tutorial-extra-conv": Experiment(
        "lab8-variants",
        "a third convolution and pooling",
        EXTRA,
        Reported(0.9839, 0.0513, 185),
    ),
    "tutorial-extra-conv-bn2": Experiment(
        "lab8-variants",
        "third convolution and two batch norms: published as the best of its group",
        EXTRA_BN2,
        Reported(0.9855, 0.0458, 254),
    ),
    "kernel-5": Experiment(
        "lab8-variants",
        "larger kernels on top of that: slower, and no better",
        EXTRA_BN2 | {"kernel_size": 5},
        Reported(0.9794, 0.0673, 338),
    ),
    "dense-1000": Experiment(
        "lab8-variants",
        "eight times the dense units: no gain",
        EXTRA_BN2 | {"dense_units": (1000,)},
        Reported(0.9837, 0.0519, 281),
    ),
    "dense-64": Experiment(
        "lab8-variants",
        "half the dense units: little lost",
        EXTRA_BN2 | {"dense_units": (64,)},
        Reported(0.9819, 0.0699, 261),
    ),
    "dense-11": Experiment(
        "lab8-variants",
        "11 dense units under a dropout of 0.5: hardly wider than the 10 classes",
        EXTRA | {"extra_conv_pool": False, "batch_norm": 1, "dense_units": (11,)},
        Reported(0.8266, None, None),
        **KERAS_STATISTICS,
        reasons=LAGGING_STATISTICS[:1],
    ),
    "dense-5": Experiment(
        "lab8-variants",
        "five dense units, half of them dropped, have to tell ten classes apart",
        EXTRA_BN2 | {"dense_units": (5,)},
        Reported(0.8668, 1.0611, 256),
        **KERAS_STATISTICS,
        reasons=LAGGING_STATISTICS,
    ),
    "third-conv-128-dense-5": Experiment(
        "lab8-variants",
        "more filters ahead of dense-5's bottleneck: it stays one",
        EXTRA_BN2 | {"extra_conv": 128, "dense_units": (5,)},
        Reported(0.8767, 0.8206, 294),
        **KERAS_STATISTICS,
        reasons=LAGGING_STATISTICS,
    ),
    "lenet": Experiment(
        "lenet-cifar",
        "LeNet-5 on color photographs; accuracy by epoch lay in 0.42 to 0.64",
        LENET,
        Reported(0.63, 1.0760, 12585, digits=2),
        variant={
            "initializer": "pytorch",
            "standardize": "channel",
            "keep": "best",
            "validation_fraction": 0.1,
        },
        variant_about="PyTorch's weights, standardized channels, the best epoch kept",
        reasons=BEST_EPOCH,
    ),
    "lenet-dropout": Experiment(
        "lenet-cifar",
        "half of 16 feature maps' values dropped: it underfits, and loses",
        LENET | {"conv_dropout": 0.5},
        Reported(0.50, 1.4248, 12314, digits=2),
        **WHOLE_CHANNELS,
        reasons=CHANNELS_DROPPED,
    ),
    "lenet-dropout-bn": Experiment(
        "lenet-cifar",
        "batch norm after the first convolution makes up for little of that",
        LENET | {"conv_dropout": 0.5, "batch_norm": 1},
        Reported(0.53, 1.3977, 12907, digits=2),
        **WHOLE_CHANNELS,
        reasons=CHANNELS_DROPPED,
    ),
}

# Recipes of our own: chosen on validation images; README.md has what they reach.
RECIPES: dict[str, Experiment] = {
    "mnist-99": Experiment(
        "recipes",
        "99% of MNIST's test images after about a second of training",
        QUICK,
        Reported(),
    ),
    "mnist-99.5": Experiment(
        "recipes",
        "99.5% of MNIST's test images after some ten seconds of training",
        SHORT,
        Reported(),
    ),
    "mnist-99.7": Experiment(
        "recipes",
        "99.7% of MNIST's test images after some minutes of training",
        LONG,
        Reported(),
    ),
    "mnist-tiny": Experiment(
        "recipes",
        "99% of MNIST's test images with 4,338 parameters",
        TINY,
        Reported(),
    ),
    "cifar-90": Experiment(
        "recipes",
        "90% of CIFAR-10's test images after some minutes of training",
        PHOTOS_MINUTES,
        Reported(),
    ),
    "cifar-94": Experiment(
        "recipes",
        "94% of CIFAR-10's test images, by its speed record's network in half an hour",
        PHOTOS_HALF_HOUR,
        Reported(),
    ),
}

# All that --experiment takes.
NAMED: dict[str, Experiment] = EXPERIMENTS | RECIPES


def settings_of(name: str) -> dict[str, Any]:
    """Return an experiment's settings, as knob name -> value, to build a Config from.

    Raises UsageError for an unknown name, and for an experiment that is no single
    training run, saying what to run instead.
    """
    if name not in NAMED:
        near = did_you_mean(name, NAMED)
        raise UsageError(
            f"--experiment: got {name!r}, which is not an experiment"
            f"{near or '; expected one of ' + ', '.join(NAMED)}"
        )
    experiment = NAMED[name]
    if experiment.stands_for:
        raise UsageError(
            f"--experiment={name} is no single training run but {experiment.stands_for}"
        )
    return dict(experiment.settings)


def matching(
    patterns: Sequence[str], among: Mapping[str, Experiment] = NAMED
) -> list[str]:
    """Return the experiments whose name or group is like one of the patterns.

    Raises UsageError if there is none.
    """
    names = [
        name
        for name, experiment in among.items()
        if any(
            fnmatch.fnmatch(text, pattern)
            for text in (name, experiment.group)
            for pattern in patterns
        )
    ]
    if not names:
        raise UsageError(f"no experiment is named like {' '.join(patterns)}")
    return names
