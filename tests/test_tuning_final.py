"""After the search: runs planned and compared, importances, pictures, the page."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from kcnn.config import KNOBS, Config
from kcnn.experiments import EXPERIMENTS, settings_of
from kcnn.knobs import parse
from tuning import plots, report
from tuning.final import ALL, TRAIN, flags_of, plan, train_command
from tuning.importance import importances, position
from tuning.journal import Journal, Record
from tuning.objective import OBJECTIVES
from tuning.session import Folder, Settings
from tuning.space import Choices, Span, build_space, parse_domain

ACCURACY = OBJECTIVES["accuracy"]


def space_of(**texts):
    return build_space({n: parse_domain(KNOBS[n], text) for n, text in texts.items()})


def config_of(command):
    """Return the Config of a kcnn train command."""
    settings = {}
    for word in shlex.split(command)[2:]:
        name, _, text = word.removeprefix("--").partition("=")
        settings[name] = parse(KNOBS[name], text)
    return Config(**settings)


def test_a_command_gives_back_its_config():
    ids = [n for n, e in EXPERIMENTS.items() if not e.stands_for]
    configs = [Config(**settings_of(name)) for name in ids]
    configs += [
        Config(),
        Config(model="convnet", dense_units=(64, 32), filters=(4,), batch_norm=0),
        Config(optimizer="nesterov", momentum=0.5, schedule="step", step_epochs=2),
        Config(extra_conv=32, extra_conv_pool=False, dataset="npz:a b.npz"),
        Config(model="shallow", dense_units=()),
    ]
    for config in configs:
        assert config_of(train_command(config)) == config
    assert flags_of(Config()) == {}
    assert train_command(Config(dropout=0.3)) == "kcnn train --dropout=0.3"


def test_the_plan_pairs_recipes_over_seeds_and_sets_of_images():
    recipes = {"untuned": Config(), "tuned": Config(dropout=0.1)}
    planned = plan(recipes, range(1, 4))
    assert len(planned) == len({one.name for one in planned}) == 2 * 2 * 3
    for one in planned:
        rebuilt = Config(**one.flags)
        assert rebuilt == one.config
        part = 0.1 if one.swept["images"] == TRAIN else 0.0
        assert one.config.validation_fraction == part
        assert one.config.random_seed == one.swept["random_seed"]
        assert re.fullmatch(r"[\w.,=+-]+", one.name)
    best = plan({"tuned": Config(keep="best")}, [1])
    assert [one.swept["images"] for one in best] == [TRAIN]
    assert ALL != TRAIN


def test_positions():
    assert position(Choices((3, 5, 7)), 5) == 0.5
    assert position(Choices((3,)), 3) == 0
    assert position(Span(1e-4, 1.0, log=True), 0.01) == pytest.approx(0.5)
    assert position(Span(0.0, 0.5), 0.5) == 1
    assert position(Span(0.0, 0.5), None) == -0.1


def made_up(n=40, hyperband=False):
    """Return trials whose score depends on learning_rate, a little on dropout."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(n):
        rate = float(f"{10 ** rng.uniform(-4, -1):.3g}")
        values = {
            "dense_units": [(64,), (128,), (256, 128)][i % 3],
            "dropout": round(float(rng.uniform(0, 0.5)), 3),
            "learning_rate": rate,
        }
        score = 0.97 - 0.05 * abs(np.log10(rate) + 2.5) - 0.01 * values["dropout"]
        status = "failed" if i % 13 == 5 else "pruned" if i % 7 == 6 else "done"
        epochs = (1, 3, 9)[i % 3] if hyperband else 2
        rows = [{"val_accuracy": score, "val_loss": 1 - score}] * 2
        records.append(
            Record(
                f"{i:02d}",
                values,
                epochs,
                status=status,
                score=None if status == "failed" else float(score),
                deviation=0.001 if i % 4 == 0 else None,
                scores=[float(score)],
                histories=[rows],
                seconds=10.0,
                elapsed=10.0 * i + 10,
                attempts=1,
                reason="diverged: the loss is no number" if status == "failed" else "",
                bracket=2 - i % 3 if hyperband else None,
                rung=i % 3 if hyperband else None,
            )
        )
    return records


SPACE = {
    "model": "mlp",
    "dense_units": "64;128;256,128",
    "dropout": "0..0.5",
    "learning_rate": "log:1e-4..1e-1",
    "batch_size": "32",
    "activation": "relu",
}


def test_importance_finds_the_knob_that_matters():
    found = importances(made_up(), space_of(**SPACE))
    assert next(iter(found.by_knob)) == "learning_rate"
    assert found.by_knob["learning_rate"][0] > 5 * found.by_knob["dense_units"][0]
    assert 0.5 < found.r2 <= 1
    assert importances(made_up(8), space_of(**SPACE)) is None


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("hyperband", [False, True])
def test_pictures_and_page(tmp_path, n, hyperband):
    space = space_of(**SPACE)
    folder = Folder(tmp_path)
    folder.begin(space, Settings(), "kcnn tune --model=mlp", False)
    records = made_up(n, hyperband)
    result = {"command": "kcnn train --model=mlp", "trial": 1}
    page = report.write_report(folder, records, space, ACCURACY, result)
    names = {path.name for path in folder.plots.glob("*.png")}
    assert "best_so_far.png" in names
    assert ("rungs.png" in names) == hyperband
    assert ("parallel_coordinates.png" in names) == (
        n >= 5 and (n > 5 or not hyperband)
    )
    for path in folder.plots.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 300
            assert len(image.convert("RGB").getcolors(1 << 20)) > 5
    text = page.read_text()
    assert "kcnn train --model=mlp" in text
    assert text.count("data:image/png") == len(names)
    for record in records:
        assert f'<th scope="row">{record.number}</th>' in text
    assert ("diverged: the loss" in text) == (n > 5)


def test_losses_are_pictured_too(tmp_path):
    loss = OBJECTIVES["loss"]
    records = made_up()
    for record in records:
        record.score = None if record.score is None else 1 - record.score
    plots.best_so_far(records, loss, tmp_path / "a.png")
    plots.parallel_coordinates(records, space_of(**SPACE), loss, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_the_scale_leaves_out_the_worst_tenth():
    records = [
        Record(str(i), {}, 1, status="done", score=score)
        for i, score in enumerate([0.1, 0.95, 0.9, *[0.93] * 7])
    ]
    assert plots.scale(records, ACCURACY) == (90, 95)
    assert plots.scale(records[:2], ACCURACY) == (10, 95)  # a tenth of two is none
    assert plots.scale(records[:1], OBJECTIVES["loss"]) == (0.1, 0.1)


def test_tables_hold_every_trial(tmp_path):
    records = made_up(6)
    journal = Journal(tmp_path)
    for record in records:
        journal.write(record)
    assert Journal(tmp_path).all() == records  # tuples come back as tuples
    journal.write_tables(records)
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("trial,status,score,deviation,dense_units,dropout")
    assert '"256,128"' in lines[3]
    assert len(json.loads((tmp_path / "trials.json").read_text())) == 6
