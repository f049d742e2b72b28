"""Shared parameters: gradients of the network as features of the noise levels."""
