"""Makes the modules in this folder importable from every test: ``import models``."""
