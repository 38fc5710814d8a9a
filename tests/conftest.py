"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("tessera", deadline=None)  # a machine that is busy is no error of the code
settings.load_profile("tessera")
