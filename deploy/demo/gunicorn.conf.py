"""Settings of gunicorn: `gunicorn -c deploy/demo/gunicorn.conf.py`."""

from pathlib import Path

chdir = str(Path(__file__).parent)
wsgi_app = "demo_service.preloaded:app"
worker_class = "asgi"
workers = 4
bind = "127.0.0.1:8000"
preload_app = True
