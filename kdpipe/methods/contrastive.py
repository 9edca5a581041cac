"""Contrastive distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.numerics import full_precision, unit, wide


class ContrastiveMemory(nn.Module):
    """The last embedding of every training image by student and by teacher, and what is drawn from it.

    All that changes is in buffers, so a training that was cut off goes on where it was.

    Args:
        labels: class of each image, -1 where it has none; with none at all the memory is as small as it can be.
        width: of an embedding.
        negatives: how many are asked for.
        momentum: share of the old vector in an update.

    Attributes:
        student_bank, teacher_bank: (M, width) vectors of length 1.
        log_constants: (2,) normalisation of the scores of student and teacher anchors; NaN until their first use.
        labels: (M,).
        negatives: how many are drawn for an image: what was asked for, or as many as the image with the fewest
            others to choose from has, if that is less.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    log_constants: Tensor
    labels: Tensor
    order: Tensor
    behind: Tensor
    others: Tensor

    def __init__(self, labels: Sequence[int], width: int = 128, negatives: int = 16384, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        known = torch.full((max(len(labels), 2),), -1)
        known[: len(labels)] = torch.tensor(labels, dtype=torch.int64)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, unit(torch.randn(len(known), width)))
        self.register_buffer("log_constants", torch.full((2,), math.nan))
        self.register_buffer("labels", known)
        order, behind, others = _allowed(known)
        self.negatives = min(negatives, int(others.min()))
        for name, table in (("order", order), ("behind", behind), ("others", others)):
            self.register_buffer(name, table, persistent=False)

    @property
    def images(self) -> int:
        """M, the number of images that are remembered."""
        return len(self.labels)

    def draw(self, index: Tensor) -> Tensor:
        """Negatives (B, negatives) of images (B,): uniform, with repetition, over all images of other classes.

        An image without a label may be a negative of any other, and has all others as its negatives.
        """
        size = (len(index), self.negatives)
        # The remainder of a number this large is uniform to one part in 2^62 / M, whatever each row's bound.
        steps = torch.randint(2**62, size, device=index.device) % self.others[index, None]
        return self.order[(self.behind[index, None] + steps) % self.images]

    def log_constant(self, side: int, scores: Tensor) -> Tensor:
        """Logarithm of the constant that makes exp(score) a probability over images, fixed at its first use.

        It is the mean of exp(score) over that first batch, times the number of images.

        Args:
            side: 0 for student anchors, 1 for teacher anchors.
        """
        with torch.no_grad():
            fresh = scores.logsumexp((0, 1)) - math.log(scores.numel()) + math.log(self.images)
            # A choice of tensors, as asking for the value would wait for the device.
            fixed = torch.where(self.log_constants[side].isnan(), fresh, self.log_constants[side])
            if self.training:
                self.log_constants[side] = fixed
        return fixed

    @torch.no_grad()
    def remember(self, index: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Move the vectors of images (B,) towards new ones (B, width); in evaluation nothing changes.

        The banks are replaced rather than written to, as the backward pass still needs the old ones. Where an image is
        in the batch twice, its first row counts.
        """
        if not self.training:
            return
        first = (index[:, None] == index).float().argmax(1)
        for name, new in (("student_bank", student), ("teacher_bank", teacher)):
            bank: Tensor = getattr(self, name)
            moved = unit(self.momentum * bank[index] + (1 - self.momentum) * new[first].to(bank.dtype))
            setattr(self, name, bank.index_copy(0, index, moved))


def _allowed(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images (M,) sorted by class, and for each image where its own group ends there and how many are not in it.

    A draw then walks on from the end of the own group, and cannot come back to it. An image without a label
    is a group of its own; so is every image where there is but one class, and nothing else to tell images apart.
    """
    if len(labels.unique()) == 1:
        labels = torch.full_like(labels, -1)
    order = labels.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(labels))
    ends, sizes = place + 1, torch.ones_like(labels)
    named = labels >= 0
    ranked = labels[order]
    ends[named] = torch.searchsorted(ranked, labels[named], right=True)
    sizes[named] = ends[named] - torch.searchsorted(ranked, labels[named])
    return order, ends, len(labels) - sizes


def nce_loss(scores: Tensor, log_constant: Tensor, images: int) -> Tensor:
    """Noise-contrastive estimation: tell the one positive from N uniformly drawn negatives.

    With P = exp(score) / Z and uniform noise of probability 1 / M, a pair is taken for a positive with probability
    h = P / (P + N / M). The loss is -log h of the positive, and -log(1 - h) summed over the negatives, averaged
    over anchors.

    Args:
        scores: (B, 1 + N), the positive first.
        log_constant: log Z.
        images: M.
    """
    negatives = scores.shape[1] - 1
    logit = scores - log_constant - math.log(negatives / images)
    return -(F.logsigmoid(logit[:, 0]) + F.logsigmoid(-logit[:, 1:]).sum(1)).mean()


@full_precision
def crd_loss(
    embedded_student: Tensor,
    embedded_teacher: Tensor,
    index: Tensor,
    memory: ContrastiveMemory,
    temperature: float = 0.07,
) -> Tensor:
    """Contrastive representation distillation: an image's two embeddings belong together, those of two images do not.

    Both directions are summed: the student's embedding against the teacher's of other images, and the teacher's
    against the student's. In training the memory takes up the new embeddings afterwards.

    Tian, Krishnan & Isola, "Contrastive Representation Distillation", 2020, section 3 (critic and memory) and
    equation 18 (loss).

    Args:
        embedded_student, embedded_teacher: (B, D), brought to length 1 here.
        index: (B,) which image of the memory each row is.
        memory: the vectors that negatives are taken from.
        temperature: divides the cosines.
    """
    student, teacher = unit(wide(embedded_student)), unit(wide(embedded_teacher))
    negatives = memory.draw(index)
    positive = (student * teacher).sum(1, keepdim=True)
    loss = positive.new_zeros(())
    for side, (anchor, bank) in enumerate(((student, memory.teacher_bank), (teacher, memory.student_bank))):
        # All cosines and then a choice of them: to choose vectors first would hold B x N x D numbers.
        against = (anchor @ bank.to(anchor.dtype).T).gather(1, negatives)
        scores = torch.cat([positive, against], 1) / temperature
        loss = loss + nce_loss(scores, memory.log_constant(side, scores), memory.images)
    memory.remember(index, student.detach(), teacher.detach())
    return loss


class ContrastiveHeads(nn.Module):
    """Linear layers from both pooled features to one width, of which both train, and the memory behind them."""

    def __init__(self, student: int, teacher: int, width: int, memory: ContrastiveMemory) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(student, width), nn.Linear(teacher, width)
        self.memory = memory

    def forward(self, pooled_student: Tensor, pooled_teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both pooled features (B, D) in the common space, each (B, width)."""
        return self.student(pooled_student), self.teacher(pooled_teacher)


class CrdParameters(Parameters):
    """Parameters of CRD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    crd_weight: float = Field(default=0.8, ge=0.0)
    width: int = Field(default=128, ge=1, description="of the common space")
    negatives: int = Field(default=16384, ge=1, description="at most; small sets offer fewer")
    temperature: float = Field(default=0.07, gt=0.0)
    momentum: float = Field(default=0.5, ge=0.0, lt=1.0, description="share of the old vector in the memory")


def _crd_extras(pair: Pair, parameters: CrdParameters) -> nn.Module:
    memory = ContrastiveMemory(pair.labels, parameters.width, parameters.negatives, parameters.momentum)
    return ContrastiveHeads(pair.student.pooled, pair.teacher.pooled, parameters.width, memory)


def _crd_terms(step: Step) -> Terms:
    chosen: CrdParameters = step.parameters
    assert isinstance(step.extras, ContrastiveHeads)
    student, teacher = step.extras(step.student.pooled, step.of_teacher.pooled)
    loss = crd_loss(student, teacher, step.index, step.extras.memory, temperature=chosen.temperature)
    return {"ce": chosen.ce_weight * step.cross_entropy, "crd": chosen.crd_weight * loss}


CRD = Method(
    name="crd",
    title="Contrastive representation distillation",
    role="distilled",
    family="contrastive",
    terms=_crd_terms,
    needs=("pooled", "index"),
    parameters=CrdParameters,
    extras=_crd_extras,
    formula="CE - 0.8 [log h(i, i) + sum over N negatives j of log(1 - h(i, j))], both ways, "
    "h = P / (P + N / M), P = exp(cos / 0.07) / Z",
    summary="Both networks embed one image alike and images of other classes apart, against a memory of all images.",
    citation="Tian, Krishnan & Isola, Contrastive Representation Distillation, 2020",
    differs="The positive is the step's own pair, as the paper writes it; published code takes one half of it from the "
    "memory, an epoch old. Z is set at the first batch as in that code; the paper's h has none. Negatives "
    "are drawn with repetition, and no more of them than there are images of other classes: 16384 only for large "
    "sets. Images without a label are anyone's negatives, though some are of the same class.",
)

METHODS = (CRD,)
