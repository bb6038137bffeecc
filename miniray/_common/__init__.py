"""Under Ray's name ``ray._common``: what programs and test suites take from there in practice."""
