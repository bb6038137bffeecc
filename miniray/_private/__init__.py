"""Under Ray's name ``ray._private``: what well-known libraries and test suites take from there in practice.

In Ray these are its insides. Here they are thin views of miniray's, with the same names, so that such programs run.
"""
