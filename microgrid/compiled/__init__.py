"""Compiled networks: a recorded network → a program that computes it, and its gradients, at any length."""
