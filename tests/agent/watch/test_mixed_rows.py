"""Models of which one row, run alone, is not what it is in its batch: nothing is invented."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._observe._replay import MIXED
from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


class TimeFirst(nn.Module):
    """Attention over the first dimension of its input, (time, batch, 8)."""

    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = x.transpose(0, 1)
        weights = (0.05 * y @ y.transpose(1, 2)).softmax(-1)
        return self.out(weights @ self.value(y)).transpose(0, 1)


class Biased(nn.Module):
    """(batch, 8, 8), and a bias (8, 8) that all rows share."""

    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, bias):
        return self.out(bias.softmax(-1) @ self.value(x))


class Apart(nn.Module):
    """Rows that do not look at each other, and a mask that is the same for all."""

    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, mask=None):
        y = self.value(x)
        return self.out(y if mask is None else y * mask[:, :, None])


def made(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def draws(seed, count, *shape):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def exceeded(watch, name):
    meta, total = watch.snapshot()
    row = [point.name for point in meta.points].index(name)
    return total.counts[row, CountColumn.EXCEEDANCES], total.counts[row, CountColumn.UNITS]


def test_time_first_is_replayed_whole_and_exceeds_nothing(watch_all):
    net = made(TimeFirst)
    with torch.no_grad():
        profile = calibrate(net, draws(1, 50, 32, 4, 8))
        served = torch.compile(net, backend="eager")
        watch = watch_all(served, profile=profile)
        for x in draws(2, 20, 32, 4, 8):
            served(x)
    found, units = exceeded(watch, "out:input")
    assert units == 20
    assert found <= 2  # of one time step alone: all of them
    assert watch.report().notes.count(MIXED) == 1


def test_equal_time_steps_do_not_hide_it(watch_all):
    net = made(TimeFirst)
    with torch.no_grad():
        profile = calibrate(net, draws(1, 50, 32, 4, 8))
        served = torch.compile(net, backend="eager")
        watch = watch_all(served, profile=profile)
        served(torch.ones(32, 4, 8))  # a warm-up
        for x in draws(2, 20, 32, 4, 8):
            served(x)
    assert exceeded(watch, "out:input")[0] <= 2
    assert MIXED in watch.report().notes


@pytest.mark.parametrize("first", [7, 8])
def test_a_shared_bias_with_as_many_entries_as_rows_is_not_cut(watch_all, first):
    net = made(Biased)
    bias = torch.eye(8) * 1e4
    bias[:, 0] = 2e4  # all look at the first position
    bias[0] = -bias[0]  # which looks at all others
    served = torch.compile(net, backend="eager")
    watch = watch_all(served)
    highest = 0.0
    with torch.no_grad():
        for x in draws(3, 12, 8, 8, 8):
            served(x[:first], bias)
            served(x, bias)
            attended = bias.softmax(-1) @ net.value(x)
            highest = max(highest, float(attended.max()))
        served(x[:7], bias)
    assert watch.report().observed_calls == 25
    assert MIXED in watch.report().notes
    meta, total = watch.snapshot()
    row = [point.name for point in meta.points].index("out:input")
    assert total.values[row, ValueColumn.HIGHEST] == pytest.approx(highest)  # of whole batches
    assert watch._active.engine.books.tally.shadow._replay.batch == 1
    assert not watch._active.engine.books.tally.shadow.wants_whole((x[:7], bias), {}, 7)


def test_rows_that_stand_alone_are_replayed_alone(watch_all):
    net = made(Apart)
    served = torch.compile(net, backend="eager")
    watch = watch_all(served)
    copied = []
    shadow = watch._active.engine.books.tally.shadow
    plain = shadow.run
    intake = watch._active.engine.intake
    watch._active.engine.books.tally.shadow = shadow_spy(shadow, plain, copied)
    with torch.no_grad():
        for x in draws(4, 5, 6, 3, 8):
            served(x, torch.ones(6, 3))
            watch.snapshot()
    assert len(intake) == 0
    assert copied == [6, 1, 1, 1, 1]
    assert MIXED not in watch.report().notes


class Padded(nn.Module):
    """Tokens and places, of which all rows share the same, and a mask of padding."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(20, 8), nn.Embedding(6, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        x = self.tokens(input_ids) + self.places(torch.arange(6)[None])
        mask = attention_mask[:, :, None].to(x.dtype)
        return self.out((x * mask).sum(1) / mask.sum(1))


def test_padding_does_not_make_rows_look_mixed(watch_all):
    net = made(Padded)
    served = torch.compile(net, backend="eager")
    watch = watch_all(served)
    mask = torch.ones(4, 6, dtype=torch.long)
    for row in range(4):
        mask[row, 2 + row :] = 0
    ids = torch.arange(24).reshape(4, 6) % 20
    with torch.no_grad():
        for _ in range(4):
            served(input_ids=ids, attention_mask=mask)
            watch.snapshot()
    inputs = {"input_ids": ids, "attention_mask": mask}
    assert not watch._active.engine.books.tally.shadow.wants_whole((), inputs, 4)
    assert MIXED not in watch.report().notes


def shadow_spy(shadow, plain, copied):
    def run(call):
        copied.append(call.copied)
        plain(call)

    return SimpleNamespace(run=run, remarks=shadow.remarks, copy_bytes=0)


@pytest.mark.parametrize("size", [(6, 4, 8), (8, 8, 8)])
def test_no_harm_is_invented_by_a_reference_that_is_the_model_itself(watch_all, size):
    net = made(TimeFirst)
    watch = watch_all(net, reference=copy.deepcopy(net))
    with torch.no_grad():
        for x in draws(5, 6, *size):
            net(x)
    _, total = watch.snapshot()
    requests = total.requests
    assert requests[RequestColumn.COMPARED] == requests[RequestColumn.AGREED] == 6
    assert requests[RequestColumn.NOISE_PPB] < 1_000  # of 6 x 10^9
    assert any("reference runs on whole batches" in note for note in watch.report().notes)


def test_a_reference_of_rows_that_stand_alone_runs_on_one(watch_all):
    net = made(Apart)
    reference = copy.deepcopy(net)
    watch = watch_all(lambda x: net(x), reference=reference)
    seen = []
    twin = watch._active.engine.books.tally.shadow._reference._twin
    twin.module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with torch.no_grad():
        for x in draws(6, 4, 6, 3, 8):
            watch(x)
            watch.snapshot()
    _, total = watch.snapshot()
    assert total.requests[RequestColumn.COMPARED] == 4
    assert seen == [6, 1, 1, 1, 1, 1]
    assert not any("whole batches" in note for note in watch.report().notes)


def test_layers_of_a_reference_that_mixes_rows_are_not_observed(watch_all):
    net = made(TimeFirst)
    profile = calibrate(net, draws(1, 20, 32, 4, 8))
    watch = watch_all(lambda x: net(x), reference=copy.deepcopy(net), profile=profile)
    with torch.no_grad():
        for x in draws(7, 5, 32, 4, 8):
            watch(x)
    assert exceeded(watch, "out:input") == (0, 0)
    _, total = watch.snapshot()
    assert total.requests[RequestColumn.NOISE_PPB] < 1_000
    assert any("layers of the reference" in note for note in watch.report().notes)
