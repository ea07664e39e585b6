"""The allow-list of captures: names of the model, refused where they cannot be right."""

import warnings

import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions
from calidrift_agent._capture import list_captures, read_capture
from calidrift_agent._vocabulary import DropReason, RequestColumn
from calidrift_agent._watch._allowed import AllowedInputs
from calidrift_agent.errors import ConfigurationError

UNSUITABLE = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.UNSUITABLE_INPUT)
VALUE = torch.ones(2, 4)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, image, batch=None, *, mask=None):
        if batch is not None:
            image = image + batch["shift"]
        return self.inner(image if mask is None else image * mask)


class Open(nn.Module):
    """Says nothing about its inputs."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, *args, **kwargs):
        return self.inner(args[0] if args else kwargs["image"])


def names(tmp_path):
    found = {name for path in list_captures(tmp_path) for name in read_capture(path).inputs}
    return sorted(found)


def serve(watch_all, tmp_path, allowed, model=None, **given):
    model = (model or Masked()).eval()
    one = watch_all(model, state_dir=tmp_path, capture=CaptureOptions(inputs=allowed))
    args = given.pop("args", (VALUE,))
    with torch.no_grad():
        model(*args, **given)
        model(*args, **given)
    return one, one.flush().requests


@pytest.mark.parametrize("allowed", ["image", "arg0"])
@pytest.mark.parametrize("way", ["position", "keyword"])
def test_an_input_is_kept_whatever_it_came_by(watch_all, tmp_path, allowed, way):
    secret = {"mask": torch.ones(1, 4)}
    given = {"args": (VALUE,)} if way == "position" else {"args": (), "image": VALUE}
    one, requests = serve(watch_all, tmp_path, (allowed,), **given, **secret)
    assert names(tmp_path) == ["arg0" if way == "position" else "image"]
    assert requests[UNSUITABLE] == 0
    assert not any("captures:" in note for note in one.report().notes)


@pytest.mark.parametrize(
    ("allowed", "kept"),
    [
        (("batch",), ["arg1.0", "arg1.1"]),
        (("arg1",), ["arg1.0", "arg1.1"]),
        (("batch.1",), ["arg1.1"]),
        (("arg1.0", "mask"), ["arg1.0", "mask"]),
    ],
)
def test_the_name_of_a_container_stands_for_what_is_in_it(watch_all, tmp_path, allowed, kept):
    batch = {"shift": torch.zeros(2, 4), "user": torch.zeros(2, 4)}
    serve(watch_all, tmp_path, allowed, args=(VALUE, batch), mask=torch.ones(2, 4))
    assert names(tmp_path) == kept


@pytest.mark.parametrize("wrong", ["nosuch", "arg2", "arg-1", "arg", "images", "image2", ""])
def test_a_name_that_the_signature_has_not_is_refused(watch_all, tmp_path, wrong):
    model = Masked()
    with pytest.raises(ConfigurationError, match=r"'image', 'batch', 'mask'; correct"):
        watch_all(model, state_dir=tmp_path, capture=CaptureOptions(inputs=("image", wrong)))
    assert "forward" not in model.__dict__
    assert not list(tmp_path.iterdir())


def test_the_inputs_of_other_kinds_of_models_are_known(watch_all, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.Linear(4, 4), VALUE)

    def function(image):
        return image

    for model in (scripted, torch.compile(Masked(), backend="eager"), function):
        with pytest.raises(ConfigurationError, match="'nosuch'"):
            AllowedInputs(model, ("nosuch",))
    assert AllowedInputs(scripted, ("input",)).choose((VALUE,), {}).keys() == {"arg0"}
    assert AllowedInputs(function, ("image",)).choose((VALUE,), {}).keys() == {"arg0"}
    AllowedInputs(torch.relu, ("anything",))  # written in C: it does not say


def test_a_name_that_nobody_can_refuse_is_noted_and_its_rows_are_counted(watch_all, tmp_path):
    one, requests = serve(watch_all, tmp_path, ("nosuch",), Open())
    assert names(tmp_path) == []
    assert requests[UNSUITABLE] == 4
    (note,) = [note for note in one.report().notes if "captures:" in note]
    assert "'nosuch'" in note
    assert "2 observed calls, which gave 'arg0'" in note


def test_names_that_come_are_not_noted(watch_all, tmp_path):
    one, requests = serve(watch_all, tmp_path, ("image", "arg7"), Open(), args=(), image=VALUE)
    assert names(tmp_path) == ["image"]
    assert requests[UNSUITABLE] == 0
    (note,) = [note for note in one.report().notes if "captures:" in note]
    assert "'arg7'" in note
    assert "'image' of" not in note


def test_before_the_first_call_nothing_is_noted(watch_all, tmp_path):
    one = watch_all(Open(), state_dir=tmp_path, capture=CaptureOptions(inputs=("nosuch",)))
    assert not any("captures:" in note for note in one.report().notes)


def test_many_names_are_shortened():
    def function(a, b, c, d, e, f, g, h, i, j):
        return a

    with pytest.raises(ConfigurationError, match="'h' and 2 more"):
        AllowedInputs(function, ("x",))
