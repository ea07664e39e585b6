"""The same service with models that are watched where this module is imported.

That is the master of pre-forked workers. The master starts no thread; each worker counts for
itself, into files of its own, from its first request on.
"""

from demo_service.app import Models, create_app

models = Models()
models.attach()
app = create_app(models, attach=None)
