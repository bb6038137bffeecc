"""Stands where a program looks for ``ray``, and gives it miniray. Its folder goes to the front of ``PYTHONPATH``."""

import os
import sys

try:
    import miniray.compat
except ImportError:  # not installed for this interpreter: the one whose shim this is
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4)))
    import miniray.compat

miniray.compat.install()
sys.modules[__name__] = miniray
