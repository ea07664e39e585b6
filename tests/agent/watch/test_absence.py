"""Calls that never come are told, once they could have come."""

from dataclasses import replace

import pytest
import torch
from torch import nn


class Encoders(nn.Module):
    """Is called past its forward, as a model of text and images is for embeddings."""

    def __init__(self):
        super().__init__()
        self.image = nn.Linear(4, 2)

    def features(self, x):
        return self.image(x)

    def forward(self, x):
        return self.image(x)


def age(watch, seconds):
    """Have the watch be older than it is."""
    books = watch._active.engine.books
    books.meta = replace(books.meta, started_ns=books.meta.started_ns - seconds * 1_000_000_000)


def absences(watch):
    return [note for note in watch.report().notes if note.startswith("no call came")]


@pytest.mark.parametrize("sample_rate", [0.0, 1.0])
def test_calls_past_the_forward(watch_all, sample_rate):
    model = Encoders().eval()
    watch = watch_all(model, sample_rate=sample_rate)
    for _ in range(40):
        model.features(torch.ones(1, 4))
    assert absences(watch) == []  # nobody knows yet whether there will be requests
    age(watch, 100)
    (note,) = absences(watch)
    assert note.startswith("no call came through its forward in 10")
    assert "another method" in note
    model(torch.ones(1, 4))
    assert absences(watch) == []


def test_after_the_end_nothing_is_missed(watch_all):
    watch = watch_all(Encoders().eval())
    age(watch, 100)
    watch.close()
    assert absences(watch) == []


def test_of_a_function_the_watch_has_to_be_called(watch_all):
    watch = watch_all(lambda x: x)
    age(watch, 100)
    (note,) = absences(watch)
    assert "through the watch, which has to be called" in note
    watch(torch.ones(1, 4))
    assert absences(watch) == []
