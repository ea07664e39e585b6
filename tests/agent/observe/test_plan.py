"""What the shadow of a compiled module accepts, and the clone that it runs on."""

from torch import nn

from calidrift_agent._observe._plan import TreePlan
from calidrift_agent._points import discover


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)
        self.scale = 1.0

    @property
    def factor(self):
        return self.scale

    def forward(self, x):
        part = lambda y: self.fc(y)  # noqa: E731
        return self.out(part(x)) * self.factor


class Inheriting(Plain):
    def forward(self, x):
        return super().forward(x)


class Writing(Plain):
    def forward(self, x):
        self.calls = 1
        return super().forward(x)


class WritingInside(Plain):
    def forward(self, x):
        def count():
            self.calls = 1

        count()
        return super().forward(x)


class Deleting(Plain):
    def forward(self, x):
        del self.scale
        return x


class HandingOn(Plain):
    def forward(self, x):
        return id(self) and super().forward(x)


class Reflecting(Plain):
    def helper(self):
        return vars(self.fc)

    def forward(self, x):
        return super().forward(x)


class Slotted(Plain):
    __slots__ = ("extra",)


class Custom(Plain):
    def __getattr__(self, name):
        return super().__getattr__(name)


def plan_of(model):
    return TreePlan(model, discover(model).points)


def test_a_plan_notices_changes_of_the_tree():
    for change in (
        lambda model: setattr(model, "fc", nn.Linear(4, 4)),
        lambda model: model.add_module("more", nn.ReLU()),
        lambda model: delattr(model, "out"),
        lambda model: setattr(model.fc, "__class__", type("Other", (nn.Linear,), {})),
        lambda model: object.__setattr__(model.fc, "__dict__", dict(model.fc.__dict__)),
        lambda model: model.fc.__dict__.update(_modules=dict(model.fc._modules)),
    ):
        model = Plain()
        plan = plan_of(model)
        model.scale = 2.0
        assert plan.is_current()
        change(model)
        assert not plan.is_current()
