"""The layers of a network that are looked at where a study does not name them.

A layer is a *block*, or a plain module with a weight matrix together with the norms and activations after it that keep
its shape, of which the last is looked at. A block has weights, everything passes through it, and something goes around
the parts within, as in residual, attention, dense and inception blocks. Modules of the same class as a block are blocks
as well, with a shortcut or without. The classifier is no layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from kdpipe.models.passage import Passage, Vertex, Visit

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_layers(record: Passage, which: str) -> list[str]:
    """Names of a network's layers, in order.

    Args:
        which: "all", or "stages": the last layer before each change of shape, and none before the first block. Where
            all blocks have one shape, as in a plain transformer, or all layers, each of them is a stage.
    """
    search = _Search(record)
    layers = search.layers()
    blocks = [layer for layer in layers if search.is_block(layer)]
    if which == "all" or not layers:
        return [layer.name for layer in layers]
    if blocks:
        layers = layers[layers.index(blocks[0]) :]
    if len(blocks) < 2 or len({block.shape for block in blocks}) > 1:
        pairs = zip(layers, [*layers[1:], None], strict=True)
        ends = [layer for layer, following in pairs if following is None or following.shape != layer.shape]
        layers = ends if len(ends) > 1 else layers
    return _as_stages(layers, record)


class _Search:
    def __init__(self, record: Passage) -> None:
        self.record = record
        self.inside: dict[str, set[Vertex | None]] = {}
        for visit in record.visits.values():
            if record.is_passed(visit):
                for parent in _parents(visit.name):
                    self.inside.setdefault(parent, set()).add(visit.vertex)
        candidates = [visit for visit in record.visits.values() if self._may_be_block(visit)]
        self.ends = {(parent, visit.vertex) for visit in candidates for parent in _parents(visit.name)}
        self.block_classes = {type(visit.module) for visit in candidates if self._holds_shortcut(visit)}

    def _holds_shortcut(self, visit: Visit) -> bool:
        """Whether a module is a block of itself, and no wrapper of one."""
        inside = self.inside.get(visit.name, set())
        if (visit.name, visit.vertex) in self.ends:
            return False
        return not inside - {visit.vertex, visit.source} or (visit.vertex not in inside and self._branches(visit))

    def _branches(self, visit: Visit) -> bool:
        """Whether something goes around one of its parts that have weights."""
        parts = ((self.record.visits.get(f"{visit.name}.{name}"), part) for name, part in visit.module.named_children())
        return any(part and not self.record.is_passed(part) and _has_matrix(module) for part, module in parts)

    def _may_be_block(self, visit: Visit) -> bool:
        module = visit.module
        is_made_of_parts = any(True for _ in module.children()) and type(module) not in _CONTAINERS
        return bool(visit.name) and is_made_of_parts and self.record.is_passed(visit) and _has_matrix(module)

    def is_block(self, visit: Visit) -> bool:
        return type(visit.module) in self.block_classes and self._may_be_block(visit)

    def layers(self) -> list[Visit]:
        """All layers, in the order in which they are passed."""
        layers: list[Visit] = []
        known: set[Vertex | None] = set()
        goes_on = False
        for visit in sorted(self._parts("", self.record.visits[""].module), key=lambda visit: visit.order):
            if visit.vertex in known:  # it gives back what it was given
                continue
            known.add(visit.vertex)
            if self.is_block(visit) or _has_matrix(visit.module):
                layers.append(visit)
                goes_on = not self.is_block(visit)
            elif goes_on and visit.shape == layers[-1].shape:
                layers[-1] = visit
        answer = self.record.answer
        while layers and answer is not None and layers[-1].shape in {tuple(answer.shape), (*answer.shape, 1, 1)}:
            layers.pop()
        return layers

    def _parts(self, path: str, module: nn.Module) -> Iterator[Visit]:
        """Blocks and modules without parts that everything passes through, below a module."""
        for name, child in module.named_children():
            below = f"{path}.{name}" if path else name
            visit = self.record.visits.get(below)
            is_whole = visit is not None and (self.is_block(visit) or not any(True for _ in child.children()))
            if visit is not None and is_whole:
                if self.record.is_passed(visit):
                    yield visit
            else:
                yield from self._parts(below, child)


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _has_matrix(module: nn.Module) -> bool:
    """Whether it has weights other than a norm's or an activation's, which are vectors."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _as_stages(layers: list[Visit], record: Passage) -> list[str]:
    """Stages under the name of the container that each ends, where each has one of its own."""
    names = [layer.name for layer in layers]
    containers = []
    for layer in layers:
        ended = [parent for parent in _parents(layer.name) if _ends_with(record.visits.get(parent), layer)]
        own = [parent for parent in ended if sum(name.startswith(f"{parent}.") for name in names) == 1]
        containers.append(own[-1] if own else None)
    return [name for name in containers if name is not None] if None not in containers else names


def _ends_with(parent: Visit | None, layer: Visit) -> bool:
    return parent is not None and parent.calls == 1 and parent.vertex == layer.vertex
