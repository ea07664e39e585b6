from __future__ import annotations

import json
import re

import pytest

from calidrift_agent._state import PointMeta, StateMeta, boot_id, new_process_id
from calidrift_agent.errors import StateFormatError


def test_round_trip(make_meta):
    meta = make_meta(model="модель/7")
    assert StateMeta.from_json(meta.to_json()) == meta


def test_unknown_bounds_stay_unknown(make_meta):
    text = make_meta().to_json().replace("-2.0", "null").replace("1.5", "null")
    assert StateMeta.from_json(text).points[0] == PointMeta(
        "layer0:input", None, None, 2.0, ("twin0:input",)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("points"),
        lambda fields: fields.update(instrument="tricorder"),
        lambda fields: fields.update(surprise=1),
        lambda fields: fields.update(points=[3]),
        lambda fields: fields.update(points=[{"alias": "x"}]),
        lambda fields: fields.update(points=[{"name": 3}]),
        lambda fields: fields.update(points=[{"name": "\ud800"}]),
        lambda fields: fields.update(points=[{"name": "a", "aliases": [3]}]),
        lambda fields: fields.update(points=[{"name": "a", "clip_lo": "0"}]),
        lambda fields: fields.update(points=[{"name": "a", "observed_bound": True}]),
        lambda fields: fields.update(process=7),
        lambda fields: fields.update(model=["net"]),
        lambda fields: fields.update(model="\ud800"),
        lambda fields: fields.update(started_ns=2**63),
        lambda fields: fields.update(window_seconds="10"),
    ],
)
def test_other_records_are_refused(make_meta, change):
    fields = json.loads(make_meta().to_json())
    change(fields)
    with pytest.raises(StateFormatError, match="cannot be read"):
        StateMeta.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "{", "7", "[" * 100_000])
def test_other_json_is_refused(text):
    with pytest.raises(StateFormatError, match="cannot be read"):
        StateMeta.from_json(text)


def test_process_identities_are_random():
    assert re.fullmatch(r"[0-9a-f]{32}", new_process_id())
    assert new_process_id() != new_process_id()


def test_boot_id_is_read_or_empty(tmp_path):
    path = tmp_path / "boot_id"
    assert boot_id(path) == ""
    path.write_text("12ab-34cd\n")
    assert boot_id(path) == "12ab34cd"
    assert re.fullmatch(r"[0-9a-f]{32}|", boot_id())
