"""Heads trained on a store and scored against chance; what they find, and its files."""
