"""Options that could not be obeyed, or that would change nothing, are refused before anything is loaded."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynrec_store.exceptions import ConfigurationError
from workers.bench import app

NO_FILES = (f"--interactions={__file__}", f"--items={__file__}")  # refused as soon as they are read


def invoke(*options: str) -> None:
    CliRunner().invoke(app, [*options], catch_exceptions=False)


def refused(*options: str) -> str:
    """The error, of the reading of the files if the options are good."""
    with pytest.raises(ConfigurationError) as error:
        invoke("quality", *options)
    return str(error.value)


def test_good_options_get_as_far_as_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNREC_BENCH_DATA_DIR", "/elsewhere")  # for other runs: concerns no files
    both = ("--users=5", "--live-events=5", "--retrain-every=2", "--repeat", "--seed=4294967295", "--json")
    said = refused(*NO_FILES, *both, f"--plot={tmp_path / 'p.SVG'}", "--text=a", "--categorical=b", "--numeric=c")
    assert said == f"{__file__}: is neither .csv nor .parquet"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--models=EASE", "--retrain-every=7"), "--retrain-every is of the model dynrec: add that to --models"),
        (("--models=dynrec content", "--retrain-every=7"), "--retrain-every is of the model dynrec: add that"),
        (("--retrain-every=inf",), "--retrain-every inf would never train on: name a number of days, such as 7"),
        (("--text=a,b", "--categorical=b"), "column b is named by --text and by --categorical: leave it out of one"),
        (("--numeric=b", "--text=b"), "column b is named by --text and by --numeric: leave it out of one"),
    ],
)
def test_options_that_would_change_nothing(options: tuple[str, ...], says: str) -> None:
    assert refused(*NO_FILES, *options).startswith(says)


@pytest.mark.parametrize("role", ["text", "categorical", "numeric"])
def test_what_a_known_data_set_has_no_use_for(role: str) -> None:
    said = refused("--dataset=movielens", f"--{role}=genres")
    assert said == f"--dataset movielens says itself what its columns are: leave out --{role}"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("q.xyz", ".xyz is no format that is drawn; let the name end in one of .jpeg, .jpg, .pdf, .png"),
        ("q", "a name without an ending is no format that is drawn"),
        ("missing/q.png", "nothing can be written to the folder {0}/missing (No such file or directory); make it"),
        ("file/q.png", "nothing can be written to the folder {0}/file (Not a directory); make it"),
    ],
)
def test_plots_that_cannot_be_drawn(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(*NO_FILES, f"--plot={tmp_path / name}").startswith(
        f"--plot {tmp_path / name}: {says.format(tmp_path)}"
    )


def test_the_folder_for_figures_of_other_benchmarks(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--out .* keeps nothing of quality: use quality --json > FILE"):
        invoke("--out", str(tmp_path), "quality", *NO_FILES)
