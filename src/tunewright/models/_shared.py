"""Models that share the weights of another."""

import copy

import torch
from transformers import PreTrainedModel


def sharing(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of its own modules and buffers, whose parameters lie where those of another do."""
    # What deepcopy finds in its memo it takes for copied.
    shared = {
        id(one): torch.nn.Parameter(one.detach(), requires_grad=one.requires_grad)
        for one in model.parameters()
    }
    return copy.deepcopy(model, shared)


def written(model: PreTrainedModel) -> bool:
    """Return whether something has written into weights, also through a model that shares them.

    What is written past autograd (`weight.data -= ...`) is not noticed: who does that loads weights of its own.
    """
    return any(one._version for one in model.parameters())
