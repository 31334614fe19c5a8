"""The world that the tests of backends have."""

from tests.backends.conftest import world as world
