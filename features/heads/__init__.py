"""Heads that are trained on stored features."""

from .linear import LinearHead, train_linear

__all__ = ["LinearHead", "train_linear"]
