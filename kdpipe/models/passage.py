"""Passage: one pass through a network, on record: which modules were called, and through which everything passes.

Everything passes through a module's output if nothing goes around it on the way from the images to the logits, as a
shortcut goes around the inside of a residual block. That is read off the graph that autograd keeps: as many paths lead
through such an output as there are in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdpipe.models.structures import answer_of, first_tensor

Vertex = tuple[Any, int]  # a node of autograd's graph, and which of its outputs


@dataclass
class Visit:
    """What a module did in a pass; of one that was called several times, in its last call.

    Attributes:
        name: its path; "" for the network itself.
        calls: how often it was called.
        order: when its last call ended, counted over all calls.
        output: the first tensor that it returned, if any; changed where something worked on it in place afterwards.
        vertex: of the output in autograd's graph, as it left the module; None where no gradient reaches it.
        given: the first tensor that it took, if any.
        source: of the given tensor, as it came.
    """

    name: str
    module: nn.Module
    calls: int = 0
    order: int = 0
    output: Tensor | None = None
    vertex: Vertex | None = None
    given: Tensor | None = None
    source: Vertex | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output, batch included; () for none."""
        return () if self.output is None else tuple(self.output.shape)


@dataclass
class Passage:
    """A pass on record.

    Attributes:
        visits: by name, of the modules that were called, in the order in which their last calls ended.
        answer: logits (B, K), or None if what the network returned has no tensor of that shape.
        returned: what the network returned.
        passed: vertices through which everything passes.
    """

    visits: dict[str, Visit]
    answer: Tensor | None
    returned: Any
    passed: set[Vertex] = field(default_factory=set)

    def is_passed(self, visit: Visit) -> bool:
        """Whether everything passes through what the module returned, on its only call."""
        return visit.calls == 1 and visit.vertex in self.passed


def passage_of(model: nn.Module, images: Tensor, classes: int) -> Passage:
    """Send images (B, C, H, W) through a network and keep the record."""
    names = {module: name for name, module in model.named_modules()}
    visits = {name: Visit(name, module) for module, name in names.items()}
    ended = 0

    def enter(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        visit, tensor = visits[names[module]], first_tensor((*arguments, *named.values()))
        visit.given, visit.source = tensor, _vertex(tensor)

    def leave(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        nonlocal ended
        visit, tensor, ended = visits[names[module]], first_tensor(output), ended + 1
        visit.calls, visit.order = visit.calls + 1, ended
        visit.output, visit.vertex = tensor, _vertex(tensor)

    handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in names]
    handles += [module.register_forward_hook(leave, with_kwargs=True) for module in names]
    leaf = images.clone().requires_grad_()
    try:
        with torch.enable_grad():
            returned = model(leaf.clone())  # a copy, as a leaf may not be changed in place
    finally:
        for handle in handles:
            handle.remove()
    answer = answer_of(returned, classes)
    called = sorted((visit for visit in visits.values() if visit.calls), key=lambda visit: visit.order)
    record = Passage({visit.name: visit for visit in called}, answer, returned)
    if answer is not None and answer.grad_fn is not None:
        record.passed = _passed(answer, leaf)
    return record


def _vertex(tensor: Tensor | None) -> Vertex | None:
    return None if tensor is None or tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)


def _passed(answer: Tensor, leaf: Tensor) -> set[Vertex]:
    """The vertices that lie on every path from the answer to the images."""
    order = _sorted(answer.grad_fn)
    onward: dict[Any, int] = {}
    for node in reversed(order):
        ends = getattr(node, "variable", None) is leaf
        onward[node] = int(ends) + sum(onward[following] for following, _ in node.next_functions if following)
    arriving: dict[Vertex, int] = {(answer.grad_fn, answer.output_nr): 1}
    at: dict[Any, int] = dict.fromkeys(order, 0) | {answer.grad_fn: 1}
    for node in order:
        for following, output in node.next_functions:
            if following:
                arriving[following, output] = arriving.get((following, output), 0) + at[node]
                at[following] += at[node]
    return {vertex for vertex, paths in arriving.items() if paths and 0 < paths * onward[vertex[0]] == onward[order[0]]}


def _sorted(root: Any) -> list[Any]:
    """The nodes of a graph, each before those that it leads to."""
    done: list[Any] = []
    seen = {root}
    stack = [(root, iter(root.next_functions))]
    while stack:
        rest = stack[-1][1]
        following = next((each for each, _ in rest if each is not None and each not in seen), None)
        if following is None:
            done.append(stack.pop()[0])
        else:
            seen.add(following)
            stack.append((following, iter(following.next_functions)))
    return done[::-1]
