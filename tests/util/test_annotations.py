"""The marks of Ray's decorators."""

import pytest

from miniray.util.annotations import Deprecated, DeveloperAPI, PublicAPI, RayDeprecationWarning


def test_marks_leave_what_they_mark_as_it_is():
    @PublicAPI
    def f():
        return 1

    @PublicAPI(stability="beta")
    class A:
        """Doc."""

    @DeveloperAPI
    def g():
        return 2

    assert (f(), g(), A().__class__) == (1, 2, A)
    assert "in beta" in A.__doc__ and A.__doc__.startswith("Doc.")


def test_a_deprecated_one_warns_when_it_is_told_to():
    @Deprecated(message="Use g instead.", warning=True)
    def f():
        return 1

    with pytest.warns(RayDeprecationWarning, match="Use g instead"):
        assert f() == 1
    with pytest.raises(ValueError, match="Unknown kwargs"):
        Deprecated(nope=1)(f)
