import pytest

from calidrift_analyzer.config import RetentionConfig, load_config
from calidrift_analyzer.errors import ConfigurationError


@pytest.fixture
def load(tmp_path):
    def load(text, **variables):
        path = tmp_path / "calidrift.toml"
        path.write_text(f"[analyzer]\n{text}", encoding="utf-8")
        return load_config(path, variables=variables).retention

    return load


def test_defaults_and_every_key(load):
    assert load("") == RetentionConfig()
    text = "keep_windows_hours = 12\nkeep_minutes_days = 2.5\nkeep_hours_days = 30\n"
    found = load(text + "keep_days_years = 1\nmax_database_bytes = 1_000_000")
    assert [span.total_seconds() / 3600 for span in found.spans] == [12, 60, 720, 8760]
    assert found.max_database_bytes == 1_000_000


def test_variables_win_over_the_file(load):
    found = load("keep_minutes_days = 20", CALIDRIFT_KEEP_MINUTES_DAYS="40.5",
                 CALIDRIFT_MAX_DATABASE_BYTES="7")  # fmt: skip
    assert (found.keep_minutes_days, found.max_database_bytes) == (40.5, 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keep_windows_hours = 0", "a number of hours above 0"),
        ("keep_windows_hours = 'long'", "a number of hours above 0"),
        ("keep_minutes_days = -1", "a number of days above 0"),
        ("keep_minutes_days = inf", "a number of days above 0"),
        ("keep_hours_days = nan", "a number of days above 0"),
        ("keep_days_years = 101", "at most 100"),
        ("max_database_bytes = 0", "a whole number of bytes above 0"),
        ("max_database_bytes = 1.5", "a whole number of bytes above 0"),
        ("keep_window_hours = 1", "did you mean 'keep_windows_hours'?"),
        ("keep_windows_hours = 800", "keep_minutes_days in [analyzer] is 30 (30 days), shorter "),
        ("keep_minutes_days = 400", "keep_hours_days in [analyzer] is 365 (365 days), shorter "),
        ("keep_hours_days = 4000", "keep_days_years in [analyzer] is 10 (3650 days), shorter "),
        ("keep_windows_hours = 12\nkeep_minutes_days = 0.25", "0.25 (6 hours), shorter than keep"),
    ],
    ids=range(13),
)
def test_what_cannot_be_is_refused_by_name(load, text, said):
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    assert said in str(caught.value)


def test_a_bad_variable_is_named(load):
    with pytest.raises(ConfigurationError, match="CALIDRIFT_KEEP_HOURS_DAYS is 'long'"):
        load("", CALIDRIFT_KEEP_HOURS_DAYS="long")
