"""Files that earlier versions of Calidrift left behind; `files/` holds real ones."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._state import StateReader, StateWriter
from calidrift_agent._state._carry import read_carried, write_carried
from calidrift_agent._vocabulary import (
    RATIO_COLUMNS,
    CountColumn,
    RequestColumn,
    ValueColumn,
)
from calidrift_agent.errors import StateFormatError

FILES = Path(__file__).parent / "files"
NEW_COUNTS = [CountColumn.UNITS_MEASURED, CountColumn.UNITS_NOT_FINITE]


def unpacked(name: str, folder: Path) -> Path:
    path = folder / name
    with gzip.open(FILES / f"{name}.gz") as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return path


def test_a_state_file_without_the_columns_of_units_is_read(tmp_path):
    with StateReader.open(unpacked("format2.state", tmp_path)) as reader:
        found = reader.windows()
        total = reader.total()
    assert [window.number for window in found.windows] == [0, 1, 2, 3]
    assert not found.damaged and found.missing is None
    for number, window in enumerate(found.windows[:3]):
        assert window.requests[RequestColumn.SEEN] == 5 + number
        assert window.counts[0, CountColumn.UNITS] == 3 + number
        assert window.counts[0, RATIO_COLUMNS].tolist() == [0] * 10 + [3 + number]
        assert window.values[:, ValueColumn.HIGHEST].tolist() == [2.0 + number] * 2
        assert window.values[:, ValueColumn.PADDED_HIGHEST].tolist() == [7.5 + number] * 2
        assert window.cells[0, 100] == 7 + number
        assert window.segments[0].units == 2
    assert total.counts[0, CountColumn.UNITS] == 12


def test_what_an_older_file_lacks_is_absent_and_not_zero(tmp_path):
    with StateReader.open(unpacked("format2.state", tmp_path)) as reader:
        windows = reader.windows().windows
    assert not windows[0].counts[:, NEW_COUNTS].any()
    assert (windows[0].values[:, ValueColumn.UNIT_HIGHEST] == -np.inf).all()
    summed = windows[0].plus(windows[1])
    assert (summed.values[:, ValueColumn.UNIT_HIGHEST] == -np.inf).all()


def test_sums_of_dead_processes_live_on(tmp_path):
    path = unpacked("format1.carried", tmp_path)
    carried = read_carried(path)
    assert carried is not None and carried.generation == 3
    assert carried.total.counts[0, CountColumn.UNITS] == 12
    assert (carried.total.values[:, ValueColumn.UNIT_HIGHEST] == -np.inf).all()
    write_carried(path, replace(carried, generation=4))
    again = read_carried(path)
    assert again is not None and again.generation == 4
    assert again.total.equals(carried.total)


def test_a_window_cannot_pass_for_one_of_an_older_version(tmp_path, make_meta):
    # The header says how wide windows are; a file that lies about it is damaged, not old.
    path = unpacked("format2.state", tmp_path)
    writer = StateWriter.create(tmp_path, make_meta())
    writer.close()
    old, new = path.read_bytes(), writer.path.read_bytes()
    writer.path.write_bytes(new[:8] + old[8:40] + new[40:])
    with pytest.raises(StateFormatError, match="header is damaged"):
        StateReader.open(writer.path)
