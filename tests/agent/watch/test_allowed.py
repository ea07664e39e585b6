"""The allow-list of captures: names of the model, refused where they cannot be right."""

import functools
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions
from calidrift_agent._capture import list_captures, read_capture
from calidrift_agent._state import StateDirectory, SweepOptions, sweep
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


def of_tenant(forward):
    """Puts an argument in front, and says that it is what it wraps."""

    @functools.wraps(forward)
    def inner(self, secret, *args, **kwargs):
        return forward(self, *args, **kwargs)

    return inner


def passed_on(forward):
    @functools.wraps(forward)
    def inner(*args, **kwargs):
        return forward(*args, **kwargs)

    return inner


class Decorated(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    @of_tenant
    def forward(self, image):
        return self.inner(image)


class Passed(Masked):
    @passed_on
    @torch.no_grad()
    def forward(self, image, batch=None, *, mask=None):
        return super().forward(image, batch, mask=mask)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, scale, *images):
        return self.inner(sum(images)) * scale


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
    assert AllowedInputs(scripted, ("input",)).choose((VALUE,), {}, 1).keys() == {"arg0"}
    assert AllowedInputs(function, ("image",)).choose((VALUE,), {}, 1).keys() == {"arg0"}
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


def test_an_argument_that_a_decorator_puts_in_front_is_not_kept(watch_all, tmp_path):
    secret = torch.full((2, 4), 666.0)
    one, requests = serve(watch_all, tmp_path, ("image",), Decorated(), args=(secret, VALUE))
    assert names(tmp_path) == []
    assert requests[UNSUITABLE] == 4
    assert any("'image' of CaptureOptions" in note for note in one.report().notes)


def test_names_behind_a_decorator_that_puts_one_in_front_are_those_by_place(watch_all, tmp_path):
    serve(watch_all, tmp_path, ("arg1",), Decorated(), args=(VALUE + 1, VALUE))
    assert names(tmp_path) == ["arg1"]
    found = [read_capture(path).inputs["arg1"] for path in list_captures(tmp_path)]
    assert all((one == 1.0).all() for one in found)


@pytest.mark.parametrize("allowed", ["image", "arg0"])
def test_a_decorator_that_passes_everything_on_changes_no_name(watch_all, tmp_path, allowed):
    _, requests = serve(watch_all, tmp_path, (allowed,), Passed())
    assert names(tmp_path) == ["arg0"]
    assert requests[UNSUITABLE] == 0


def test_a_forward_replaced_on_an_instance_has_its_own_names(watch_all, tmp_path):
    model = Masked()
    original = model.forward

    @functools.wraps(original)
    def before(secret, image):
        return original(image)

    model.forward = before
    _, requests = serve(watch_all, tmp_path, ("image",), model, args=(VALUE + 1, VALUE))
    assert names(tmp_path) == ["arg1"]
    assert requests[UNSUITABLE] == 0
    partly = Masked()
    partly.forward = functools.update_wrapper(
        functools.partial(lambda module, *args, **kwargs: original(*args, **kwargs), partly),
        original,
    )
    allowed = AllowedInputs(partly, ("image",))
    assert allowed.choose((VALUE, VALUE + 1), {}, 1).keys() == {"arg0"}


def test_a_forward_replaced_after_watch_is_read_anew(watch_all, tmp_path):
    class Own(Masked):
        def forward(self, image):
            return self.inner(image)

    def later(self, user, image):
        return self.inner(image)

    model = Own()
    one, requests = serve(watch_all, tmp_path, ("image",), model)
    kept = len(list_captures(tmp_path))
    assert (kept > 0, requests[UNSUITABLE]) == (True, 0)
    Own.forward = later
    secret = torch.full((2, 4), 666.0)
    with torch.no_grad():
        model(secret, VALUE)
        one.flush()
        assert len(list_captures(tmp_path)) == kept, "it may have been made by the old names"
        assert one.snapshot()[1].requests[UNSUITABLE] == 2
        model(secret, VALUE)
    one.flush()
    assert names(tmp_path) == ["arg0", "arg1"]
    found = [read_capture(path).inputs for path in list_captures(tmp_path)]
    assert all((array == 1.0).all() for inputs in found for array in inputs.values())
    assert any("replaced after watch, and nothing was kept" in note for note in one.report().notes)


@pytest.mark.parametrize(
    ("allowed", "kept"),
    [
        ("images", ["arg1", "arg2"]),
        ("images.0", ["arg1"]),
        ("images.1", ["arg2"]),
        ("arg2", ["arg2"]),
    ],
)
def test_the_parameter_of_all_further_inputs_has_a_name(watch_all, tmp_path, allowed, kept):
    scale = torch.ones(2, 4)
    one, requests = serve(watch_all, tmp_path, (allowed,), Several(), args=(scale, VALUE, VALUE))
    assert names(tmp_path) == kept
    assert requests[UNSUITABLE] == 0
    assert not any("captures:" in note for note in one.report().notes)


@pytest.mark.parametrize("wrong", ["images.x", "images.", "image", "*images"])
def test_what_is_none_of_the_further_inputs_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"inputs are 'scale', '\*images'; correct"):
        AllowedInputs(Several(), (wrong,))


def test_the_home_folder_may_be_written_as_a_tilde(watch_all, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    one = watch_all(Masked(), state_dir=Path("~") / "state")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert list((tmp_path / "home" / "state").glob("*.state"))
    assert len(StateDirectory("~/state").read()) == 1
    one.close()
    assert sweep("~/state", SweepOptions(retention_seconds=0.0)).removed == 1
    monkeypatch.setenv("CALIDRIFT_STATE_DIR", "~/other")
    watch_all(Masked())
    assert (tmp_path / "home" / "other").is_dir()
