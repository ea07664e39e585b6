"""calidrift.toml: precedence, paths, and a sentence for every mistake."""

import dataclasses
import json
from pathlib import Path

import pytest

from calidrift_analyzer.config import CONFIG_NAME, AnalyzerConfig, ModelContract, load_config
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import read_record, record_document

MODEL = """
[models.digits]
factory = "shop.models:build"
example_inputs = "shop.data:example"
calibration = "shop.data:calibration"
evaluate = "shop.score:evaluate"
"""


@pytest.fixture
def file(tmp_path):
    """Write a configuration file and give its path."""

    def write(text: str) -> Path:
        path = tmp_path / "etc" / CONFIG_NAME
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder: nothing is found by accident."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(path, variables=None, **flags):
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, flags=flags, variables=variables or {})
    return str(caught.value)


def test_without_anything_there_are_defaults(elsewhere):
    config = load_config(variables={})

    assert config == AnalyzerConfig(
        database=elsewhere / "calidrift.duckdb", state_dirs=(), models={}, source=None
    )


def test_a_model_needs_four_references_and_gets_the_documented_defaults(file):
    path = file(MODEL)

    assert load_config(path, variables={}).model("digits") == ModelContract(
        name="digits",
        root=path.parent,
        factory="shop.models:build",
        example_inputs="shop.data:example",
        calibration="shop.data:calibration",
        evaluate="shop.score:evaluate",
        registry=path.parent / "registry",
        weights=None,
        preprocessing=None,
        coverage_target=0.95,
        max_accuracy_drop=0.01,
        alpha=0.05,
        tolerance=0.01,
        average_run_length=100_000.0,
        select_budget=64,
        random_share=0.25,
        min_size_ratio=3.9,
        seed=0,
    )


def test_the_defaults_of_the_file_are_those_of_the_contract(file):
    """They are written twice: as pydantic's defaults and as the dataclass's."""
    loaded = load_config(file(MODEL), variables={}).model("digits")

    for field in dataclasses.fields(ModelContract):
        if field.default is not dataclasses.MISSING:
            assert getattr(loaded, field.name) == field.default, field.name


@pytest.mark.parametrize("more", ["", "weights = 'w.safetensors'\npreprocessing = 'v2'\n"])
def test_a_contract_travels_to_the_child_process(more, file):
    contract = load_config(file(MODEL + more), variables={}).model("digits")

    text = json.dumps(record_document(contract))

    assert read_record(ModelContract, json.loads(text), source="the request") == contract


# Precedence and paths


def test_flag_then_environment_then_file_then_default(file):
    path = file("[analyzer]\ndatabase = 'file.duckdb'\n" + MODEL + "alpha = 0.2\n")
    variable = {"CALIDRIFT_DATABASE": "/env.duckdb", "CALIDRIFT_MODELS__DIGITS__ALPHA": "0.3"}
    flags = {"analyzer.database": "/flag.duckdb", "models.digits.alpha": 0.4}

    by_flag = load_config(path, flags=flags, variables=variable)
    by_variable = load_config(path, variables=variable)
    by_file = load_config(path, variables={})
    by_default = load_config(file(MODEL), variables={})

    loaded = [by_flag, by_variable, by_file, by_default]
    assert [one.database.name for one in loaded] == [
        "flag.duckdb",
        "env.duckdb",
        "file.duckdb",
        "calidrift.duckdb",
    ]
    assert [one.model().alpha for one in loaded] == [0.4, 0.3, 0.2, 0.05]


def test_a_flag_that_was_not_given_decides_nothing(file):
    path = file(MODEL + "alpha = 0.2\n")

    assert load_config(path, flags={"models.digits.alpha": None}, variables={}).model().alpha == 0.2


def test_paths_start_at_the_file_or_at_the_current_folder(file, elsewhere):
    path = file(
        "[analyzer]\ndatabase = 'd.duckdb'\nstate_dirs = ['s', '/abs', '~/t']\n"
        + MODEL
        + "weights = '../w.safetensors'\n"
    )

    config = load_config(path, variables={})
    over = load_config(
        path,
        variables={"CALIDRIFT_DATABASE": "e.duckdb", "CALIDRIFT_STATE_DIRS": "x:/y"},
        flags={"models.digits.registry": "r"},
    )

    assert config.database == path.parent / "d.duckdb"
    assert config.state_dirs == (path.parent / "s", Path("/abs"), Path("~/t").expanduser())
    assert config.model().weights == path.parent / "../w.safetensors"
    assert over.database == elsewhere / "e.duckdb"
    assert over.state_dirs == (elsewhere / "x", Path("/y"))
    assert over.model().registry == elsewhere / "r"


def test_the_file_is_found_by_argument_variable_and_folder(file, elsewhere):
    path = file("[analyzer]\ndatabase = 'a'")
    (elsewhere / CONFIG_NAME).write_text("[analyzer]\ndatabase = 'b'")
    other = elsewhere / "other.toml"
    other.write_text("[analyzer]\ndatabase = 'c'")
    variables = {"CALIDRIFT_CONFIG": str(path)}

    assert load_config(other, variables=variables).source == other
    assert load_config(variables=variables).source == path
    assert load_config(variables={}).source == elsewhere / CONFIG_NAME


def test_the_agents_folder_is_the_default_state_folder(file):
    variables = {"CALIDRIFT_STATE_DIR": "/run/calidrift"}
    named = file("[analyzer]\nstate_dirs = ['s']")

    assert load_config(file(""), variables=variables).state_dirs == (Path("/run/calidrift"),)
    assert load_config(file("[analyzer]\nstate_dirs=['s']"), variables=variables).state_dirs == (
        named.parent / "s",
    )


def test_the_process_environment_counts(file, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_DATABASE", "/from/here")

    assert load_config(file("")).database == Path("/from/here")


# Variables


def test_a_model_with_dashes_has_a_variable_and_an_undeclared_one_is_new(file):
    path = file(MODEL.replace("digits", "digits-v2"))
    variables = {"CALIDRIFT_MODELS__DIGITS_V2__SELECT_BUDGET": "7"}
    variables |= {
        f"CALIDRIFT_MODELS__OTHER__{key}": "a.b:c"
        for key in ("FACTORY", "EXAMPLE_INPUTS", "CALIBRATION", "EVALUATE")
    }

    config = load_config(path, variables=variables)

    assert set(config.models) == {"digits-v2", "other"}
    assert config.model("digits-v2").select_budget == 7
    assert config.model("other").factory == "a.b:c"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"CALIDRIFT_MODELS__DIGITS__ALPHA": "two"},
            "the variable CALIDRIFT_MODELS__DIGITS__ALPHA is 'two'; allowed is a number above 0 "
            "and below 1: correct or unset it",
        ),
        (
            {"CALIDRIFT_MODELS__DIGITS__ALPA": "0.1"},
            "the variable CALIDRIFT_MODELS__DIGITS__ALPA names no key; did you mean "
            "CALIDRIFT_MODELS__DIGITS__ALPHA?",
        ),
        (
            {"CALIDRIFT_MODELS__DIGITS__ZZZZ": "0.1"},
            "a variable of a model has the form CALIDRIFT_MODELS__NAME__KEY, with KEY one of: "
            "FACTORY",
        ),
        (
            {"CALIDRIFT_MODELS__DIGITS__ALPHA": "2"},
            "the variable CALIDRIFT_MODELS__DIGITS__ALPHA is '2'; allowed is a number above 0",
        ),
        (
            {"CALIDRIFT_MODELS__DIGITS__SELECT_BUDGET": "1.5"},
            "is '1.5'; allowed is a whole number from 1",
        ),
        (
            {"CALIDRIFT_MODELS__NEW__ALPHA": "0.1"},
            "[models.new] has no key 'factory'; add it: a code reference",
        ),
    ],
)
def test_a_bad_variable_is_named(variables, told, file):
    assert told in refused(file(MODEL), variables)


def test_variables_of_kubernetes_and_of_the_agent_are_left_alone(file, caplog):
    variables = {
        "CALIDRIFT_PORT": "tcp://10.0.0.1:9912",
        "CALIDRIFT_SERVICE_HOST": "10.0.0.1",
        "CALIDRIFT_DISABLED": "1",
    }

    load_config(file(""), variables=variables)

    assert caplog.text == ""


def test_a_misspelt_variable_is_logged(file, caplog):
    load_config(file(""), variables={"CALIDRIFT_DATABSE": "x"})

    assert "CALIDRIFT_DATABSE is not read; did you mean CALIDRIFT_DATABASE?" in caplog.text


# Mistakes in the file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[analyzer]\ndatabse = 'x'", "unknown key 'databse' in [analyzer]; did you mean 'databa"),
        ("[analyzer]\nqqq = 'x'", "unknown key 'qqq' in [analyzer]; allowed are: database, state"),
        ("[analyser]\n", "unknown table [analyser]; did you mean 'analyzer'?"),
        ("[zzz]\n", "unknown table [zzz]; allowed are: analyzer, service, grafana, models"),
        ("database = 'x'", "unknown key 'database' at the top; it belongs below [analyzer]"),
        ("alpha = 0.1", "unknown key 'alpha' at the top; it belongs below [models.NAME]"),
        (
            MODEL + "covrage_target = 0.9",
            "unknown key 'covrage_target' in [models.digits]; did you ",
        ),
        (
            MODEL + "coverage_target = 95",
            "models.digits.coverage_target is 95; allowed is a number ",
        ),
        (MODEL + "max_accuracy_drop = -0.1", "is -0.1; allowed is a number from 0 to 1"),
        (MODEL + "alpha = '0.05'", "models.digits.alpha is '0.05'; allowed is a number"),
        (MODEL + "seed = true", "models.digits.seed is True; allowed is a whole number from 0"),
        (MODEL + "select_budget = 0", "select_budget is 0; allowed is a whole number from 1"),
        (MODEL + "random_share = 2.0", "random_share is 2.0; allowed is a number from 0 to 1"),
        (MODEL + "min_size_ratio = inf", "min_size_ratio is inf; allowed is a number above 0"),
        (MODEL + "weights = ''", "models.digits.weights is ''; allowed is a path"),
        ("[analyzer]\nstate_dirs = 's'", "analyzer.state_dirs is 's'; allowed is a list of paths"),
        ("[analyzer]\nstate_dirs = ['s', 1]", "state_dirs.1 is 1; allowed is a list of paths"),
        ("models = 3", "models is 3; allowed is a table"),
        ("analyzer = 'x'", "analyzer is 'x'; allowed is a table"),
        ("[models]\ndigits = 1", "models.digits is 1; allowed is a table"),
        (MODEL.replace("digits", "'a b'"), "'a b' is no name for a model; allowed are up to 64"),
        (MODEL.replace("factory", "#"), "[models.digits] has no key 'factory'; add it: a code ref"),
        (
            MODEL.replace(":build", ".build"),
            "factory is 'shop.models.build'; allowed is a code ref",
        ),
        (MODEL.replace(":build", ":b; import os"), "allowed is a code reference of the form"),
        ("[analyzer\n", "is not valid TOML"),
        ("[analyzer]\n\nx =\n", "line 3"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_remedy(text, told, file):
    path = file(text)

    message = refused(path)

    assert told in message
    assert message.startswith(str(path))
    assert "pydantic" not in message.lower()


def test_every_mistake_is_told_at_once(file):
    message = refused(file(MODEL + "alpha = 2\nseed = -1\n"))

    assert "alpha is 2" in message
    assert "seed is -1" in message


def test_a_long_value_is_cut(file):
    message = refused(file(MODEL + f"alpha = '{'x' * 500}'"))

    assert len(message) < 300


def test_a_bad_flag_is_called_a_flag(file):
    assert "command line: models.digits.alpha is 7.0" in refused(
        file(MODEL), **{"models.digits.alpha": 7.0}
    )


def test_a_missing_file_is_told_with_who_named_it(elsewhere):
    assert "there is no configuration file" in refused(elsewhere / "gone.toml")
    assert refused(elsewhere / "gone.toml").endswith("or correct --config")
    assert refused(None, {"CALIDRIFT_CONFIG": "gone.toml"}).endswith("or correct CALIDRIFT_CONFIG")


def test_a_file_that_cannot_be_read(file, elsewhere):
    latin = file("")
    latin.write_bytes("# caf\u00e9".encode("latin-1"))

    assert "is not UTF-8 text" in refused(latin)
    assert "cannot be read" in refused(elsewhere)


# Choosing a model


def test_the_only_model_needs_no_name(file):
    assert load_config(file(MODEL), variables={}).model().name == "digits"


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("", None, "no model is declared in"),
        (MODEL + MODEL.replace("digits", "faces"), None, "name one of: digits, faces"),
        (MODEL, "digts", "no model 'digts' is declared in"),
        (MODEL, "digts", "did you mean 'digits'?"),
        (MODEL, "zzz", "declared: digits"),
    ],
)
def test_a_choice_that_is_not_clear_is_refused(text, name, told, file):
    config = load_config(file(text), variables={})

    with pytest.raises(ConfigurationError) as caught:
        config.model(name)

    assert told in str(caught.value)


def test_without_a_file_the_sentence_says_where_to_declare():
    with pytest.raises(ConfigurationError, match=r"no model is declared in calidrift\.toml; add"):
        load_config(variables={}).model()


def test_a_folder_in_place_of_the_file_is_no_silent_default(tmp_path, monkeypatch):
    (tmp_path / "calidrift.toml").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"calidrift\.toml cannot be read: Is a directory"):
        load_config(variables={})
