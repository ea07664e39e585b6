import functools

import pytest
from torch import nn

from calidrift_agent._taps import (
    class_forward,
    copied_forward,
    hides_its_instance,
    plain_forward,
)


class Plain(nn.Module):
    def forward(self, x):
        return (self, x)


class Heir(Plain):
    pass


class Static(nn.Module):
    @staticmethod
    def forward(x):
        return x


class OfClass(nn.Module):
    @classmethod
    def forward(cls, x):
        return (cls, x)


class Partial(nn.Module):
    forward = functools.partial(max, 5)


class Builtin(nn.Module):
    forward = abs


class Hidden(nn.Module):
    @property
    def forward(self):
        return lambda x: (self, x)


class Cached(nn.Module):
    @functools.lru_cache(None)  # noqa: B019
    def forward(self, x):
        return (self, x)


KINDS = (Plain, Heir, Static, OfClass, Partial, Builtin, Hidden, Cached)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_is_what_the_instance_itself_would_give(kind):
    module = kind()
    assert class_forward(module)(3) == module.forward(3)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_an_ordinary_function_is_plain(kind):
    expected = Plain.forward if kind in (Plain, Heir) else None
    assert plain_forward(kind) is expected


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_a_property_hides_its_instance(kind):
    assert hides_its_instance(kind) == (kind is Hidden)


def test_the_forward_of_an_instance_is_passed_over():
    module = Plain()
    module.forward = abs
    assert class_forward(module)(-3) == (module, -3)


def test_a_copy_gets_nothing_for_a_property_which_it_may_not_be_ready_for():
    assert copied_forward(Hidden.__new__(Hidden)) is None
    assert copied_forward(Static()) is Static.forward


def test_a_class_without_one_says_so():
    with pytest.raises(AttributeError, match="'int' has no attribute 'forward'"):
        class_forward(3)
