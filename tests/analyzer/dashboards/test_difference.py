"""What counts as a difference, and what Grafana may do by itself."""

import pytest

from calidrift_analyzer.dashboards._difference import differences


@pytest.mark.parametrize(
    ("own", "found", "told"),
    [
        ({"a": 1}, {"a": 1.0, "id": 7}, []),
        ({"a": {}, "b": [], "c": None}, {}, []),
        ({"a": 0}, {}, ["a: not in Grafana"]),
        ({"a": False}, {}, ["a: not in Grafana"]),
        ({"schemaVersion": 41}, {"schemaVersion": 42}, []),
        (
            {"schemaVersion": 41},
            {"schemaVersion": 39},
            ["schemaVersion: wanted 41, found 39"],
        ),
        ({"a": {"b": 1}}, {"a": [1]}, ["a: wanted {'b': 1}, found [1]"]),
        ([1, 2], [1], [": 1 fewer in Grafana"]),
        (
            {"panels": [{"title": "x", "h": 1}, {"refId": "B", "h": 1}, {"h": 1}]},
            {"panels": [{"title": "x", "h": 2}, {"refId": "B", "h": 2}, {"h": 2}]},
            [f"panels[{name}].h: wanted 1, found 2" for name in ("x", "B", "2")],
        ),
        ("a" * 200, "b", [f"all of it: wanted '{'a' * 96}..., found 'b'"]),
    ],
    ids=[
        *("defaults", "empty", "zero", "false", "newer", "older"),
        *("kind", "fewer", "names", "long"),
    ],
)
def test_differences(own, found, told):
    assert list(differences(own, found)) == told
