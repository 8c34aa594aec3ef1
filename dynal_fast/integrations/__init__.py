"""Adapters for the libraries that active-learning code is written in, one module for each.

No module here is imported by the rest of the package, and none imports its library before it is
imported itself: ``import dynal_fast`` needs none of them.
"""
