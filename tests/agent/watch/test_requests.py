"""Decode loops: one decision and one unit per request, however many calls it takes."""

import copy
import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions, request_context
from calidrift_agent._capture import read_capture
from calidrift_agent._observe._steps import Request
from calidrift_agent._vocabulary import CountColumn, DropReason, RequestColumn, Stage, ValueColumn
from calidrift_agent._watch import WatchOptions
from calidrift_agent.errors import ConfigurationError

QUIET = {"budget": None, "drain_seconds": 3600, "window_seconds": 86_400, "seed": 0}
ROWS = 3


class Cache:
    """Grows in place, as the caches of Hugging Face do."""

    def __init__(self):
        self.keys = None

    def get_seq_length(self):
        return 0 if self.keys is None else self.keys.shape[1]

    def reset(self):
        self.keys = None


class Decoder(nn.Module):
    """Adds up what it has read; `kind` says how it hands on what was read before."""

    def __init__(self, kind="object"):
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(50, 4)
        self.fc = nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            # Token t is embedded as (t, 0, 0, 0), so a test chooses what the layer reads.
            self.embed.weight.zero_()
            self.embed.weight[:, 0] = torch.arange(50.0)

    def forward(self, input_ids, past_key_values=None, use_cache=True):
        x = self.fc(self.embed(input_ids))
        if self.kind == "object":
            cache = Cache() if past_key_values is None else past_key_values
            if use_cache:
                cache.keys = x if cache.keys is None else torch.cat([cache.keys, x], 1)
            return SimpleNamespace(logits=x, past_key_values=cache if use_cache else None)
        old = () if past_key_values is None else past_key_values
        x = torch.cat([old[0][0], x], 1) if len(old) else x
        cache = ((x, x.clone()),) if use_cache else None
        if self.kind == "tuple":
            return (x, cache)
        return {"logits": x, "past_key_values": cache}


def tokens(*rows):
    return torch.tensor(rows)


def generate(model, prompt, further, cache=None):
    """Feed the prompt, then one column of `further` after the other; no row is padded."""
    output = model(input_ids=prompt, past_key_values=cache)
    for column in further.T:
        output = model(input_ids=column[:, None], past_key_values=_cache_of(output))


def _cache_of(output):
    if isinstance(output, tuple):
        return output[1]
    return output["past_key_values"] if isinstance(output, dict) else output.past_key_values


def figures(watch):
    requests = watch.snapshot()[1].requests
    names = ("SEEN", "SAMPLED", "OBSERVED", "UNITS", "UNITS_COVERED", "STEPS")
    return {name: int(requests[RequestColumn[name]]) for name in names}


def column(watch, which, name="fc:input"):
    meta, total = watch.snapshot()
    point = [one.name for one in meta.points].index(name)
    table = total.counts if isinstance(which, CountColumn) else total.values
    return table[point, which]


def errors(watch):
    first = RequestColumn.ERROR_FIRST
    return int(watch.snapshot()[1].requests[first : first + len(Stage)].sum())


@pytest.fixture(params=["object", "tuple", "dict"])
def decoder(request):
    return Decoder(request.param)


@pytest.mark.parametrize("given", [None, "empty"])
def test_a_request_is_seen_once_and_its_steps_are_counted(decoder, watch_all, given):
    if given:
        given = Cache() if decoder.kind == "object" else ()
    watch = watch_all(decoder)
    generate(decoder, torch.ones(ROWS, 5, dtype=torch.long), torch.ones(ROWS, 9).long(), given)
    given = None
    gc.collect()
    assert figures(watch) == {
        "SEEN": 1,
        "SAMPLED": 1,
        "OBSERVED": 1,
        "UNITS": 0,  # nothing to compare with
        "UNITS_COVERED": 0,
        "STEPS": 9,
    }
    assert errors(watch) == 0
    # The prompt and steps 1, one of 2 to 3, one of 4 to 7 and, if drawn, one of 8 and 9 to 15.
    read = column(watch, CountColumn.ELEMENTS) // (ROWS * 4) - 5
    assert read in (3, 4)


def test_an_unobserved_request_has_no_observed_step(decoder, watch_all):
    watch = watch_all(decoder, sample_rate=0.0)
    for _ in range(3):
        generate(decoder, torch.ones(2, 5).long(), torch.ones(2, 9).long())
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"], found["OBSERVED"]) == (3, 27, 0)
    assert column(watch, CountColumn.ELEMENTS) == 0


def test_each_request_is_decided_once_whatever_its_length(watch_all):
    """Were steps decided for themselves, long answers would be observed more often."""
    decoder = Decoder()
    watch = watch_all(decoder, sample_rate=0.3)
    for _ in range(400):
        generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 5).long())
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"]) == (400, 2000)
    assert found["OBSERVED"] == found["SAMPLED"]
    assert abs(found["OBSERVED"] - 120) < 5 * np.sqrt(400 * 0.3 * 0.7)


@pytest.mark.parametrize(("step", "exceeds"), [(None, False), (0, True)])
def test_a_unit_is_the_prompt_and_its_observed_steps(decoder, watch_all, bounded, step, exceeds):
    watch = watch_all(decoder, profile=bounded(embed__output=None, fc__input=8.0))
    further = torch.full((ROWS, 6), 2)
    if step is not None:
        further[:, step] = 9  # above the bound, in all rows
    generate(decoder, torch.full((ROWS, 4), 8), further)
    gc.collect()
    found = figures(watch)
    assert (found["UNITS"], found["UNITS_COVERED"]) == (1, int(not exceeds))
    assert column(watch, CountColumn.EXCEEDANCES) == exceeds
    assert column(watch, ValueColumn.RATIO_SUM) == (9 / 8 if exceeds else 1.0)


def test_a_unit_is_one_row_of_all_its_calls(watch_all, bounded):
    """Two rows exceed at different calls: a unit has both only if it were not one row."""
    decoder = Decoder()
    watch = watch_all(decoder, profile=bounded(embed__output=None, fc__input=8.0))
    covered = 0
    for _ in range(40):
        generate(decoder, tokens([9, 1], [1, 1], [1, 1]), tokens([1, 1], [9, 1], [1, 1]))
    gc.collect()
    found = figures(watch)
    covered = found["UNITS_COVERED"]
    assert found["UNITS"] == 40
    assert abs(covered - 40 / 3) < 5 * np.sqrt(40 * 2 / 9)


def test_requests_that_take_turns_in_one_thread_are_kept_apart(decoder, watch_all):
    watch = watch_all(decoder)
    prompts = [torch.full((1, 3), token) for token in (1, 2)]
    outputs = [decoder(input_ids=prompt) for prompt in prompts]
    for _ in range(4):
        outputs = [
            decoder(input_ids=torch.ones(1, 1).long(), past_key_values=_cache_of(output))
            for output in outputs
        ]
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"], found["OBSERVED"]) == (2, 8, 2)


def test_a_request_may_go_on_in_other_threads(decoder, watch_all):
    watch = watch_all(decoder)
    held = [decoder(input_ids=torch.ones(1, 3).long())]

    def step():
        held[0] = decoder(input_ids=torch.ones(1, 1).long(), past_key_values=_cache_of(held[0]))

    for _ in range(3):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"]) == (1, 3)


def test_a_filled_cache_that_was_never_seen_begins_a_request(decoder, watch_all):
    """A service that computes a common beginning once, and copies it for each request."""
    with torch.no_grad():
        beginning = _cache_of(decoder(input_ids=torch.ones(1, 6).long()))
    watch = watch_all(decoder)
    for _ in range(3):
        cache = copy.deepcopy(beginning)
        with torch.no_grad():
            generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 4).long(), cache)
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"], found["OBSERVED"]) == (3, 12, 3)


def test_a_cache_that_was_emptied_begins_a_request(watch_all):
    decoder, cache = Decoder(), Cache()
    watch = watch_all(decoder)
    for _ in range(3):
        cache.reset()
        generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 4).long(), cache)
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"]) == (3, 12)


def test_another_key_begins_a_request(watch_all):
    decoder, cache = Decoder(), Cache()
    watch = watch_all(decoder)
    for turn in range(3):
        with request_context(key=f"turn {turn}"):
            generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 4).long(), cache)
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"]) == (3, 12)


def test_a_call_that_returns_no_cache_is_a_unit_at_once(watch_all, bounded):
    decoder = Decoder()
    watch = watch_all(decoder, profile=bounded(embed__output=None, fc__input=8.0))
    output = decoder(input_ids=torch.ones(1, 2).long(), use_cache=False)
    assert output.past_key_values is None
    assert figures(watch)["UNITS"] == 1


def test_a_running_request_is_counted_when_the_watch_is_flushed(watch_all, bounded):
    decoder = Decoder()
    watch = watch_all(decoder, profile=bounded(embed__output=None, fc__input=8.0))
    output = decoder(input_ids=torch.ones(1, 2).long())
    assert figures(watch)["UNITS"] == 0
    watch.flush()
    assert figures(watch)["UNITS"] == 1
    generate(decoder, torch.full((1, 1), 9), torch.ones(1, 3).long(), output.past_key_values)
    watch.flush()
    found = figures(watch)
    assert (found["UNITS"], found["SEEN"], found["STEPS"]) == (1, 1, 4)


def test_calls_of_one_key_are_one_unit(watch_all, bounded):
    decoder = Decoder()
    watch = watch_all(decoder, profile=bounded(embed__output=None, fc__input=8.0))
    for key in ("a", "a", "b", "a"):
        with request_context(key=key):
            generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 2).long())
    gc.collect()
    found = figures(watch)
    assert (found["UNITS"], found["OBSERVED"]) == (2, 4)


def test_rows_that_change_in_number_are_not_put_into_one_unit(watch_all, bounded):
    decoder = Decoder("dict")
    watch = watch_all(decoder, profile=bounded(embed__output=None, fc__input=8.0))
    output = decoder(input_ids=torch.ones(3, 2).long())
    cache = tuple(tuple(one[:1] for one in layer) for layer in _cache_of(output))
    decoder(input_ids=torch.ones(1, 1).long(), past_key_values=cache)
    watch.flush()
    assert figures(watch)["SEEN"] == 2  # a cache of other rows is another cache


@pytest.mark.parametrize("limit", [0, 1, 3, 16])
def test_the_number_of_observed_steps_is_bounded(watch_all, limit):
    decoder = Decoder()
    watch = watch_all(decoder, options=WatchOptions(**QUIET, steps_per_request=limit))
    generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 100).long())
    read = column(watch, CountColumn.ELEMENTS) // 4 - 2
    assert read == min(limit, 6) or (limit == 16 and read == 7)


def test_steps_are_drawn_one_of_each_doubling():
    draw = np.random.default_rng(0)
    seen = np.zeros(64)
    for _ in range(4000):
        request = Request(None, 16, lambda most: int(draw.integers(most)))
        taken = [step for step in range(1, 64) if request.wants_step()]
        assert [int(np.log2(step)) for step in taken] == list(range(6))
        seen[taken] += 1
    for doubling in range(6):
        first = 1 << doubling
        share = seen[first : 2 * first] / 4000
        assert np.abs(share - 1 / first).max() < 5 * np.sqrt(1 / first / 4000) + 1e-9


@pytest.mark.parametrize("value", [-1, 63, "many", None, 2.5])
def test_the_limit_is_checked(value):
    with pytest.raises(ConfigurationError, match="steps_per_request is"):
        WatchOptions(steps_per_request=value)


@pytest.mark.parametrize("value", [b"x", "x" * 65, 5])
def test_the_salt_is_checked(value):
    with pytest.raises(ConfigurationError, match="key_salt is"):
        WatchOptions(key_salt=value)


def test_an_error_of_the_model_passes_and_the_request_goes_on(watch_all):
    decoder = Decoder()
    watch = watch_all(decoder)
    output = decoder(input_ids=torch.ones(1, 2).long())
    cache = output.past_key_values
    for bad in (torch.full((1, 1), 99), torch.full((1, 3), 99)):
        with pytest.raises(IndexError):
            decoder(input_ids=bad, past_key_values=cache)
    with pytest.raises(IndexError):
        decoder(input_ids=torch.full((1, 2), 99))
    decoder(input_ids=torch.ones(1, 1).long(), past_key_values=cache)
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"], errors(watch)) == (2, 3, 0)


def test_a_cache_that_cannot_be_followed_makes_each_call_a_request(watch_all):
    class Fixed:
        __slots__ = ("keys",)

        def get_seq_length(self):
            return 1

    decoder = Decoder()
    watch = watch_all(decoder)
    cache = Fixed()
    cache.keys = torch.zeros(1, 1, 4)
    generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 3).long(), cache)
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"], errors(watch)) == (4, 0, 0)


def test_a_cache_that_lies_about_itself_costs_nothing_but_an_error(watch_all):
    class Odd(Cache):
        @property
        def get_seq_length(self):
            raise RuntimeError("no length")

    decoder = Decoder()
    watch = watch_all(decoder)
    cache = Odd()
    generate(decoder, torch.ones(1, 2).long(), torch.ones(1, 3).long(), cache)
    decoder(input_ids=torch.ones(1, 2).long(), past_key_values=cache)
    assert errors(watch) == 1
    assert cache.keys.shape[1] == 7


def test_a_cache_that_is_given_by_position(decoder, watch_all):
    watch = watch_all(decoder)
    output = decoder(torch.ones(1, 2).long())
    for _ in range(3):
        output = decoder(torch.ones(1, 1).long(), _cache_of(output))
    found = figures(watch)
    assert (found["SEEN"], found["STEPS"]) == (1, 3)


def test_decisions_are_renewed_by_steps_too(watch_all):
    decoder = Decoder()
    watch = watch_all(decoder, sample_rate=0.5)
    output = decoder(input_ids=torch.ones(1, 2).long())
    gate = decoder.__dict__["forward"]
    gate.decisions = table = b"\3" * len(gate.decisions)  # each entry asks for new ones
    decoder(input_ids=torch.ones(1, 1).long(), past_key_values=output.past_key_values)
    assert gate.decisions != table
    assert figures(watch)["STEPS"] == 1


class Answering(nn.Module):
    """Returns what it is told to."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.answer = None

    def forward(self, x, past_key_values=None):
        self.fc(x)
        return self.answer


class Broken:
    @property
    def past_key_values(self):
        raise RuntimeError("not computed")


@pytest.mark.parametrize(
    ("answer", "follows"),
    [
        ((torch.ones(1), Cache()), True),
        ((torch.ones(1), (torch.ones(1), torch.ones(1))), False),  # hidden states, say
        ((torch.ones(1), ((torch.ones(1), torch.ones(1)),)), True),
        ((torch.ones(1), [[torch.empty(0)]]), False),
        (torch.ones(1), False),
        (None, False),
        ({"past_key_values": None}, False),
    ],
    ids=["object", "tensors", "layers", "empty", "tensor", "none", "dict"],
)
def test_a_cache_is_found_in_what_the_model_returns(watch_all, bounded, answer, follows):
    model = Answering()
    watch = watch_all(model, profile=bounded(fc__input=9.0))
    model.answer = answer
    assert model(torch.ones(1, 2)) is answer
    assert figures(watch)["UNITS"] == (not follows)
    assert errors(watch) == 0


def test_an_answer_that_cannot_be_looked_at_passes_and_is_counted(watch_all, bounded):
    model = Answering()
    watch = watch_all(model, profile=bounded(fc__input=9.0))
    model.answer = Broken()
    assert model(torch.ones(1, 2)) is model.answer
    assert figures(watch)["UNITS"] == 1
    assert errors(watch) == 1


def test_captures_hold_no_cache_and_no_step(watch_all, tmp_path):
    decoder = Decoder("tuple")
    watch = watch_all(decoder, state_dir=tmp_path, capture=CaptureOptions())
    generate(decoder, torch.full((1, 2), 7), torch.ones(1, 5).long())
    watch.close()
    (path,) = [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]
    kept = read_capture(path)
    assert {name: value.tolist() for name, value in kept.inputs.items()} == {"input_ids": [[7, 7]]}


def test_a_shadow_pass_never_meets_a_filled_cache(watch_all):
    """Behind `torch.compile`: a prompt is replayed without a cache, a step is dropped."""
    decoder = Decoder()
    compiled = torch.compile(decoder, backend="eager")
    cache = Cache()
    watch = watch_all(compiled)
    with torch.no_grad():
        generate(compiled, torch.full((1, 4), 7), torch.full((1, 5), 3), cache)
    watch.flush()
    total = watch.snapshot()[1]
    assert cache.keys.shape == (1, 9, 4)
    drops = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.STATEFUL_CALL)
    assert total.requests[drops] in (2, 3)  # steps 1, one of 2 and 3, maybe one of 4 to 7
    assert figures(watch)["SEEN"] == 1
    assert figures(watch)["STEPS"] == 5
    assert errors(watch) == 0


def test_a_shadow_pass_draws_from_no_generator_of_the_host(watch_all):
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x, generator=None):
            return self.fc(x) + torch.rand(x.shape, generator=generator)

    compiled = torch.compile(Drawing().eval(), backend="eager")
    watch = watch_all(compiled)
    generator = torch.Generator().manual_seed(1)
    twin = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            compiled(torch.ones(2, 4), generator=generator)
            torch.rand(2, 4, generator=twin)
    total = watch.snapshot()[1]
    drops = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.STATEFUL_CALL)
    assert total.requests[drops] == 3
    assert torch.equal(generator.get_state(), twin.get_state())
